"""Attention of a packed row, with a backward pass of its own.

The scores of all suffixes on the prefix are one large matrix product and those of each suffix on
itself a small one, so the prefix is not copied for every suffix. `scaled_dot_product_attention`
needs that copy and a mask, and on processors its backward pass took up to 40 % of a bfloat16 step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from demur.chat.engine.packing import Packing

MOST_SCORES = 2**21
"""Scores that are held at once on a processor: 8 MiB, about what its caches hold."""

MOST_SCORES_ON_GPU = 2**24
"""The same on a GPU, which waits longer for more calls than for larger ones: 64 MiB."""


def suffix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None = None,
    most_scores: int | None = None,
) -> Tensor:
    """Attention of the tokens of a packed row on the prefix and, causally, on their own suffix.

    A suffix that forks is masked so that its branches do not see each other.

    Args:
        query: (1, Hq, T, D).
        key: of the prefix and the suffixes, (1, Hkv, P + S, D).
        value: the same, (1, Hkv, P + S, E).
        packing: what lies where; the prefix's queries come first where it is in the row.
        scaling: of the scores; 1 / sqrt(D) by default.
        most_scores: held at once; more suffixes are taken in parts. By default what suits the
            device.

    Returns:
        (1, T, Hq, E), in the dtype of the queries; scores are float32.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if most_scores is None:
        most_scores = MOST_SCORES if query.device.type == "cpu" else MOST_SCORES_ON_GPU
    heads = query.shape[1], key.shape[1]
    parts = _parts(packing, heads, scaling, query.device, most_scores)
    attend: Callable[..., Tensor] = _SuffixAttention.apply
    return attend(query, key, value, parts)


@lru_cache(maxsize=4)  # the same for every layer
def _parts(
    packing: Packing,
    heads: tuple[int, int],
    scaling: float,
    device: torch.device,
    most_scores: int,
) -> tuple[_Part, ...]:
    """As many suffixes together as `most_scores` allows, the prefix with the first of them."""
    bounds, longest, tokens = [0], 0, packing.before
    for end, length in enumerate(packing.lengths):
        longest, tokens = max(longest, length), tokens + length
        if end > bounds[-1] and heads[0] * tokens * (packing.prefix + longest) > most_scores:
            bounds.append(end)
            longest, tokens = length, length
    bounds.append(len(packing.lengths))
    parts, place = [], packing.prefix
    for start, end in pairwise(bounds):
        some = Packing(
            packing.prefix,
            packing.lengths[start:end],
            inside=packing.inside and start == 0,
            branches=packing.branches[start:end],
        )
        # Of the row that the packing describes, queries start behind a prefix that is in a cache.
        row = place if packing.inside else place - packing.prefix
        parts.append(_Part(some, row, place, heads, scaling, device))
        place += some.total
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
    ) -> Tensor:
        queries, values = _by_token(query), _by_token(value)
        keys = _by_token(key) * parts[0].scaling
        attended: list[Tensor] = []
        kept: tuple[Tensor, ...] = ()
        for part in parts:
            seen = part.see(queries, keys, values)
            attended.append(part.unfold(part.mixture(seen.shares, values, seen.values)))
            if len(parts) == 1:
                kept = (seen.rows, seen.keys, seen.values, seen.shares)
        context.save_for_backward(keys, values, *(kept or (queries,)))
        context.parts, context.dtypes = parts, (query.dtype, key.dtype, value.dtype)
        return _joined(attended, query.shape[1], query.dtype)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, *kept = context.saved_tensors
        arriving = _by_token(gradients[0].transpose(1, 2))
        for_query: list[Tensor] = []
        for_keys, for_values = _Given(), _Given()
        for part in context.parts:
            alone = len(context.parts) == 1
            seen = _Seen(*kept) if alone else part.see(kept[0], keys, values)
            wanted = part.fold(arriving, blank=True)
            changes = torch._softmax_backward_data(
                part.products(wanted, values, seen.values), seen.shares, -1, torch.float32
            )
            for_query.append(part.unfold(part.mixture(changes, keys, seen.keys)))
            for_keys.add(*part.given(changes, seen.rows))
            for_values.add(*part.given(seen.shares, wanted))
        of_query, of_key, of_value = context.dtypes
        found = (
            _joined(for_query, gradients[0].shape[2], of_query),
            _in_dtype(for_keys.total().mul_(context.parts[0].scaling), of_key),
            _in_dtype(for_values.total(), of_value),
        )
        return *(states.transpose(1, 2) for states in found), None


def _by_token(states: Tensor) -> Tensor:
    """(1, H, T, D) states as (T * H, D) float32."""
    rows = states.transpose(1, 2).contiguous().view(-1, states.shape[3])
    return _in_dtype(rows, torch.float32)


def _joined(parts: list[Tensor], heads: int, dtype: torch.dtype) -> Tensor:
    """The (T * H, D) of all parts as (1, T, H, D)."""
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    return _in_dtype(rows, dtype).view(1, -1, heads, rows.shape[-1])


def _in_dtype(states: Tensor, dtype: torch.dtype) -> Tensor:
    return states if states.dtype == dtype else states.to(dtype)  # even `to` itself is a call


@dataclass(frozen=True)
class _Seen:
    """What the queries of a part saw.

    Attributes:
        rows: (Hkv * B, R, D), the queries.
        keys: (Hkv * B, L, D), those of the suffixes.
        values: (Hkv * B, L, E), those of the suffixes.
        shares: (Hkv * B, R, P + L), what each row attends to.
    """

    rows: Tensor
    keys: Tensor
    values: Tensor
    shares: Tensor


class _Given:
    """What the rows of all parts give back to the states that they weighed."""

    def __init__(self) -> None:
        self._prefix: Tensor | None = None
        self._suffixes: list[Tensor] = []

    def add(self, prefix: Tensor | None, suffixes: Tensor) -> None:
        """Add a part's: (1, P, Hkv, D), or None for no prefix, and (1, S, Hkv, D)."""
        self._suffixes.append(suffixes)
        if self._prefix is None or prefix is None:
            self._prefix = prefix
        else:
            self._prefix.add_(prefix)

    def total(self) -> Tensor:
        """(1, P + S, Hkv, D)."""
        opening = [] if self._prefix is None else [self._prefix]
        both = opening + self._suffixes
        return both[0] if len(both) == 1 else torch.cat(both, dim=1)


class _Part:
    """Neighbouring suffixes of a row in blocks of L tokens, the longest suffix; P tokens before.

    The prefix's own tokens, where they are in the row, are cut into the first of the B blocks:
    these see no suffix, and what precedes them in the prefix. So one product serves both.

    Rows are queries or what belongs to them. The R = G * L rows of a block and a group of heads
    stand together, so all rows are (Hkv * B, R, D), or (Hkv, B * R, D) for what a group of heads
    shares. What a row scores or weighs lies along the last axis, the prefix before its own suffix:
    (Hkv * B, R, P + L). All is float32.

    It is made for few calls into torch, each of which costs time of its own on a GPU. That is why
    `as_strided` stands where several views would do the same.
    """

    def __init__(
        self,
        packing: Packing,
        row: int,
        place: int,
        heads: tuple[int, int],
        scaling: float,
        device: torch.device,
    ) -> None:
        """Place suffixes at `row` of the queries and `place` of the keys."""
        self.heads, groups, longest = heads, heads[0] // heads[1], packing.longest
        self.scaling = torch.tensor(scaling)  # a number would be made one at every call
        opening = -(-packing.before // longest)
        batch = opening + len(packing.lengths)
        self._prefix, self._longest, self._opening = packing.prefix, longest, opening
        self._batch, self._rows = batch, groups * longest
        before = torch.arange(opening * longest)
        fitting = before[: packing.before]
        flat = torch.cat([fitting, packing.flat + opening * longest])

        # Which token and head stands in each row, and where each token and head stands.
        queries = torch.cat(
            [before.clamp(max=max(0, packing.before - 1)), packing.padded.flatten() + row]
        ).view(1, batch, 1, longest)
        of_group = torch.arange(heads[0]).view(heads[1], 1, groups, 1)
        places = torch.arange(heads[0] * batch * longest).view(heads[1], batch, groups, longest)
        places = places.permute(1, 3, 0, 2).reshape(batch * longest, heads[0])[flat].flatten()
        empty = torch.ones(heads[0] * batch * longest, dtype=torch.bool)
        self._held = (queries * heads[0] + of_group).flatten().to(device)
        self._places = places.to(device)
        self._padding = torch.nonzero(empty.index_fill(0, places, False))[:, 0].to(device)

        # The same for the keys of the suffixes; the blocks of the prefix have none.
        states = torch.cat([before * 0, packing.padded.flatten() + place])
        of_head = torch.arange(heads[1])
        self._states = (states * heads[1] + of_head[:, None]).flatten().to(device)
        own = (packing.flat + opening * longest)[:, None] + of_head * batch * longest
        self._own = own.flatten().to(device)
        self._mask, self._causal = self._masks(packing, groups, device)

    def _masks(
        self, packing: Packing, groups: int, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """(Hkv * B, R, L), added to scores on suffixes; what the prefix hides from itself."""
        longest, rows = self._longest, self._rows
        visible = torch.zeros(self._batch, longest, longest, dtype=torch.bool)
        visible[self._opening :] = packing.own_visible.view(-1, longest, longest)
        mask = torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)
        mask = mask.repeat(self.heads[1], groups, 1).to(device)
        if not self._opening:
            return mask, None
        tokens = torch.arange(self._opening * longest).view(self._opening, 1, longest)
        tokens = tokens.expand(-1, groups, -1).reshape(self._opening * rows, 1)
        return mask, (torch.arange(self._prefix) > tokens).to(device)

    def see(self, queries: Tensor, keys: Tensor, values: Tensor) -> _Seen:
        """What the queries attend to, all of them by token."""
        rows = self.fold(queries)
        own = self._suffixes(keys)
        scores = self.products(rows, keys, own, self._mask)
        if self._causal is not None:
            width = self._prefix + self._longest
            block = self._batch * self._rows * width
            opening = self.heads[1], *self._causal.shape
            scores.as_strided(opening, (block, width, 1)).masked_fill_(self._causal, -torch.inf)
        return _Seen(rows, own, self._suffixes(values), scores.softmax(-1))

    def fold(self, tokens: Tensor, *, blank: bool = False) -> Tensor:
        """The rows of this part among (T * Hq, D), (Hkv * B, R, D).

        Padding repeats a token, or is blank.
        """
        rows = tokens.index_select(0, self._held)
        if blank and len(self._padding):
            rows.index_fill_(0, self._padding, 0.0)
        return rows.view(self.heads[1] * self._batch, self._rows, -1)

    def unfold(self, rows: Tensor) -> Tensor:
        """Rows as (T * Hq, D)."""
        return rows.view(-1, rows.shape[-1]).index_select(0, self._places)

    def products(
        self, rows: Tensor, states: Tensor, own: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The products of each row with the states of the prefix and of its suffix.

        Args:
            rows: (Hkv * B, R, D).
            states: ((P + S) * Hkv, D).
            own: (Hkv * B, L, D), the suffixes' of them.
            mask: added to the products with the suffix.
        """
        turned = own.transpose(1, 2)
        found = torch.bmm(rows, turned) if mask is None else torch.baddbmm(mask, rows, turned)
        if not self._prefix:
            return found
        prefix = states.as_strided(
            (self.heads[1], states.shape[1], self._prefix), self._strides(states, turned=True)
        )
        shared = torch.bmm(rows.view(self.heads[1], -1, rows.shape[2]), prefix)
        return torch.cat([shared.view(len(rows), self._rows, -1), found], dim=-1)

    def mixture(self, weights: Tensor, states: Tensor, own: Tensor) -> Tensor:
        """The sum of the prefix's and the suffix's states, weighted by each row."""
        if not self._prefix:
            return torch.bmm(weights, own)
        shape = self.heads[1], self._prefix, states.shape[1]
        prefix = states.as_strided(shape, self._strides(states))
        mixed = torch.bmm(self._of_prefix(weights), prefix).view(len(weights), self._rows, -1)
        return mixed.baddbmm_(self._of_suffix(weights), own)

    def given(self, weights: Tensor, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """What the rows give back to the states: (1, P, Hkv, D) or None, and (1, S, Hkv, D)."""
        suffixes = self._of_suffix(weights) if self._prefix else weights
        heads, width = self.heads[1], rows.shape[2]
        own = torch.bmm(suffixes.transpose(1, 2), rows).view(-1, width)
        own = own.index_select(0, self._own).view(1, -1, heads, width)
        if not self._prefix:
            return None, own
        turned = self._of_prefix(weights).transpose(1, 2)
        prefix = torch.bmm(turned, rows.view(heads, -1, width))
        strides = len(prefix) * self._prefix * width, width, self._prefix * width, 1
        return prefix.as_strided((1, self._prefix, heads, width), strides), own

    def _strides(self, states: Tensor, *, turned: bool = False) -> tuple[int, int, int]:
        """Strides of the prefix's states, (Hkv, P, D) or (Hkv, D, P), in ((P + S) * Hkv, D)."""
        width = states.shape[1]
        token = self.heads[1] * width
        return (width, 1, token) if turned else (width, token, 1)

    def _of_prefix(self, weights: Tensor) -> Tensor:
        """(Hkv, B * R, P) of (Hkv * B, R, P + L)."""
        width, rows = self._prefix + self._longest, self._batch * self._rows
        return weights.as_strided((self.heads[1], rows, self._prefix), (rows * width, width, 1))

    def _of_suffix(self, weights: Tensor) -> Tensor:
        """(Hkv * B, R, L) of (Hkv * B, R, P + L)."""
        width = self._prefix + self._longest
        shape = len(weights), self._rows, self._longest
        return weights.as_strided(shape, (self._rows * width, width, 1), self._prefix)

    def _suffixes(self, states: Tensor) -> Tensor:
        """((P + S) * Hkv, D) as (Hkv * B, L, D); a short suffix repeats its last token."""
        own = states.index_select(0, self._states)
        return own.view(-1, self._longest, states.shape[1])
