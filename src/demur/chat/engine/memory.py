"""How much work fits in memory at once, estimated before the first batch.

The estimates are rough and on the safe side; where they are wrong, `buckets.halving` takes over.
Where not even one conversation fits, that is an error before the work starts.
They are powers of two with a ceiling, so that a machine with memory to spare always cuts its work
the same way and results stay equal to the last bit. (On a GPU, slots that are kept count as free.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedModel

from demur import processes
from demur.chat.engine.architecture import shape_of
from demur.chat.engine.forward import input_device
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.packing import Packing
from demur.chat.hardware import available_memory
from demur.errors import DemurError

SHARE = 0.5
"""Share of the free memory that a batch may take."""


class Ceilings(NamedTuple):
    """Most tokens that are read at once, tokens with a gradient, and responses."""

    read: int
    trained: int
    slots: int


ON_PROCESSOR = Ceilings(read=4096, trained=8192, slots=256)
"""Beyond these, larger batches brought no speed on two cores."""

ON_GPU = Ceilings(read=32768, trained=32768, slots=1024)
"""A GPU wants more work at once."""

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
        free: bytes that a batch may take.
    """

    read: int
    trained: int
    logits: int
    free: float

    def trained_at(self, model: PreTrainedModel, width: int) -> int:
        """`trained` where a token sees `width` others, whose scores are kept as well."""
        most = self.free / activation_bytes(model, width)
        return min(self.trained, _power_of_two(most, self.trained))


def ceilings(model: PreTrainedModel) -> Ceilings:
    """What batches of a model are bounded by, whatever memory there is."""
    return ON_GPU if input_device(model).type == "cuda" else ON_PROCESSOR


def room_for(model: PreTrainedModel) -> Room:
    """Estimate how many tokens of `model` fit in what memory is free on its device."""
    free = SHARE * _free_bytes(model)
    activations = activation_bytes(model)
    most = ceilings(model)
    # Reading holds a layer's activations and all keys and values; a gradient needs every layer's.
    reading = 2 * activations / shape_of(model).layers + cache_bytes(model)
    return Room(
        read=_power_of_two(free / reading, most.read),
        trained=_power_of_two(free / activations, most.trained),
        logits=_power_of_two(free / (4 * _COPIES_OF_LOGITS), MOST_LOGITS),
        free=free,
    )


def slots_for(model: PreTrainedModel, capacity: int) -> int:
    """Estimate how many sequences of `capacity` tokens can be sampled at once."""
    free = SHARE * _free_bytes(model)
    logits = 3 * 4 * shape_of(model).vocabulary  # float32, sorted and summed on the way to a draw
    return _power_of_two(free / (capacity * cache_bytes(model) + logits), ceilings(model).slots)


def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes of one token's keys and values in all layers."""
    shape = shape_of(model)
    return 2 * shape.layers * shape.key_value * model.dtype.itemsize


def activation_bytes(model: PreTrainedModel, width: int = 0) -> int:
    """Bytes of one token's activations in all layers, where all are kept for a gradient.

    Args:
        model: the model.
        width: tokens that the token sees, itself included.

    In each layer about ten tensors of the hidden width (norms, projections, residuals) and four of
    the inner width of the feed-forward part; for Qwen2.5-Coder-0.5B in float32 that makes 2.7 MB,
    where 2.3 MB were measured. The shares of attention are float32.
    """
    shape = shape_of(model)
    states = (10 * shape.hidden + 4 * shape.inner) * model.dtype.itemsize
    return shape.layers * (states + 4 * shape.heads * width)


def step_bytes(model: PreTrainedModel, inputs: Inputs, rows: Sequence[int]) -> int:
    """Bytes that a training step on some conversations takes beside the weights.

    Args:
        model: the model.
        inputs: the conversations, with their targets.
        rows: places of those that are read together.
    """
    lengths = [inputs.lengths[row] for row in rows]
    prefix, tokens = len(inputs.prefix), len(inputs.prefix) + sum(lengths)
    scored = sum(len(target) for row in rows for target in inputs.targets_of(row))
    logits = 4 * _COPIES_OF_LOGITS * shape_of(model).vocabulary * min(scored, 1)
    return tokens * activation_bytes(model, prefix + max(lengths)) + logits


def row_bytes(model: PreTrainedModel, packing: Packing) -> int:
    """Bytes that a recorded training pass over a row takes beside the weights.

    Args:
        model: the model.
        packing: the row, its prefix inside; suffixes lie side by side, with room for the longest.
    """
    shape, longest = shape_of(model), packing.longest
    blocks = len(packing.lengths) + -(-packing.prefix // longest)
    scores = shape.heads * blocks * longest * (packing.prefix + longest)
    tokens = packing.prefix + packing.total
    return tokens * activation_bytes(model) + 4 * shape.layers * scores


def sampling_bytes(model: PreTrainedModel, inputs: Inputs, new_tokens: int) -> int:
    """Bytes beside the weights that it takes to sample one response to the longest conversation."""
    shape, tokens = shape_of(model), inputs.longest
    reading = tokens * 2 * activation_bytes(model) // shape.layers
    kept = (2 * tokens + new_tokens) * cache_bytes(model)  # as it was read, and in its slot
    return reading + kept + 3 * 4 * shape.vocabulary


def require_room(
    model: PreTrainedModel, name: str, inputs: Inputs, *, new_tokens: int, trained: bool
) -> None:
    """Refuse work for which a device is too small, whatever its batches are.

    Args:
        model: the model.
        name: name of the model.
        inputs: the conversations.
        new_tokens: tokens of a response, at most.
        trained: whether a gradient is wanted.

    Raises:
        DemurError: the longest conversation alone does not fit; it says what to change.
    """
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return  # spread over several devices, each of which has a share of the work
    device = input_device(model)
    longest = inputs.lengths.index(max(inputs.lengths))
    needed = sampling_bytes(model, inputs, new_tokens)
    if trained:
        needed = max(needed, step_bytes(model, inputs, [longest]))
    free = _free_bytes(model)
    if needed <= free:
        return
    prefix, own = len(inputs.prefix), max(inputs.lengths)
    shorter = (
        f"the safety prompt ({prefix} tokens)" if prefix > own else f"that query ({own} tokens)"
    )
    fixes = [f"shorten {shorter}"]
    if model.dtype.itemsize > 2:
        fixes.append("load the model in bfloat16 (--dtype)")
    if new_tokens > inputs.longest and not trained:
        fixes.append(f"ask for fewer than {new_tokens} new tokens (--tokens)")
    fixes.append("choose a smaller model or another device")
    raise DemurError(
        f"{name} needs {needed / 1e9:.2g} GB beside its weights for the longest query alone, and "
        f"{device} has {free / 1e9:.2g} GB free: {', '.join(fixes[:-1])}, or {fixes[-1]}."
    )


def _free_bytes(model: PreTrainedModel) -> int:
    """Bytes that are free on the model's device; the fewest of all processes that share it."""
    return processes.smallest(available_memory(input_device(model)))


def _power_of_two(amount: float, most: int) -> int:
    amount = min(max(1, int(amount)), most)
    return 1 << (amount.bit_length() - 1)
