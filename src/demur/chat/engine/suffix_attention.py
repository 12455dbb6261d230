"""Attention of a packed row, with a backward pass made for processors.

The scores of all suffixes on the prefix are one large matrix product and those of each suffix on
itself a small one, so the prefix is not copied for every suffix. `scaled_dot_product_attention`
needs that copy and a mask, and on processors its backward pass took up to 40 % of a bfloat16 step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from demur.chat.engine.packing import Packing

MOST_SCORES = 2**21
"""Scores that are held at once: 8 MiB."""

_FEW = 2
"""The prefix and suffixes that fit together: so many parts keep their softmax."""


def suffix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None = None,
    most_scores: int = MOST_SCORES,
) -> Tensor:
    """Attention of the tokens of a packed row on the prefix and, causally, on their own suffix.

    A suffix that forks is masked so that its branches do not see each other.

    Args:
        query: (Hq, T, D).
        key: of the prefix and the suffixes, (Hkv, P + S, D).
        value: the same, (Hkv, P + S, E).
        packing: what lies where; the prefix's queries come first where it is in the row.
        scaling: of the scores; 1 / sqrt(D) by default.
        most_scores: held at once; more suffixes are taken in parts.

    Returns:
        (Hq, T, E), in the dtype of the queries; scores are float32.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = query.shape[0], key.shape[0]
    parts = _parts(packing, heads, query.device, most_scores)
    attend: Callable[..., Tensor] = _SuffixAttention.apply
    return attend(query, key, value, parts, scaling)


@lru_cache(maxsize=4)  # the same for every layer
def _parts(
    packing: Packing, heads: tuple[int, int], device: torch.device, most_scores: int
) -> tuple[_Part, ...]:
    """The prefix if it is in the row, then as many suffixes together as `most_scores` allows."""
    bounds, longest = [0], 0
    for end, length in enumerate(packing.lengths):
        longest = max(longest, length)
        tokens = sum(packing.lengths[bounds[-1] : end + 1])
        if end > bounds[-1] and heads[0] * tokens * (packing.prefix + longest) > most_scores:
            bounds.append(end)
            longest = length
    bounds.append(len(packing.lengths))
    parts, row = [], 0
    if packing.inside and packing.prefix:
        alone = Packing(0, (packing.prefix,), inside=False)
        parts.append(_Part(alone, 0, 0, heads, device))
        row = packing.prefix
    place = packing.prefix
    for start, end in pairwise(bounds):
        some = Packing(
            packing.prefix,
            packing.lengths[start:end],
            inside=False,
            branches=packing.branches[start:end],
        )
        parts.append(_Part(some, row, place, heads, device))
        row, place = row + some.total, place + some.total
    return tuple(parts)


class _SuffixAttention(torch.autograd.Function):
    """A row; its softmax is kept for the gradient, or computed again where it came in parts."""

    @staticmethod
    def forward(
        context: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        parts: tuple[_Part, ...],
        scaling: float,
    ) -> Tensor:
        keys, values = key.float() * scaling, value.float()
        attended = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
        kept: list[Tensor] = []
        for part in parts:
            shares = part.shares(part.fold(query), keys)
            attended[part.rows] = part.unfold(part.mixture(shares, values))
            if len(parts) <= _FEW:
                kept.append(shares)
        context.save_for_backward(query, key, value, *kept)
        context.parts, context.scaling = parts, scaling
        return attended.transpose(0, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = context.saved_tensors
        keys, values = key.float() * context.scaling, value.float()
        for_query = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        for_keys, for_values = torch.zeros_like(keys), torch.zeros_like(values)
        for index, part in enumerate(context.parts):
            rows, wanted = part.fold(query), part.fold(gradients[0], blank=True)
            shares = kept[index] if kept else part.shares(rows, keys)
            changes = torch._softmax_backward_data(
                part.products(wanted, values), shares, -1, torch.float32
            )
            for_query[part.rows] = part.unfold(part.mixture(changes, keys))
            part.add_shared(for_keys, changes, rows)
            part.add_shared(for_values, shares, wanted)
        for_keys.mul_(context.scaling)
        found = for_query.transpose(0, 1), for_keys.to(key.dtype), for_values.to(value.dtype)
        return *found, None, None


class _Part:
    """Neighbouring suffixes of a row: B of them with S tokens, the longest has L; P before them.

    Rows are queries or what belongs to them, the R = G * L of a suffix and a group of heads
    together, (Hkv, B, R, D). What a row scores or weighs lies along the last axis, the prefix
    before its own suffix: (Hkv, B, R, P + L). All is float32.

    Attributes:
        rows: where the suffixes are among the queries.
    """

    def __init__(
        self,
        packing: Packing,
        row: int,
        place: int,
        heads: tuple[int, int],
        device: torch.device,
    ) -> None:
        """Place a packing of the part alone at `row` of the queries and `place` of the keys."""
        self.rows = slice(row, row + packing.total)
        self._own = slice(place, place + packing.total)
        self._prefix, (batch, longest) = packing.prefix, packing.padded.shape
        groups = heads[0] // heads[1]
        self._longest, self._shape = longest, (heads[1], batch, groups * longest)
        self._padded, self._flat = packing.padded.flatten().to(device), packing.flat.to(device)

        # Which token and head stands in each row, and where each token and head stands.
        head = torch.arange(heads[0]).view(heads[1], 1, groups, 1)
        held = packing.padded[None, :, None] * heads[0] + head
        self._held = held.flatten().to(device)
        places = torch.arange(held.numel()).view(heads[1], batch, groups, longest)
        by_token = places.permute(1, 3, 0, 2).reshape(batch * longest, heads[0])
        self._places = by_token[packing.flat].flatten().to(device)
        empty = torch.ones(held.numel(), dtype=torch.bool).index_fill(0, self._places.cpu(), False)
        self._padding = torch.nonzero(empty)[:, 0].to(device)
        # (1 or B, R, L), the same for all groups of heads.
        hidden = ~packing.own_visible.to(device).view(-1, longest, longest)
        self._hidden = hidden.repeat(1, groups, 1)

    def fold(self, states: Tensor, *, blank: bool = False) -> Tensor:
        """Rows of this part's (Hq, T, D); padding repeats a suffix's last token, or is blank."""
        tokens = states[:, self.rows].transpose(0, 1).flatten(0, 1)
        rows = tokens.index_select(0, self._held).float()
        if blank:
            rows.index_fill_(0, self._padding, 0.0)
        return rows.view(*self._shape, -1)

    def unfold(self, rows: Tensor) -> Tensor:
        """Rows as (S, Hq, D)."""
        tokens = rows.flatten(0, 2).index_select(0, self._places)
        return tokens.view(len(self._flat), -1, rows.shape[-1])

    def shares(self, rows: Tensor, keys: Tensor) -> Tensor:
        """What each row attends to: the softmax of its scores on (Hkv, P + S, D) keys."""
        scores = self.products(rows, keys)
        scores[..., self._prefix :].masked_fill_(self._hidden, -torch.inf)
        return scores.softmax(-1)

    def products(self, rows: Tensor, states: Tensor) -> Tensor:
        """Of each row with the states of the prefix and of its suffix."""
        products = rows.new_empty(*self._shape, self._prefix + self._longest)
        prefix = products[..., : self._prefix].flatten(1, 2)
        torch.bmm(rows.flatten(1, 2), states[:, : self._prefix].mT, out=prefix)
        # Many small ones are slow where rows have gaps.
        products[..., self._prefix :] = rows @ self._suffixes(states).mT
        return products

    def mixture(self, weights: Tensor, states: Tensor) -> Tensor:
        """Of the prefix's and the suffix's states as the weights of each row say."""
        mixed = weights[..., : self._prefix].flatten(1, 2) @ states[:, : self._prefix]
        own = weights[..., self._prefix :].flatten(0, 1)
        blocks = mixed.view(len(own), self._shape[2], -1)
        blocks.baddbmm_(own, self._suffixes(states).flatten(0, 1))
        return blocks.view(*self._shape, -1)

    def add_shared(self, total: Tensor, weights: Tensor, rows: Tensor) -> None:
        """Add to (Hkv, P + S, D) what the rows give back to the states that they weighed."""
        prefix = weights[..., : self._prefix].flatten(1, 2)
        total[:, : self._prefix] += prefix.mT @ rows.flatten(1, 2)
        blocks = weights[..., self._prefix :].mT @ rows
        total[:, self._own] += blocks.flatten(1, 2).index_select(1, self._flat)

    def _suffixes(self, states: Tensor) -> Tensor:
        """(Hkv, P + S, D) as (Hkv, B, L, D); a short suffix repeats its last token."""
        own = states[:, self._own].index_select(1, self._padded)
        return own.view(*self._shape[:2], -1, states.shape[-1])
