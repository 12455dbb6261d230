"""The keys and values of a shared prefix: computed once, expanded over a batch.

This is exact: in a causal model they depend on nothing that follows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
        layers = []
        for layer in self.layers:
            twin = copy.copy(layer)
            if twin.is_initialized:
                twin.keys = layer.keys.expand(batch, -1, -1, -1)
                twin.values = layer.values.expand(batch, -1, -1, -1)
            layers.append(twin)
        return Cache(layers=layers)

    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer that has any."""
        return [
            tensor
            for layer in self.layers
            if layer.is_initialized
            for tensor in (layer.keys, layer.values)
        ]

    def as_leaves(self) -> PrefixStates:
        """The same states cut from their graph, ready to gather gradients of their own.

        A batch can then be taken in parts: each part's backward pass ends here, and one backward
        pass through the prefix follows for all of them.
        """
        layers = []
        for layer in self.layers:
            twin = copy.copy(layer)
            if twin.is_initialized:
                twin.keys = layer.keys.detach().requires_grad_()
                twin.values = layer.values.detach().requires_grad_()
            layers.append(twin)
        return PrefixStates(tuple(layers), self.length)


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
    return PrefixStates(tuple(cache.layers), embeddings.shape[1])


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
        tensor[:, :, prefix_length:].clone()
        for layer in cache.layers
        if layer.is_initialized
        for tensor in (layer.keys, layer.values)
    ]
    return [
        tuple(tensor[row, :, :length] for tensor in tensors) for row, length in enumerate(lengths)
    ]
