"""Conversations laid end to end in one row: no padding, and large matrix products.

Every conversation opens with the same prefix, so it is in the row (or in the cache) once. A token
sees the prefix and what precedes it in its own suffix, at the positions that it would have alone;
so the results are those of each conversation by itself.

A suffix may end in several branches, which continue it side by side: a token of a branch sees the
prefix, the suffix up to where the branches begin, and its own branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where everything lies in a row of T tokens.

    Attributes:
        prefix: P, tokens of the prefix.
        lengths: tokens of each of the B suffixes, branches included; S in all.
        inside: whether the prefix opens the row (T = P + S) or precedes it in a cache (T = S).
        branches: tokens of each branch of each suffix; `()` where no suffix has any.
        width: tokens that a suffix has room for, at least, where suffixes lie side by side.
    """

    prefix: int
    lengths: tuple[int, ...]
    inside: bool
    branches: tuple[tuple[int, ...], ...] = ()
    width: int = 0

    @property
    def total(self) -> int:
        """S, the tokens of all suffixes."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """L, the tokens of the longest suffix, or `width` if that is more."""
        return max(self.width, *self.lengths)

    @property
    def before(self) -> int:
        """Tokens of the row before the first suffix."""
        return self.prefix if self.inside else 0

    @cached_property
    def forks(self) -> bool:
        """Whether some suffix has several branches with tokens in them.

        A single branch goes on where its suffix stops, so nothing is different for it.
        """
        return any(sum(length > 0 for length in some) > 1 for some in self.branches)

    @cached_property
    def ends(self) -> Tensor:
        """(B,): the place in the row of the last token of each suffix before its branches."""
        return self._starts + torch.tensor(self._stems) + (self.before - 1)

    @cached_property
    def reads(self) -> Tensor:
        """(B + n,): the places in the row of `ends` and of all n tokens of branches."""
        if not self.branches:
            return self.ends
        branch_tokens = torch.nonzero(self._suffix_branches > 0)[:, 0]
        return torch.cat([self.ends, branch_tokens + self.before])

    @cached_property
    def position_ids(self) -> Tensor:
        """(1, T): the position of each token in its own conversation."""
        return self._positions[None] if self.inside else self._positions[None, self.prefix :]

    @cached_property
    def visible(self) -> Tensor:
        """(1, 1, T, P + S): True where a token of the row may look."""
        opening = torch.full((self.prefix,), -1)
        suffixes = torch.cat([opening, self._suffix_rows])
        mine = (suffixes[:, None] == suffixes[None]) | (suffixes[None] < 0)
        if self.forks:
            branches = torch.cat([torch.zeros_like(opening), self._suffix_branches])
            mine &= (branches[:, None] == branches[None]) | (branches[None] == 0)
        seen = mine & (self._positions[None] <= self._positions[:, None])
        return (seen if self.inside else seen[self.prefix :])[None, None]

    @cached_property
    def own_visible(self) -> Tensor:
        """(L, L) or (B, L, L): True where a token sees a token of its own suffix.

        One mask serves all suffixes where none of them forks. A token of the padding sees itself.
        """
        if not self.forks:
            return torch.ones(self.longest, self.longest, dtype=torch.bool).tril()
        places = self._suffix_rows, self._steps
        padding = -1 - torch.arange(self.longest)  # unlike every branch and each other
        branches = padding.repeat(len(self.lengths), 1)
        branches = branches.index_put(places, self._suffix_branches)
        positions = torch.zeros_like(branches).index_put(places, self._positions[self.prefix :])
        mine = (branches[:, :, None] == branches[:, None]) | (branches[:, None] == 0)
        return mine & (positions[:, None] <= positions[:, :, None])

    @cached_property
    def padded(self) -> Tensor:
        """(B, L): which of the S tokens stands there; short suffixes repeat their last."""
        steps = torch.arange(self.longest)[None]
        return self._starts[:, None] + torch.minimum(steps, self._lengths[:, None] - 1)

    @cached_property
    def flat(self) -> Tensor:
        """(S,): the place of each token in `padded`, flattened."""
        return self._suffix_rows * self.longest + self._steps

    @cached_property
    def _stems(self) -> list[int]:
        """Tokens of each suffix before its branches."""
        branches = self.branches or ((),) * len(self.lengths)
        return [length - sum(some) for length, some in zip(self.lengths, branches, strict=True)]

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor(self.lengths)

    @cached_property
    def _starts(self) -> Tensor:
        """(B,): where each suffix starts, counted from the first suffix."""
        return self._lengths.cumsum(0) - self._lengths

    @cached_property
    def _suffix_rows(self) -> Tensor:
        """(S,): the suffix of each token."""
        return torch.arange(len(self.lengths)).repeat_interleave(self._lengths)

    @cached_property
    def _steps(self) -> Tensor:
        """(S,): the place of each token in its suffix."""
        return torch.arange(self.total) - self._starts[self._suffix_rows]

    @cached_property
    def _stretches(self) -> tuple[Tensor, Tensor, Tensor]:
        """Stems and branches in their order: the tokens, branch and first position of each.

        The branch of a stem is 0; its branches count from 1 on.
        """
        branches = self.branches or ((),) * len(self.lengths)
        found: list[tuple[int, int, int]] = []
        for stem, some in zip(self._stems, branches, strict=True):
            found.append((stem, 0, self.prefix))
            found += [(size, place, self.prefix + stem) for place, size in enumerate(some, start=1)]
        sizes, numbers, positions = torch.tensor(found).unbind(1)
        return sizes, numbers, positions

    @cached_property
    def _suffix_branches(self) -> Tensor:
        """(S,): the branch of each token, 0 for a token before the branches."""
        sizes, numbers, _ = self._stretches
        return numbers.repeat_interleave(sizes)

    @cached_property
    def _positions(self) -> Tensor:
        """(P + S,): the position of each token in its own conversation."""
        sizes, _, positions = self._stretches
        shifts = positions - (sizes.cumsum(0) - sizes)
        own = torch.arange(self.total) + shifts.repeat_interleave(sizes)
        return torch.cat([torch.arange(self.prefix), own])
