"""How much work fits in memory at once, estimated before the first batch.

The estimates are rough and on the safe side; where they are wrong, `buckets.halving` takes over.
They are powers of two with a ceiling, so that a machine with memory to spare always cuts its work
the same way and results stay equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from demur.chat.engine.forward import input_device
from demur.chat.hardware import available_memory

SHARE = 0.5
"""Of the memory that is free, how much a batch may take."""

MOST_READ, MOST_TRAINED, MOST_SLOTS = 4096, 8192, 256
"""Ceilings, beyond which larger batches brought no speed on two cores."""


@dataclass(frozen=True)
class Room:
    """What fits at once.

    Attributes:
        read: tokens that may be read together.
        trained: tokens that may be read together where a gradient is wanted.
    """

    read: int
    trained: int


def room_for(model: PreTrainedModel) -> Room:
    """Estimate how many tokens of `model` fit in what memory is free on its device."""
    free = SHARE * available_memory(input_device(model))
    activations = activation_bytes(model)
    # Reading holds a layer's activations and all keys and values; a gradient needs every layer's.
    reading = 2 * activations / _layers(model) + cache_bytes(model)
    return Room(
        read=_power_of_two(free / reading, MOST_READ),
        trained=_power_of_two(free / activations, MOST_TRAINED),
    )


def slots_for(model: PreTrainedModel, capacity: int) -> int:
    """Estimate how many sequences of `capacity` tokens can be sampled at once."""
    free = SHARE * available_memory(input_device(model))
    config = model.config.get_text_config()
    logits = 3 * 4 * config.vocab_size  # float32, sorted and summed on the way to a draw
    return _power_of_two(free / (capacity * cache_bytes(model) + logits), MOST_SLOTS)


def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes of one token's keys and values in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * _layers(model) * groups * width * model.dtype.itemsize)


def activation_bytes(model: PreTrainedModel) -> int:
    """Bytes of one token's activations in all layers, where all are kept for a gradient.

    In each layer about ten tensors of the hidden width (norms, projections, residuals) and four of
    the inner width of the feed-forward part; for Qwen2.5-Coder-0.5B in float32 that makes 2.7 MB,
    where 2.3 MB were measured.
    """
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    inner = max(inner) if isinstance(inner, list | tuple) else int(inner)
    chosen = getattr(config, "num_experts_per_tok", None) or 1
    return _layers(model) * (10 * hidden + 4 * inner * int(chosen)) * model.dtype.itemsize


def _layers(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def _power_of_two(amount: float, most: int) -> int:
    amount = min(max(1, int(amount)), most)
    return 1 << (amount.bit_length() - 1)
