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
        queries, keys, values = _flat(query), key.float() * scaling, value.float()
        attended: list[Tensor] = []
        kept: list[Tensor] = []
        for part in parts:
            shares = part.shares(part.fold(queries), keys)
            attended.append(part.unfold(part.mixture(shares, values)))
            if len(parts) <= _FEW:
                kept.append(shares)
        context.save_for_backward(query, key, value, *kept)
        context.parts, context.scaling = parts, scaling
        return _joined(attended, query)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = context.saved_tensors
        queries, arriving = _flat(query), _flat(gradients[0])
        keys, values = key.float() * context.scaling, value.float()
        for_query: list[Tensor] = []
        for_keys, for_values = torch.zeros_like(keys), torch.zeros_like(values)
        for index, part in enumerate(context.parts):
            rows, wanted = part.fold(queries), part.fold(arriving, blank=True)
            shares = kept[index] if kept else part.shares(rows, keys)
            changes = torch._softmax_backward_data(
                part.products(wanted, values), shares, -1, torch.float32
            )
            for_query.append(part.unfold(part.mixture(changes, keys)))
            part.add_shared(for_keys, changes, rows)
            part.add_shared(for_values, shares, wanted)
        for_keys.mul_(context.scaling)
        found = _joined(for_query, query), for_keys.to(key.dtype), for_values.to(value.dtype)
        return *found, None, None


def _flat(states: Tensor) -> Tensor:
    """(Hq, T, D) states as (T * Hq, D) float32."""
    return states.transpose(0, 1).reshape(-1, states.shape[2]).float()


def _joined(parts: list[Tensor], query: Tensor) -> Tensor:
    """The (S * Hq, D) of all parts as (Hq, T, D) in the dtype of the queries."""
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    return rows.view(query.shape[1], query.shape[0], -1).to(query.dtype).transpose(0, 1)


class _Part:
    """Neighbouring suffixes of a row: B of them with S tokens, the longest has L; P before them.

    Rows are queries or what belongs to them. The R = G * L rows of a suffix and a group of heads
    stand together, so all rows are (Hkv * B, R, D), or (Hkv, B * R, D) for what a group of heads
    shares. What a row scores or weighs lies along the last axis, the prefix before its own suffix:
    (Hkv * B, R, P + L). All is float32.

    It is made for few calls into torch, each of which costs time of its own on a GPU.
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
        self._own = slice(place, place + packing.total)
        self._prefix, (batch, longest) = packing.prefix, packing.padded.shape
        groups = heads[0] // heads[1]
        self._blocks = heads[1] * batch, groups * longest
        self._shared = heads[1], batch * groups * longest
        self._suffix_rows = heads[1], batch * longest
        self._longest, self._alone = longest, batch == 1
        self._padded = (packing.padded.flatten() + place).to(device)
        self._flat = packing.flat.to(device)

        # Which token and head stands in each row, and where each token and head stands.
        head = torch.arange(heads[0]).view(heads[1], 1, groups, 1)
        held = (packing.padded + row)[None, :, None] * heads[0] + head
        self._held = held.flatten().to(device)
        places = torch.arange(held.numel()).view(heads[1], batch, groups, longest)
        by_token = places.permute(1, 3, 0, 2).reshape(batch * longest, heads[0])
        self._places = by_token[packing.flat].flatten().to(device)
        empty = torch.ones(held.numel(), dtype=torch.bool).index_fill(0, self._places.cpu(), False)
        self._padding = torch.nonzero(empty)[:, 0].to(device)
        # (1 or B, R, L), the same for all groups of heads.
        hidden = ~packing.own_visible.to(device).view(-1, longest, longest)
        self._hidden = hidden.repeat(1, groups, 1)
        if packing.forks:
            self._hidden = self._hidden.repeat(heads[1], 1, 1)

    def fold(self, tokens: Tensor, *, blank: bool = False) -> Tensor:
        """The rows of this part among (T * Hq, D), (Hkv * B, R, D).

        Padding repeats the last token of a suffix, or is blank.
        """
        rows = tokens.index_select(0, self._held)
        if blank and len(self._padding):
            rows.index_fill_(0, self._padding, 0.0)
        return rows.view(*self._blocks, -1)

    def unfold(self, rows: Tensor) -> Tensor:
        """Rows as (S * Hq, D)."""
        return rows.view(-1, rows.shape[-1]).index_select(0, self._places)

    def shares(self, rows: Tensor, keys: Tensor) -> Tensor:
        """What each row attends to: the softmax of its scores on (Hkv, P + S, D) keys."""
        scores = self.products(rows, keys)
        own = scores[..., self._prefix :] if self._prefix else scores
        own.masked_fill_(self._hidden, -torch.inf)
        return scores.softmax(-1)

    def products(self, rows: Tensor, states: Tensor) -> Tensor:
        """The products of each row with the states of the prefix and of its suffix."""
        own = torch.bmm(rows, self._suffixes(states).mT)
        if not self._prefix:
            return own
        products = rows.new_empty(*self._blocks, self._prefix + self._longest)
        prefix = products.view(*self._shared, -1)[..., : self._prefix]
        torch.bmm(rows.view(*self._shared, -1), states[:, : self._prefix].mT, out=prefix)
        # Copied, as many small products are slow where the rows of their result have gaps.
        products[..., self._prefix :].copy_(own)
        return products

    def mixture(self, weights: Tensor, states: Tensor) -> Tensor:
        """The sum of the prefix's and the suffix's states, weighted by each row."""
        own = self._suffixes(states)
        if not self._prefix:
            return torch.bmm(weights, own)
        shared = weights.view(*self._shared, -1)[..., : self._prefix]
        mixed = torch.bmm(shared, states[:, : self._prefix]).view(*self._blocks, -1)
        return mixed.baddbmm_(weights[..., self._prefix :], own)

    def add_shared(self, total: Tensor, weights: Tensor, rows: Tensor) -> None:
        """Add to (Hkv, P + S, D) what the rows give back to the states that they weighed."""
        own = weights
        if self._prefix:
            shared = weights.view(*self._shared, -1)[..., : self._prefix]
            back = torch.bmm(shared.mT, rows.view(*self._shared, -1))
            total[:, : self._prefix].add_(back)
            own = weights[..., self._prefix :]
        blocks = torch.bmm(own.mT, rows).view(*self._suffix_rows, -1)
        total[:, self._own].add_(blocks if self._alone else blocks.index_select(1, self._flat))

    def _suffixes(self, states: Tensor) -> Tensor:
        """(Hkv, P + S, D) as (Hkv * B, L, D); a short suffix repeats its last token."""
        if self._alone:
            return states[:, self._own]
        own = states.index_select(1, self._padded)
        return own.view(self._blocks[0], self._longest, -1)
