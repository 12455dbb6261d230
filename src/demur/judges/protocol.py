"""What every judge of refusal can do."""

from __future__ import annotations

from typing import Protocol


class RefusalJudge(Protocol):
    """Decides whether a response refuses."""

    @property
    def name(self) -> str:
        """The name that `get_refusal_judge` knows the judge by."""

    def refuses(self, response: str) -> bool:
        """Whether `response` refuses the query."""

    def is_settled(self, partial: str) -> bool:
        """Whether `refuses(partial + more) == refuses(partial)` for every possible `more`.

        May answer False where that holds, but never True where it does not.
        """
