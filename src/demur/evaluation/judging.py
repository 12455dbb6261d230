"""Both verdicts on a batch of answers: whether they refuse, and whether they are unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answer
from demur.judges.combination import complied
from demur.judges.protocol import Judge, Verdict, needs_query, settling
from demur.progress import Progress
from demur.records import (
    FILTERED,
    NO_ANSWER,
    REASONING,
    REFUSAL,
    Harm,
    JudgedResponse,
    answer_in,
    transcript_of,
)

COSTLY_AT_ONCE = 64
"""Largest number of answers in a batch whose verdicts cost time or money."""

_HARM: dict[Verdict, Harm] = {True: "unsafe", False: "safe", None: "no verdict"}


class NotJudged:
    """A judge without any verdict, for responses that nothing needs to judge."""

    name = "not judged"
    fingerprint = "not judged"

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Verdict]:
        """No verdict on any response."""
        return [None] * len(responses)


@dataclass(frozen=True)
class Judges:
    """The judges of an evaluation.

    Attributes:
        refusal: judge of refusal.
        harm: judge of harm, or None; it is asked only about answers that may count as harmful.
    """

    refusal: Judge
    harm: Judge | None = None

    @property
    def most_at_once(self) -> int | None:
        """Largest number of answers in a batch; None where the judges set no limit."""
        costly = self.harm is not None or settling(self.refusal) is None
        return COSTLY_AT_ONCE if costly else None

    def judged(
        self, answers: Sequence[Answer], progress: Progress | None = None
    ) -> list[JudgedResponse]:
        """The answers with their verdicts.

        One that is blank, with reasoning alone, or withheld by a filter has none. Judges read what
        follows a reasoning, and are not asked about what the server itself marked as a refusal.

        Raises:
            DemurError: a judge fails, needs a query that is not known, or does not give one verdict
                for each answer.
        """
        responses = [
            JudgedResponse(
                prompt=answer.prompt,
                condition=answer.condition,
                set=answer.set,
                label=answer.label,
                category=answer.category,
                query=answer.query,
                response=answer.text or "",
                refused=True if answer.end == REFUSAL else None,
                end=_end(answer),
            )
            for answer in answers
        ]
        given = [
            place
            for place, answer in enumerate(answers)
            if answer.text is not None
            and not responses[place].is_withheld
            and responses[place].end != REFUSAL
        ]
        for place, verdict in verdicts_on(self.refusal, responses, given, progress):
            responses[place] = replace(responses[place], refused=verdict)
        return responses if self.harm is None else judge_harm(responses, self.harm, progress)


def _end(answer: Answer) -> str | None:
    """Why a response ended, as it is stored."""
    if answer.text is None or answer.end in (REFUSAL, FILTERED):
        return answer.end
    if not answer.text.strip():
        return NO_ANSWER
    return REASONING if answer_in(answer.text) is None else answer.end


def judge_harm(
    responses: Sequence[JudgedResponse], judge: Judge, progress: Progress | None = None
) -> list[JudgedResponse]:
    """The same responses, with verdicts of a judge of harm on those that may be harmful.

    Raises:
        DemurError: as for `Judges.judged`.
    """
    judged = list(responses)
    places = [place for place, response in enumerate(judged) if may_harm(response)]
    for place, verdict in verdicts_on(judge, judged, places, progress):
        judged[place] = replace(judged[place], harm=_HARM[verdict])
    return judged


def may_harm(response: JudgedResponse) -> bool:
    """Whether an unsafe verdict would change anything; otherwise no judge need be asked."""
    if response.label != "harmful" or not response.is_answer:
        return False
    return complied(response.answer, response.refused, True) is not False


def verdicts_on(
    judge: Judge,
    responses: Sequence[JudgedResponse],
    places: Sequence[int],
    progress: Progress | None,
) -> list[tuple[int, Verdict]]:
    """A verdict on each response at `places`, with its place.

    Raises:
        DemurError: as for `Judges.judged`.
    """
    if not places:
        return []
    asked = [responses[place].query for place in places]
    # A verdict on an answer in a conversation depends on what was said before.
    queries = [None if query is None else transcript_of(query) for query in asked]
    if needs_query(judge) and None in queries:
        raise DemurError(
            f"The judge {judge.name!r} needs the query of each response: add a column 'query', or "
            "choose a judge that reads the response alone."
        )
    verdicts = judge.judge(queries, [responses[place].answer for place in places], progress)
    if len(verdicts) != len(places):
        raise DemurError(
            f"The judge {judge.name!r} gave {len(verdicts)} verdicts on {len(places)} responses: "
            "use one that gives a verdict on each."
        )
    return list(zip(places, verdicts, strict=True))
