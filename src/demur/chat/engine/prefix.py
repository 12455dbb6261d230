"""The keys and values of a shared prefix: computed once, expanded over a batch.

This is exact: in a causal model they depend on nothing that follows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from demur.chat.engine.forward import read_positions

EXPANDABLE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


@dataclass(frozen=True)
class PrefixStates:
    """A filled cache of batch size one.

    Attributes:
        layers: one cache layer for each layer of the model; keys and values are (1, H, P, D).
        length: P, in tokens.
    """

    layers: tuple[DynamicLayer, ...]
    length: int

    def expanded(self, batch: int) -> Cache:
        """A cache for `batch` rows that all open with this prefix; costs no memory by itself."""
        twins = self._changed(lambda states: states.expand(batch, -1, -1, -1))
        return Cache(layers=[*twins.layers])

    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer that has any."""
        return [states for layer in self.layers for states in states_of(layer)]

    def as_leaves(self) -> PrefixStates:
        """The same states cut from their graph, ready to gather gradients of their own.

        A batch can then be taken in parts: each part's backward pass ends here, and one backward
        pass through the prefix follows for all of them.
        """
        return self._changed(lambda states: states.detach().requires_grad_())

    def _changed(self, change: Callable[[Tensor], Tensor]) -> PrefixStates:
        twins = []
        for layer in self.layers:
            twin = copy.copy(layer)
            if states_of(layer):
                twin.keys, twin.values = map(change, states_of(layer))
            twins.append(twin)
        return PrefixStates(tuple(twins), self.length)


def states_of(layer: DynamicLayer) -> tuple[Tensor, ...]:
    """A layer's keys and values, (B, H, S, D) each; nothing where it shares another layer's."""
    if not layer.is_initialized:
        return ()
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def has_expandable_cache(model: PreTrainedModel) -> bool:
    """Whether every layer's cache is plain attention keys and values."""
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) in EXPANDABLE_LAYERS for layer in layers)


def compute_prefix(model: PreTrainedModel, embeddings: Tensor) -> PrefixStates:
    """Run the prefix alone.

    Args:
        model: a model for which `has_expandable_cache` holds.
        embeddings: (1, P, d); gradients flow to them where they are on.
    """
    cache = DynamicCache(config=model.config)
    last = torch.tensor([embeddings.shape[1] - 1])
    read_positions(model, embeddings, last, cache=cache)
    return PrefixStates(_dynamic_layers(cache), embeddings.shape[1])


def suffix_states(
    cache: Cache, prefix_length: int, lengths: Sequence[int]
) -> list[tuple[Tensor, ...]]:
    """Each row's keys and values behind the prefix, cut to the row's own length.

    Args:
        cache: filled by `PrefixStates.expanded` and a forward pass over right-padded suffixes.
        prefix_length: tokens of the prefix.
        lengths: tokens of each row's suffix.

    Returns:
        For each row the keys and values of every layer in turn, each (H, S, D).
    """
    tensors = [
        states[:, :, prefix_length:].clone()
        for layer in _dynamic_layers(cache)
        for states in states_of(layer)
    ]
    return [
        tuple(tensor[row, :, :length] for tensor in tensors) for row, length in enumerate(lengths)
    ]


def _dynamic_layers(cache: Cache) -> tuple[DynamicLayer, ...]:
    return tuple(layer for layer in cache.layers if isinstance(layer, DynamicLayer))
