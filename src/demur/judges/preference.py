"""What a pairwise judge is: it says which of two outputs follows an instruction better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from demur.progress import Progress

Preference: TypeAlias = Literal["first", "second", "tie"] | None
"""None: the judge has no verdict."""


class PairwiseJudge(Protocol):
    """Compares pairs of outputs."""

    @property
    def name(self) -> str:
        """What results call the judge."""

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the judge's preferences may change."""

    def prefer(
        self,
        instructions: Sequence[str],
        firsts: Sequence[str],
        seconds: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Preference]:
        """The better of two outputs for each instruction, in whichever order they are shown.

        Args:
            instructions: N texts.
            firsts: N outputs, one for each instruction.
            seconds: N other outputs.
            progress: receives the stages of long work; None for no reports.

        Returns:
            N preferences.
        """
