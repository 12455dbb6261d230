"""Attention of suffixes on a prefix that they share, with a backward pass made for processors.

The scores of all suffixes on the prefix are one large matrix product and those of each suffix on
itself a small one, so the prefix is not copied for every suffix. `scaled_dot_product_attention`
needs that copy and a mask, and on processors its backward pass took up to 40 % of a bfloat16 step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from demur.chat.engine.packing import Packing

MOST_SCORES = 2**21
"""Scores that are held at once: 8 MiB."""


def suffix_attention(
    query: Tensor,
    prefix: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    packing: Packing,
    scaling: float | None,
    most_scores: int = MOST_SCORES,
) -> Tensor:
    """Attention of packed suffixes on the prefix and, causally, on themselves.

    Args:
        query: (Hq, S, D).
        prefix: its keys and values, (Hkv, P, D); P may be zero.
        own: keys and values of the suffixes, (Hkv, S, D).
        packing: of the S tokens; whether the prefix is in the row does not matter.
        scaling: of the scores; 1 / sqrt(D) by default.
        most_scores: held at once; more suffixes are taken in parts.

    Returns:
        (Hq, S, D), in the dtype of the queries; scores are float32.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = query.shape[0], own[0].shape[0]
    parts = _parts(packing, *heads, query.device, most_scores)
    sizes = [part.total for part in parts]
    split = [torch.split(states, sizes, dim=1) for states in (query, *own)]
    attend: Callable[..., Tensor] = _SuffixAttention.apply
    attended = [
        attend(rows, *prefix, keys, values, part, scaling, len(parts) == 1)
        for rows, keys, values, part in zip(*split, parts, strict=True)
    ]
    return torch.cat(attended, dim=1)


@lru_cache(maxsize=4)  # the same for every layer
def _parts(
    packing: Packing, heads: int, key_heads: int, device: torch.device, most_scores: int
) -> list[_Blocks]:
    """Neighbouring suffixes, as many together as `most_scores` allows; one at least."""
    parts: list[list[int]] = [[]]
    for length in packing.lengths:
        longest = max([length, *parts[-1]])
        scores = heads * (len(parts[-1]) + 1) * longest * (packing.prefix + longest)
        if parts[-1] and scores > most_scores:
            parts.append([])
        parts[-1].append(length)
    return [
        _Blocks(Packing(packing.prefix, tuple(lengths), inside=False), heads, key_heads, device)
        for lengths in parts
    ]


class _SuffixAttention(torch.autograd.Function):
    """One part; its softmax is kept for the gradient, or computed again where there are many."""

    @staticmethod
    def forward(
        context: Any,
        query: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        key: Tensor,
        value: Tensor,
        blocks: _Blocks,
        scaling: float,
        keep: bool,
    ) -> Tensor:
        rows = blocks.fold(query)
        shares = _shares(blocks, rows, prefix_key, key, scaling)
        context.save_for_backward(
            query, prefix_key, prefix_value, key, value, shares if keep else None
        )
        context.blocks, context.scaling = blocks, scaling
        attended = _mixture(shares, prefix_value.float(), blocks.spread(value))
        return blocks.unfold(attended).to(query.dtype)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, prefix_key, prefix_value, key, value, shares = context.saved_tensors
        blocks, scaling = context.blocks, context.scaling
        rows, wanted = blocks.fold(query), blocks.fold(gradients[0])
        if shares is None:
            shares = _shares(blocks, rows, prefix_key, key, scaling)
        changes = _products(wanted, prefix_value.float(), blocks.spread(value)).mul_(shares)
        changes.addcmul_(shares, changes.sum(-1, keepdim=True), value=-1).mul_(scaling)

        length = prefix_key.shape[1]
        for_rows = _mixture(changes, prefix_key.float(), blocks.spread(key))
        for_prefix, for_own = [], []
        for weights, states in ((changes, rows), (shares, wanted)):
            opening, rest = weights[..., :length].flatten(1, 2), weights[..., length:]
            for_prefix.append((opening.mT @ states.flatten(1, 2)).to(key.dtype))
            for_own.append(blocks.gather(rest.mT @ states).to(key.dtype))
        return (blocks.unfold(for_rows).to(query.dtype), *for_prefix, *for_own, None, None, None)


class _Blocks:
    """Between packed rows and blocks: B suffixes of the `longest`, L; heads of a group together.

    Attributes:
        total: S, the tokens of all suffixes.
        hidden: (L, L), True where a position must not look.
    """

    def __init__(self, packing: Packing, heads: int, key_heads: int, device: torch.device) -> None:
        self.total = packing.total
        self._heads, groups = heads, heads // key_heads
        self._batch, self._longest = packing.padded.shape
        self._padded, self._flat = packing.padded.to(device), packing.flat.to(device)
        every = torch.ones(self._longest, self._longest, dtype=torch.bool, device=device)
        self.hidden = every.triu(1)
        # Where token and head (S, Hq) stand in the blocks.
        head = torch.arange(heads, device=device)
        suffix = torch.div(self._flat, self._longest, rounding_mode="floor")[:, None]
        place = (self._flat % self._longest)[:, None]
        block = ((head // groups) * self._batch + suffix) * groups + head % groups
        self._places = (block * self._longest + place).flatten()
        self._shape = (key_heads, self._batch, groups * self._longest)

    def spread(self, states: Tensor) -> Tensor:
        """(Hkv, S, D) as (Hkv, B, L, D) float32; a short suffix repeats its last token."""
        rows = states.index_select(1, self._padded.flatten())
        return rows.view(-1, self._batch, self._longest, states.shape[-1]).float()

    def gather(self, blocks: Tensor) -> Tensor:
        """(Hkv, B, L, D) as (Hkv, S, D)."""
        return blocks.flatten(1, 2).index_select(1, self._flat)

    def fold(self, states: Tensor) -> Tensor:
        """(Hq, S, D) as (Hkv, B, G * L, D) float32; padding is zero, and so are its gradients."""
        width = states.shape[-1]
        rows = states.transpose(0, 1).reshape(-1, width)
        folded = rows.new_zeros(prod(self._shape), width).index_copy_(0, self._places, rows)
        return folded.view(*self._shape, width).float()

    def unfold(self, blocks: Tensor) -> Tensor:
        """(Hkv, B, G * L, D) as (Hq, S, D)."""
        width = blocks.shape[-1]
        rows = blocks.reshape(-1, width).index_select(0, self._places)
        return rows.view(-1, self._heads, width).transpose(0, 1)


def _shares(
    blocks: _Blocks, rows: Tensor, prefix_key: Tensor, key: Tensor, scaling: float
) -> Tensor:
    """What each row attends to, (Hkv, B, G * L, P + L): the softmax of its scores."""
    scores = _products(rows * scaling, prefix_key.float(), blocks.spread(key))
    own = scores[..., prefix_key.shape[1] :]
    torch.unflatten(own, 2, (-1, own.shape[-1])).masked_fill_(blocks.hidden, -torch.inf)
    return scores.softmax(-1)


def _products(rows: Tensor, prefix: Tensor, own: Tensor) -> Tensor:
    """Of each row with the prefix and with its own suffix, (Hkv, B, G * L, P + L)."""
    length = prefix.shape[1]
    products = rows.new_empty(*rows.shape[:3], length + own.shape[2])
    torch.bmm(rows.flatten(1, 2), prefix.mT, out=products[..., :length].flatten(1, 2))
    products[..., length:] = rows @ own.mT  # many small ones are slow where rows have gaps
    return products


def _mixture(weights: Tensor, prefix: Tensor, own: Tensor) -> Tensor:
    """Of the prefix's and the suffix's own states as (Hkv, B, G * L, P + L) weights say."""
    length = prefix.shape[1]
    mixed = (weights[..., :length].flatten(1, 2) @ prefix).flatten(0, 1)
    added = torch.baddbmm(
        mixed.view(-1, weights.shape[2], prefix.shape[2]),
        weights[..., length:].flatten(0, 1),
        own.flatten(0, 1),
    )
    return added.view(*weights.shape[:3], prefix.shape[2])
