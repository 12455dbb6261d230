"""What a batch of conversations looks like to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from demur.chat.rendering import Conversation


@dataclass(frozen=True)
class Inputs:
    """Conversations of one condition, split into the opening that all share and the rest.

    Attributes:
        prefix: the token ids that every conversation opens with; at least one token of each
            conversation is left over.
        suffixes: what follows the prefix in each conversation.
        prompt_span: where in the prefix the rows of trained embeddings stand, `[start, end)`, or
            None where the prompt is text or absent.
    """

    prefix: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    prompt_span: tuple[int, int] | None

    @classmethod
    def from_conversations(
        cls, conversations: Sequence[Conversation], *, trained: bool = False
    ) -> Inputs:
        """Split `conversations`, which must be rendered under one prompt.

        Args:
            conversations: at least one.
            trained: whether embeddings will take the place of the tokens in the prompt span.

        Raises:
            ValueError: the prompt does not lie in the shared opening.
        """
        sequences = [conversation.token_ids for conversation in conversations]
        longest = min(len(sequence) for sequence in sequences) - 1
        columns = zip(*(sequence[:longest] for sequence in sequences), strict=True)
        length = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        span = conversations[0].prompt_span if trained else None
        if trained and (span is None or span[1] > length):
            raise ValueError("the safety prompt does not lie in the opening that all queries share")
        return cls(
            prefix=sequences[0][:length],
            suffixes=tuple(sequence[length:] for sequence in sequences),
            prompt_span=span,
        )

    def __len__(self) -> int:
        return len(self.suffixes)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each suffix."""
        return [len(suffix) for suffix in self.suffixes]

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation."""
        return len(self.prefix) + max(self.lengths)

    def select(self, indices: Sequence[int]) -> Inputs:
        """The same condition with only some conversations, in the order given."""
        return Inputs(
            self.prefix, tuple(self.suffixes[index] for index in indices), self.prompt_span
        )

    def unshared(self) -> Inputs:
        """The same conversations with an empty shared prefix, for the plain path.

        The prompt span keeps its place, as every conversation opens with the old prefix.
        """
        return Inputs((), tuple(self.prefix + suffix for suffix in self.suffixes), self.prompt_span)


def pad(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-pad token ids.

    Padding on the right needs no mask: in a causal model nothing after a token changes it.

    Returns:
        ids: (B, T) int64.
        lengths: (B,) int64.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.long)
    ids = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return ids.to(device), lengths.to(device)
