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


def alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Places of tensors that could be stacked but for their lengths, in order of the first.

    Args:
        tensors: (B, H, S, D) each.
    """
    kinds: dict[tuple[torch.device, torch.dtype, int, int], list[int]] = {}
    for place, tensor in enumerate(tensors):
        kind = tensor.device, tensor.dtype, tensor.shape[1], tensor.shape[3]
        kinds.setdefault(kind, []).append(place)
    return list(kinds.values())


@dataclass(frozen=True)
class SuffixStates:
    """Keys and values of suffixes that were read in one row.

    Attributes:
        stacks: for each kind of state (`alike`) those of all its layers, (n, H, S, D).
        lengths: tokens of each suffix; S in all.
    """

    stacks: tuple[Tensor, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, cache: Cache, packing: Packing) -> SuffixStates:
        """The suffixes' own share of a cache.

        Args:
            cache: filled by `PrefixStates.cache()` and a forward pass over packed suffixes.
            packing: what lies where.
        """
        tensors = [
            states[:, :, packing.prefix :]
            for layer in _dynamic_layers(cache)
            for states in states_of(layer)
        ]
        stacks = [torch.cat([tensors[place] for place in kind]) for kind in alike(tensors)]
        return cls(tuple(stacks), packing.lengths)

    def of_suffix(self, place: int) -> list[Tensor]:
        """The states of one suffix: for each kind (n, H, length, D)."""
        start = sum(self.lengths[:place])
        return [stack[:, :, start : start + self.lengths[place]] for stack in self.stacks]


def _dynamic_layers(cache: Cache) -> tuple[DynamicLayer, ...]:
    return tuple(layer for layer in cache.layers if isinstance(layer, DynamicLayer))
