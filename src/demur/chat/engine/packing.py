"""Conversations laid end to end in one row: no padding, and large matrix products.

Every conversation opens with the same prefix, so it is in the row (or in the cache) once. A token
sees the prefix and what precedes it in its own suffix, at the positions that it would have alone;
so the results are those of each conversation by itself.

A suffix may end in several branches, which continue it side by side: a token of a branch sees the
prefix, the suffix up to where the branches begin, and its own branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

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
    """

    prefix: int
    lengths: tuple[int, ...]
    inside: bool
    branches: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def starts(self) -> list[int]:
        """Where each suffix starts, counted from the first suffix."""
        return [0, *accumulate(self.lengths)][:-1]

    @property
    def total(self) -> int:
        """S, the tokens of all suffixes."""
        return sum(self.lengths)

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
        stems = [start + stem for start, stem in zip(self.starts, self._stems, strict=True)]
        return torch.tensor(stems) + (self.before - 1)

    @cached_property
    def reads(self) -> Tensor:
        """(B + n,): the places in the row of `ends` and of all n tokens of branches."""
        if not self.branches:
            return self.ends
        own = torch.nonzero(self._owners[1] > 0)[:, 0] - self.prefix + self.before
        return torch.cat([self.ends, own])

    @cached_property
    def position_ids(self) -> Tensor:
        """(1, T): the position of each token in its own conversation."""
        return self._positions[None] if self.inside else self._positions[None, self.prefix :]

    @cached_property
    def visible(self) -> Tensor:
        """(1, 1, T, P + S): True where a token of the row may look."""
        suffixes, branches = self._owners
        mine = (suffixes[:, None] == suffixes[None]) | (suffixes[None] < 0)
        if self.forks:
            mine &= (branches[:, None] == branches[None]) | (branches[None] == 0)
        seen = mine & (self._positions[None] <= self._positions[:, None])
        return (seen if self.inside else seen[self.prefix :])[None, None]

    @cached_property
    def own_visible(self) -> Tensor:
        """(L, L) or (B, L, L), L the longest suffix: True where a token sees its own suffix.

        One mask serves all suffixes where none of them forks. A token of the padding sees itself.
        """
        longest = max(self.lengths)
        if not self.forks:
            return torch.ones(longest, longest, dtype=torch.bool).tril()
        padding = -1 - torch.arange(longest)  # differs from every branch and from each other
        branches = padding.repeat(len(self.lengths), 1)
        positions = torch.zeros_like(branches)
        for row, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
            own = slice(self.prefix + start, self.prefix + start + length)
            branches[row, :length] = self._owners[1][own]
            positions[row, :length] = self._positions[own]
        mine = branches[:, :, None] == branches[:, None]
        mine |= branches[:, None] == 0
        return mine & (positions[:, None] <= positions[:, :, None])

    @cached_property
    def padded(self) -> Tensor:
        """(B, longest): which of the S tokens stands there; short suffixes repeat their last."""
        longest = max(self.lengths)
        return torch.stack(
            [
                torch.arange(longest).clamp(max=length - 1) + start
                for start, length in zip(self.starts, self.lengths, strict=True)
            ]
        )

    @cached_property
    def flat(self) -> Tensor:
        """(S,): the place of each token in `padded`, flattened."""
        longest = max(self.lengths)
        return torch.cat(
            [torch.arange(length) + row * longest for row, length in enumerate(self.lengths)]
        )

    @cached_property
    def _stems(self) -> list[int]:
        """Tokens of each suffix before its branches."""
        if not self.branches:
            return list(self.lengths)
        return [
            length - sum(some) for length, some in zip(self.lengths, self.branches, strict=True)
        ]

    def _branches_of(self, row: int) -> Sequence[int]:
        return self.branches[row] if self.branches else ()

    @cached_property
    def _owners(self) -> tuple[Tensor, Tensor]:
        """(P + S,) each: the suffix of a token, -1 in the prefix; its branch from 1 on, or 0."""
        suffixes = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))
        branches: list[Tensor] = []
        for row, stem in enumerate(self._stems):
            sizes = torch.tensor([stem, *self._branches_of(row)])
            branches.append(torch.arange(len(sizes)).repeat_interleave(sizes))
        opening = torch.zeros(self.prefix, dtype=torch.long)
        return torch.cat([opening - 1, suffixes]), torch.cat([opening, *branches])

    @cached_property
    def _positions(self) -> Tensor:
        pieces = [torch.arange(self.prefix)]
        for row, stem in enumerate(self._stems):
            fork = self.prefix + stem
            pieces.append(torch.arange(self.prefix, fork))
            pieces += [torch.arange(fork, fork + size) for size in self._branches_of(row)]
        return torch.cat(pieces)
