"""What a pairwise judge is: it says which of two outputs follows an instruction better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from demur.progress import Progress

Preference = Literal["first", "second", "tie"] | None
"""None: the judge answered something that is neither."""


class PairwiseJudge(Protocol):
    """Compares outputs of two models."""

    @property
    def name(self) -> str:
        """What results call the judge."""

    def prefer(
        self,
        instructions: Sequence[str],
        firsts: Sequence[str],
        seconds: Sequence[str],
        progress: Progress,
    ) -> list[Preference]:
        """The better output for each instruction, whatever order they are shown in."""
