"""The keys and values of a shared prefix: computed once, seen by every conversation.

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
from demur.chat.engine.packing import Packing

EXPANDABLE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


@dataclass(frozen=True)
class PrefixStates:
    """A filled cache of batch size one.

    Attributes:
        layers: one cache layer for each layer of the model; keys and values are (1, H, P, D).
        length: P, the number of tokens.
    """

    layers: tuple[DynamicLayer, ...]
    length: int

    def cache(self) -> Cache:
        """A cache that holds the prefix and may grow; the states stay as they are."""
        twins = self._changed(lambda states: states)
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

    def with_states(self, states: Sequence[Sequence[Tensor]]) -> PrefixStates:
        """The same layers with other keys and values.

        Args:
            states: keys and values of each layer, (B, H, P, D) each; empty for a layer that uses
                another layer's.
        """
        twins = []
        for layer, given in zip(self.layers, states, strict=True):
            twin = copy.copy(layer)
            if given:
                twin.keys, twin.values = given
            twins.append(twin)
        return PrefixStates(tuple(twins), self.length)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> PrefixStates:
        return self.with_states([[*map(change, states_of(layer))] for layer in self.layers])


def states_of(layer: DynamicLayer) -> tuple[Tensor, ...]:
    """A layer's keys and values, (B, H, S, D) each; empty for a layer that uses another layer's."""
    if not layer.is_initialized:
        return ()
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def unexpandable_layers(model: PreTrainedModel) -> list[str]:
    """Kinds of cache layer of the model, by name, that are not plain attention keys and values."""
    layers = DynamicCache(config=model.config).layers
    if not layers:
        return ["no layers"]
    return sorted({type(one).__name__ for one in layers if type(one) not in EXPANDABLE_LAYERS})


def compute_prefix(model: PreTrainedModel, embeddings: Tensor) -> PrefixStates:
    """Run the prefix alone.

    Args:
        model: a model without `unexpandable_layers`.
        embeddings: (1, P, d); gradients flow to them where they are on.
    """
    cache = DynamicCache(config=model.config)
    last = torch.tensor([embeddings.shape[1] - 1])
    read_positions(model, embeddings, last, cache=cache)
    return PrefixStates(_dynamic_layers(cache), embeddings.shape[1])


def suffix_states(cache: Cache, packing: Packing) -> list[tuple[Tensor, ...]]:
    """Each suffix's own keys and values.

    Args:
        cache: filled by `PrefixStates.cache()` and a forward pass over packed suffixes.
        packing: what lies where.

    Returns:
        For each suffix the keys and values of every layer in turn, each (H, length, D).
    """
    tensors = [
        states[0, :, packing.prefix :].clone()
        for layer in _dynamic_layers(cache)
        for states in states_of(layer)
    ]
    pieces = [torch.split(tensor, list(packing.lengths), dim=1) for tensor in tensors]
    return list(zip(*pieces, strict=True))


def _dynamic_layers(cache: Cache) -> tuple[DynamicLayer, ...]:
    return tuple(layer for layer in cache.layers if isinstance(layer, DynamicLayer))
