"""What rules have in common: they judge each response alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from demur.judges.checks import require_equal
from demur.judges.protocol import Decision, Question
from demur.progress import Progress
from demur.records import answer_in, answer_stretch


class RefusalRule(ABC):
    """A judge of refusal that decides by a rule, from the response alone."""

    name: str
    question: Question = "refusal"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Text that changes whenever the rule's verdicts may change."""

    @abstractmethod
    def answer_refuses(self, answer: str) -> bool:
        """Whether a text without reasoning refuses; an empty one does not."""

    @abstractmethod
    def answer_is_settled(self, partial: str) -> bool:
        """Whether no continuation of a text without reasoning can change its verdict."""

    def refuses(self, response: str) -> bool:
        """Whether the answer in `response` refuses.

        Any string is judged. An empty one does not refuse, nor does one of reasoning alone.
        """
        answer = answer_in(response)
        return answer is not None and self.answer_refuses(answer)

    def is_settled(self, partial: str) -> bool:
        """Whether no continuation of `partial` can change its verdict.

        A text that may be reasoning is never settled. Continuations that end a reasoning which
        `partial` does not begin are left out of account.
        """
        answer = answer_stretch(partial)
        if answer is None or answer.end < len(partial):
            return False
        return self.answer_is_settled(partial[answer.start :])

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        """Whether each response refuses; None where one is reasoning alone.

        Args:
            queries: as many as responses; not read.
            responses: texts to judge.
            progress: not used, because rules are fast.

        Raises:
            DemurError: queries and responses differ in number.
        """
        require_equal("queries", queries, responses)
        return [
            None if answer_stretch(response) is None else self.refuses(response)
            for response in responses
        ]
