"""Conversations laid end to end in one row: no padding, and large matrix products.

Every conversation opens with the same prefix, so it is in the row (or in the cache) once. A token
sees the prefix and what precedes it in its own suffix, at the positions that it would have alone;
so the results are those of each conversation by itself.
"""

from __future__ import annotations

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
        lengths: tokens of each of the B suffixes; S in all.
        inside: whether the prefix opens the row (T = P + S) or precedes it in a cache (T = S).
    """

    prefix: int
    lengths: tuple[int, ...]
    inside: bool

    @cached_property
    def starts(self) -> list[int]:
        """Where each suffix starts, counted from the first suffix."""
        return [0, *accumulate(self.lengths)][:-1]

    @property
    def total(self) -> int:
        """S, the tokens of all suffixes."""
        return sum(self.lengths)

    @cached_property
    def ends(self) -> Tensor:
        """(B,): the place in the row of each suffix's last token."""
        before = self.prefix if self.inside else 0
        return torch.tensor(list(accumulate(self.lengths))) + (before - 1)

    @cached_property
    def position_ids(self) -> Tensor:
        """(1, T): the position of each token in its own conversation."""
        return self._positions[None] if self.inside else self._positions[None, self.prefix :]

    @cached_property
    def visible(self) -> Tensor:
        """(1, 1, T, P + S): True where a token of the row may look."""
        owners = self._owners
        mine = (owners[:, None] == owners[None]) | (owners[None] < 0)
        seen = mine & (self._positions[None] <= self._positions[:, None])
        return (seen if self.inside else seen[self.prefix :])[None, None]

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
    def _owners(self) -> Tensor:
        suffixes = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))
        return torch.cat([torch.full((self.prefix,), -1), suffixes])

    @cached_property
    def _positions(self) -> Tensor:
        suffixes = [torch.arange(self.prefix, self.prefix + length) for length in self.lengths]
        return torch.cat([torch.arange(self.prefix), *suffixes])
