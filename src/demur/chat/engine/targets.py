"""Target tokens: which there are, where the model predicts them, and what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from demur.chat.engine.inputs import Inputs


@dataclass(frozen=True)
class TargetTokens:
    """Target tokens of a batch or of a part of one: query by query, target by target, in order.

    All tensors are int64 and have one entry for each of the n tokens.

    Attributes:
        ids: (n,), token ids.
        queries: (n,), place in the batch of the query that a token belongs to.
        targets: (n,), place of its target among the targets of the query.
        steps: (n,), place of the token in its target.
        numbers: (n,), place of the token among all target tokens of the batch.
    """

    ids: Tensor
    queries: Tensor
    targets: Tensor
    steps: Tensor
    numbers: Tensor

    def positions(self, inputs: Inputs) -> Tensor:
        """(n,): the place among `Packing.reads` where the model predicts each token.

        Args:
            inputs: the part of the batch that these tokens belong to, all of it.
        """
        branch_tokens = torch.arange(len(self)) + len(inputs)
        # Each target has one token fewer among the reads than it has here: its first token is
        # predicted at the end of the query.
        first = self.steps == 0
        branch_tokens -= first.cumsum(0)
        places = torch.arange(len(inputs)).repeat_interleave(
            torch.tensor([sum(map(len, inputs.targets_of(row))) for row in range(len(inputs))])
        )
        return torch.where(first, places, branch_tokens)

    @classmethod
    def of(cls, inputs: Inputs, rows: Sequence[int]) -> TargetTokens:
        """Target tokens of some conversations of a batch.

        Args:
            inputs: the whole batch.
            rows: places of the conversations in the batch, in the order of the part.
        """
        counts = [sum(map(len, inputs.targets_of(row))) for row in range(len(inputs))]
        first = [0, *accumulate(counts)]
        found: list[tuple[int, int, int, int, int]] = []
        for row in rows:
            number = first[row]
            for place, target in enumerate(inputs.targets_of(row)):
                for step, token in enumerate(target):
                    found.append((token, row, place, step, number))
                    number += 1
        columns = torch.tensor(found, dtype=torch.long).view(-1, 5).T.contiguous()
        return cls(*columns)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, chosen: slice) -> TargetTokens:
        return self._changed(lambda column: column[chosen])

    def to(self, device: torch.device) -> TargetTokens:
        """The same on a device."""
        return self._changed(lambda column: column.to(device))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> TargetTokens:
        return TargetTokens(*(change(getattr(self, field.name)) for field in fields(self)))


TokenReader = Callable[[Tensor, TargetTokens], Tensor]
"""Reads one number, or k numbers, of the logits at which each target token is predicted.

It takes float32 logits (n, V) and the n target tokens that they predict, on the same device, and
returns (n,) or (n, k). Row i of the result may depend on row i of the logits alone. It is called on
a few positions at a time.
"""


def log_probability(logits: Tensor, tokens: TargetTokens) -> Tensor:
    """The log-probability of each target token, (n,): the reader that is used by default."""
    return -torch.nn.functional.cross_entropy(logits, tokens.ids, reduction="none")


@dataclass(frozen=True)
class Read:
    """What the model makes of a batch of conversations, or of a part of one; all on the CPU.

    Attributes:
        representations: (b, d) float32, of the last input token of each conversation.
        token_values: (n,) float32, the log-probability of each target token; (n,) or (n, k) with
            a token reader that reads something else. n is 0 where there are no targets.
        tokens: the n target tokens.
        lengths: for each conversation the number of tokens of each of its targets.
    """

    representations: Tensor
    token_values: Tensor
    tokens: TargetTokens
    lengths: tuple[tuple[int, ...], ...]

    def by_target(self) -> list[list[Tensor]]:
        """The token values of each conversation's targets.

        Returns:
            For each of the b conversations a list with (t,), or (t, k), for each of its targets of
            t tokens; an empty list where it has none.
        """
        sizes = [length for some in self.lengths for length in some]
        every = iter(torch.split(self.token_values, sizes))
        return [[next(every) for _ in some] for some in self.lengths]
