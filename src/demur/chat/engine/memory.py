"""How much work fits in memory at once, estimated before the first batch.

The estimates are rough and on the safe side; where they are wrong, `buckets.halving` takes over.
They are powers of two with a ceiling, so that a machine with memory to spare always cuts its work
the same way and results stay equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from demur.chat.engine.architecture import shape_of
from demur.chat.engine.forward import input_device
from demur.chat.hardware import available_memory

SHARE = 0.5
"""Share of the free memory that a batch may take."""

MOST_READ, MOST_TRAINED, MOST_SLOTS = 4096, 8192, 256
"""Ceilings, beyond which larger batches brought no speed on two cores."""

MOST_LOGITS = 2**25
"""Ceiling of the logits that are computed at once to score tokens: 128 MiB in float32."""

_COPIES_OF_LOGITS = 4
"""Tensors as large as the logits (in float32) that are held while tokens are scored."""


@dataclass(frozen=True)
class Room:
    """What fits at once.

    Attributes:
        read: number of tokens that may be read together.
        trained: number of tokens that may be read together where a gradient is wanted.
        logits: number of logits that may be computed together to score tokens.
    """

    read: int
    trained: int
    logits: int


def room_for(model: PreTrainedModel) -> Room:
    """Estimate how many tokens of `model` fit in what memory is free on its device."""
    free = SHARE * available_memory(input_device(model))
    activations = activation_bytes(model)
    # Reading holds a layer's activations and all keys and values; a gradient needs every layer's.
    reading = 2 * activations / shape_of(model).layers + cache_bytes(model)
    return Room(
        read=_power_of_two(free / reading, MOST_READ),
        trained=_power_of_two(free / activations, MOST_TRAINED),
        logits=_power_of_two(free / (4 * _COPIES_OF_LOGITS), MOST_LOGITS),
    )


def slots_for(model: PreTrainedModel, capacity: int) -> int:
    """Estimate how many sequences of `capacity` tokens can be sampled at once."""
    free = SHARE * available_memory(input_device(model))
    logits = 3 * 4 * shape_of(model).vocabulary  # float32, sorted and summed on the way to a draw
    return _power_of_two(free / (capacity * cache_bytes(model) + logits), MOST_SLOTS)


def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes of one token's keys and values in all layers."""
    shape = shape_of(model)
    return 2 * shape.layers * shape.key_value * model.dtype.itemsize


def activation_bytes(model: PreTrainedModel) -> int:
    """Bytes of one token's activations in all layers, where all are kept for a gradient.

    In each layer about ten tensors of the hidden width (norms, projections, residuals) and four of
    the inner width of the feed-forward part; for Qwen2.5-Coder-0.5B in float32 that makes 2.7 MB,
    where 2.3 MB were measured.
    """
    shape = shape_of(model)
    return shape.layers * (10 * shape.hidden + 4 * shape.inner) * model.dtype.itemsize


def _power_of_two(amount: float, most: int) -> int:
    amount = min(max(1, int(amount)), most)
    return 1 << (amount.bit_length() - 1)
