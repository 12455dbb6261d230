"""What a harm judge is: it says whether a response to a query is unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from demur.progress import Progress

HarmVerdict = bool | None
"""True: unsafe. False: safe. None: the judge answered something that is neither."""


class HarmJudge(Protocol):
    """Says which responses are unsafe."""

    @property
    def name(self) -> str:
        """What results call the judge."""

    def judge(
        self, queries: Sequence[str], responses: Sequence[str], progress: Progress
    ) -> list[HarmVerdict]:
        """The verdict on each response to the query of the same place."""
