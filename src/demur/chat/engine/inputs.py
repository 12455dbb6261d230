"""What a batch of conversations looks like to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

import torch
from torch import Tensor

from demur.chat.rendered import RenderedConversation

Target = tuple[int, ...]
"""The token ids of one continuation of a query."""


@dataclass(frozen=True)
class Inputs:
    """Conversations of one condition, split into the opening that all share and the rest.

    Attributes:
        prefix: token ids that every conversation opens with; at least one token of each
            conversation is left over.
        suffixes: token ids that follow the prefix in each conversation.
        prompt_span: place in the prefix, `[start, end)`, of the rows of trained embeddings; None
            where the prompt is text or absent.
        own_spans: the same for each conversation, where the prompt does not lie in an opening that
            all share; the prefix is then empty, and `prompt_span` is None. Some templates put the
            system message into the last message of the user.
        targets: continuations of each conversation that are scored, any number for each and none
            of them empty; `()` where none of the conversations has any.
    """

    prefix: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    prompt_span: tuple[int, int] | None
    targets: tuple[tuple[Target, ...], ...] = ()
    own_spans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.targets and len(self.targets) != len(self.suffixes):
            raise ValueError(
                f"{len(self.targets)} lists of targets for {len(self.suffixes)} conversations"
            )
        if any(not target for targets in self.targets for target in targets):
            raise ValueError("a target has no tokens")

    @classmethod
    def from_conversations(
        cls,
        conversations: Sequence[RenderedConversation],
        *,
        trained: bool = False,
        targets: Sequence[Sequence[Sequence[int]]] = (),
    ) -> Inputs:
        """Split `conversations`, which must be rendered under one prompt.

        Args:
            conversations: at least one.
            trained: whether embeddings will take the place of the tokens in the prompt span.
            targets: continuations of each conversation as token ids, or `()` for none.

        Raises:
            ValueError: a prompt has no place in a conversation, or a target is empty.
        """
        sequences = [conversation.token_ids for conversation in conversations]
        longest = min(len(sequence) for sequence in sequences) - 1
        columns = zip(*(sequence[:longest] for sequence in sequences), strict=True)
        length = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        spans = [one.prompt_span for one in conversations if one.prompt_span] if trained else []
        if trained and len(spans) < len(conversations):
            raise ValueError("the safety prompt has no place in a conversation")
        # Where all spans are the same and in the opening, its tokens stand there in every one.
        apart = any(span != spans[0] or span[1] > length for span in spans)
        if apart:
            length = 0
        return cls(
            prefix=sequences[0][:length],
            suffixes=tuple(sequence[length:] for sequence in sequences),
            prompt_span=spans[0] if spans and not apart else None,
            targets=tuple(tuple(map(tuple, some)) for some in targets),
            own_spans=tuple(spans) if apart else (),
        )

    def __len__(self) -> int:
        return len(self.suffixes)

    def targets_of(self, row: int) -> tuple[Target, ...]:
        """The targets of one conversation."""
        return self.targets[row] if self.targets else ()

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens that each conversation adds to a packed row: its suffix and its branches."""
        return [
            len(suffix) + sum(branches)
            for suffix, branches in zip(self.suffixes, self.branches, strict=True)
        ]

    @cached_property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of each target that the model reads: all but the last, which it only predicts."""
        return tuple(
            tuple(len(target) - 1 for target in self.targets_of(row)) for row in range(len(self))
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation, together with all of its branches."""
        return len(self.prefix) + max(self.lengths)

    def row_tokens(self) -> list[int]:
        """Token ids behind the prefix in a packed row: each suffix, then its branches."""
        row: list[int] = []
        for index, suffix in enumerate(self.suffixes):
            row += suffix
            for target in self.targets_of(index):
                row += target[:-1]
        return row

    def sequences(self) -> list[tuple[int, ...]]:
        """Whole conversations: one for each target, and one for a query without targets."""
        found: list[tuple[int, ...]] = []
        for index, suffix in enumerate(self.suffixes):
            for target in self.targets_of(index) or ((0,),):
                found.append(self.prefix + suffix + target[:-1])
        return found

    def spans(self) -> list[tuple[int, int]]:
        """The place of the prompt's rows in each of `sequences`; empty without such rows."""
        if self.prompt_span is None and not self.own_spans:
            return []
        spans = self.own_spans or (self.prompt_span or (0, 0),) * len(self)
        return [span for index, span in enumerate(spans) for _ in self.targets_of(index) or ((0,),)]

    def select(self, indices: Sequence[int]) -> Inputs:
        """The same condition with only some conversations, in the order given."""
        return Inputs(
            self.prefix,
            tuple(self.suffixes[index] for index in indices),
            self.prompt_span,
            tuple(self.targets[index] for index in indices) if self.targets else (),
            tuple(self.own_spans[index] for index in indices) if self.own_spans else (),
        )

    def without_targets(self) -> Inputs:
        """The same conversations alone."""
        return replace(self, targets=())

    def unshared(self) -> Inputs:
        """The same conversations with an empty shared prefix, for the plain path.

        The prompt span keeps its place, as every conversation opens with the old prefix.
        """
        return replace(
            self, prefix=(), suffixes=tuple(self.prefix + suffix for suffix in self.suffixes)
        )


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
