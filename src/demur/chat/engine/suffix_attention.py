"""Attention of a packed row, with a backward pass of its own.

The scores of all suffixes on the prefix are one large matrix product and those of each suffix on
itself a small one, so the prefix is not copied for every suffix. `scaled_dot_product_attention`
needs that copy and a mask, and on processors its backward pass took up to 40 % of a bfloat16 step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from demur.chat.engine.packing import Packing
from demur.chat.engine.row_part import RowPart, Seen

MOST_SCORES = 2**21
"""Scores that are held at once on a processor: 8 MiB, about what its caches hold."""

MOST_SCORES_ON_GPU = 2**24
"""The same on a GPU, which waits longer for more calls than for larger ones: 64 MiB."""


class RowLayout:
    """What attention needs to know of rows of one shape, in tensors that stay where they are.

    A recorded pass reads these tensors, so another row of the shape is put into them.

    Args:
        packing: of the first row.
    """

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._parts: dict[tuple[tuple[int, int], float, torch.device], RowPart] = {}

    def part(self, heads: tuple[int, int], scaling: float, device: torch.device) -> RowPart:
        """The whole row, for layers of so many heads (query, key)."""
        found = self._parts.get((heads, scaling, device))
        if found is None:
            found = self._made(heads, scaling, device)
            self._parts[heads, scaling, device] = found
        return found

    def hold(self, packing: Packing) -> None:
        """Put another row of the same shape in place."""
        self._packing = packing
        for (heads, scaling, device), part in self._parts.items():
            part.take(self._made(heads, scaling, device))

    def _made(self, heads: tuple[int, int], scaling: float, device: torch.device) -> RowPart:
        packing = self._packing
        row = packing.before
        return RowPart(packing, row, packing.prefix, heads, scaling, device)


def suffix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None = None,
    most_scores: int | None = None,
    layout: RowLayout | None = None,
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
        layout: holds the packing for a pass that is recorded, which is never taken in parts.

    Returns:
        (1, T, Hq, E), in the dtype of the queries; scores are float32.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if most_scores is None:
        most_scores = MOST_SCORES if query.device.type == "cpu" else MOST_SCORES_ON_GPU
    heads = query.shape[1], key.shape[1]
    if layout is not None:
        parts: tuple[RowPart, ...] = (layout.part(heads, scaling, query.device),)
    else:
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
) -> tuple[RowPart, ...]:
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
        parts.append(RowPart(some, row, place, heads, scaling, device))
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
        parts: tuple[RowPart, ...],
    ) -> Tensor:
        queries, values = _by_token(query), _by_token(value)
        keys = _by_token(key) * parts[0].scaling
        attended: list[Tensor] = []
        kept: tuple[Tensor, ...] = ()
        with _products_for(query):
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
        with _products_for(gradients[0]):
            for part in context.parts:
                alone = len(context.parts) == 1
                seen = Seen(*kept) if alone else part.see(kept[0], keys, values)
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


@contextmanager
def _products_for(states: Tensor) -> Iterator[None]:
    """Let a GPU multiply float32 numbers in its matrix units where the states came in fewer bits.

    These read 10 bits behind the point and add up in float32; the states have 7 (bfloat16) or 10
    (float16). Products of float32 states stay as they are.
    """
    matmul = torch.backends.cuda.matmul
    try:
        before = matmul.allow_tf32
    except RuntimeError:  # set by torch's newer interface, which the older one then refuses
        before = True
    if before or states.device.type != "cuda" or states.dtype == torch.float32:
        yield
        return
    matmul.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32 = False


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
