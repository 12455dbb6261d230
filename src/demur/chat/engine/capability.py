"""Whether the shared path gives what the plain path gives, found out once for each model."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.chat.engine.decoding import step
from demur.chat.engine.forward import embedding_table, input_embeddings, read_packed
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.packing import Packing
from demur.chat.engine.plain import read_whole
from demur.chat.engine.prefix import compute_prefix, has_expandable_cache, suffix_states
from demur.chat.engine.slots import SlotCache

TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 6e-2}
"""Largest relative difference between the paths, by dtype.

A wrong mask or position gives far more."""


def shortest_window(model: PreTrainedModel) -> float:
    """The fewest tokens that some layer of the model can look back; infinite without windows."""
    layers = DynamicCache(config=model.config).layers
    windows = [layer.sliding_window for layer in layers if hasattr(layer, "sliding_window")]
    config = model.config.get_text_config(decoder=True)
    chunk = getattr(config, "attention_chunk_size", None)
    return float(min([*windows, *([chunk] if chunk else [])], default=float("inf")))


def shares_prefix(model: PreTrainedModel) -> bool:
    """Whether prefixes can be shared and responses sampled in slots, with the same results.

    Short random conversations are run both ways, up to the second token of a response.
    """
    if not has_expandable_cache(model):
        return False
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    try:
        with torch.inference_mode():
            return _paths_agree(model)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False


def _paths_agree(model: PreTrainedModel) -> bool:
    vocabulary = embedding_table(model).shape[0]
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())

    inputs = Inputs(tokens(3), (tokens(1), tokens(2)), None)  # fits in the shortest windows
    answers = tokens(2)
    longer = tuple((*suffix, token) for suffix, token in zip(inputs.suffixes, answers, strict=True))
    whole = Inputs(inputs.prefix, inputs.suffixes + longer, None)
    read = read_whole(model, whole, None, logits=True)
    assert read.logits is not None
    expected, logits, next_logits = read.representation[:2], read.logits[:2], read.logits[2:]

    lengths = tuple(inputs.lengths)
    opening = input_embeddings(model, torch.tensor([inputs.prefix]))
    rest = input_embeddings(model, torch.tensor([sum(inputs.suffixes, ())]))
    row = Packing(len(inputs.prefix), lengths, inside=True)
    first = read_packed(model, torch.cat([opening, rest], dim=1), row, logits=True)
    agree = _close(first.representation, expected)

    prefix = compute_prefix(model, opening)
    cache = prefix.cache()
    behind = Packing(prefix.length, lengths, inside=False)
    second = read_packed(model, rest, behind, cache=cache, logits=True)
    agree &= _close(second.representation, expected)
    agree &= _close(second.logits, logits)
    if inputs.longest + 1 > shortest_window(model):
        return agree  # such conversations are not sampled in slots
    slots = SlotCache(prefix, slots=2, capacity=inputs.longest + 1)
    for states in suffix_states(cache, behind):
        slots.add(states)
    return agree and _close(step(model, slots, answers), next_logits)


def _close(found: Tensor | None, expected: Tensor | None) -> bool:
    assert found is not None
    assert expected is not None
    difference = (found.float() - expected.float()).norm()
    return bool(difference <= TOLERANCE.get(expected.dtype, 1e-3) * expected.float().norm())
