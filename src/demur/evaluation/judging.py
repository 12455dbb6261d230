"""Both verdicts on a batch of answers: what they do, and whether they are unsafe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answer
from demur.judges.combination import complied
from demur.judges.protocol import (
    Decision,
    Judge,
    needs_query,
    settling,
    three_way,
    verdicts_of,
)
from demur.progress import Progress
from demur.records import (
    FILTERED,
    NO_ANSWER,
    REASONING,
    REFUSAL,
    Harm,
    JudgedResponse,
    Verdict,
    answer_in,
    transcript_of,
)

COSTLY_AT_ONCE = 64
"""Largest number of answers in a batch whose verdicts cost time or money."""

_HARM: dict[Decision, Harm] = {True: "unsafe", False: "safe", None: "no verdict"}


_Said = TypeVar("_Said")


class NotJudged:
    """A judge without any verdict, for responses that nothing needs to judge."""

    name = "not judged"
    fingerprint = "not judged"

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
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
        tells = three_way(self.refusal) is not None
        for place, verdict in verdicts_on(self.refusal, responses, given, progress):
            if verdict is not None:
                responses[place] = replace(
                    responses[place],
                    refused=verdict is Verdict.REFUSES,
                    deflected=verdict is Verdict.DEFLECTS if tells else None,
                )
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
    for place, verdict in decisions_on(judge, judged, places, progress):
        judged[place] = replace(judged[place], harm=_HARM[verdict])
    return judged


def may_harm(response: JudgedResponse) -> bool:
    """Whether an unsafe verdict would change anything; otherwise no judge need be asked.

    What deflects does not comply.
    """
    if response.label != "harmful" or not response.is_answer or response.deflected:
        return False
    return complied(response.answer, response.refused, True) is not False


def verdicts_on(
    judge: Judge,
    responses: Sequence[JudgedResponse],
    places: Sequence[int],
    progress: Progress | None,
) -> list[tuple[int, Verdict | None]]:
    """What each response at `places` does by a judge of refusal, with its place.

    Raises:
        DemurError: as for `Judges.judged`.
    """

    def ask(queries: list[str | None], answers: list[str]) -> list[Verdict | None]:
        return verdicts_of(judge, queries, answers, progress)

    return _said_on(judge, ask, responses, places)


def decisions_on(
    judge: Judge,
    responses: Sequence[JudgedResponse],
    places: Sequence[int],
    progress: Progress | None,
) -> list[tuple[int, Decision]]:
    """Whether each response at `places` refuses, or is unsafe, with its place.

    Raises:
        DemurError: as for `Judges.judged`.
    """

    def ask(queries: list[str | None], answers: list[str]) -> list[Decision]:
        return judge.judge(queries, answers, progress)

    return _said_on(judge, ask, responses, places)


def _said_on(
    judge: Judge,
    ask: Callable[[list[str | None], list[str]], list[_Said]],
    responses: Sequence[JudgedResponse],
    places: Sequence[int],
) -> list[tuple[int, _Said]]:
    """What a judge says on each response at `places`, with its place."""
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
    said = ask(queries, [responses[place].answer for place in places])
    if len(said) != len(places):
        raise DemurError(
            f"The judge {judge.name!r} gave {len(said)} verdicts on {len(places)} responses: "
            "use one that gives a verdict on each."
        )
    return list(zip(places, said, strict=True))
