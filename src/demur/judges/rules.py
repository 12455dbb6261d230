"""What rules have in common: they judge each response alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from demur.judges.checks import require_equal
from demur.judges.protocol import Question, Verdict
from demur.progress import Progress


class RefusalRule(ABC):
    """A judge of refusal that decides by a rule, from the response alone."""

    name: str
    question: Question = "refusal"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Text that changes whenever the rule's verdicts may change."""

    @abstractmethod
    def refuses(self, response: str) -> bool:
        """Whether `response` refuses; any string is judged, and an empty one does not refuse."""

    @abstractmethod
    def is_settled(self, partial: str) -> bool:
        """Whether no continuation of `partial` can change its verdict."""

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Verdict]:
        """Whether each response refuses.

        Args:
            queries: as many as responses; not read.
            responses: texts to judge.
            progress: not used, because rules are fast.

        Raises:
            DemurError: queries and responses differ in number.
        """
        require_equal("queries", queries, responses)
        return [self.refuses(response) for response in responses]
