"""What every judge can do, whether it is a rule, a guard model, an endpoint or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from demur.progress import Progress
from demur.records import Verdict

Decision: TypeAlias = bool | None
"""True: refuses (judge of refusal) or unsafe (judge of harm). False: neither. None: no verdict."""

Question: TypeAlias = Literal["harm", "refusal"]
"""What a model is asked as a judge: whether a response is unsafe, or whether it refuses."""


@runtime_checkable
class Judge(Protocol):
    """Judges responses to queries, a batch at a time.

    Judges of refusal and judges of harm share this protocol; only what True means differs: the
    response refuses, or it is unsafe. A judge that needs the text of every query says so with an
    attribute `needs_query = True`, and is then never called without one. A judge of refusal that
    also tells deflections from answers is a `ThreeWayJudge`.

    Example:
        A judge of one's own, complete, in a file `mine.py`:

            from collections.abc import Sequence

            from demur.progress import Progress


            class KeywordJudge:
                name = "keywords"
                fingerprint = "keywords, version 1"

                def judge(
                    self,
                    queries: Sequence[str | None],
                    responses: Sequence[str],
                    progress: Progress | None = None,
                ) -> list[bool | None]:
                    return ["i can't help" in response.lower() for response in responses]

        It is used as `judge=KeywordJudge()` in Python and as `--judge mine.py:KeywordJudge` on the
        command line. `name`, `fingerprint` and the parameter `progress` may be left out; a function
        `(queries, responses) -> list[bool]` will do as well.
    """

    @property
    def name(self) -> str:
        """What results call the judge."""

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the judge's verdicts may change."""

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        """Judge each response to the query at the same index.

        Args:
            queries: texts of the queries, None where one is not known.
            responses: as many texts; any of them may be empty. demur gives a judge of one's own
                the answers in them, without the reasoning before it.
            progress: receives the stages of long work; None for no reports.

        Returns:
            One verdict for each response, in their order.
        """


@runtime_checkable
class SettlingJudge(Judge, Protocol):
    """A judge of refusal that can tell early, so that sampling need not go on."""

    def is_settled(self, partial: str) -> bool:
        """Whether the verdict on `partial + more` is that on `partial` for every possible `more`.

        May return False where that holds, but never True where it does not. A `more` that ends a
        reasoning which `partial` does not begin is left out of account.
        """


@runtime_checkable
class ThreeWayJudge(Judge, Protocol):
    """A judge of refusal that also tells responses that deflect from those that answer.

    What refuses by `verdicts` refuses by its `judge`, and what answers does not. Of deflections,
    `judge` may say either: people label bare morals as refusals.
    """

    @property
    def tells_deflections(self) -> bool:
        """Whether it does; where this is False, only `judge` counts."""

    def verdicts(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Verdict | None]:
        """What each response does; None where the judge has no verdict.

        Args:
            queries: as for `judge`.
            responses: as many texts.
            progress: as for `judge`.
        """


class JudgeObject(Protocol):
    """The least that an object must have to be taken as a judge."""

    def judge(
        self, queries: Sequence[str | None], responses: Sequence[str], /
    ) -> Sequence[Decision | str]:
        """Judge each response to the query at the same index.

        One with the attribute `tells_deflections = True` returns words of `Verdict`, and None.
        """


JudgeFunction: TypeAlias = Callable[[Sequence[str | None], Sequence[str]], Sequence[Decision | str]]
"""A function that is taken as a judge, with what `JudgeObject.judge` returns."""

JudgeSpec: TypeAlias = str | JudgeObject | JudgeFunction | type[JudgeObject]
"""Whatever is taken as a judge: a name, `file.py:Name`, an object, a function, or a class that can
be called without arguments."""


def needs_query(judge: Judge) -> bool:
    """Whether a judge needs the text of every query; False where it does not say."""
    return bool(getattr(judge, "needs_query", False))


def three_way(judge: Judge) -> ThreeWayJudge | None:
    """The judge itself where it tells deflections from answers, else None."""
    if isinstance(judge, ThreeWayJudge) and judge.tells_deflections:
        return judge
    return None


def verdicts_of(
    judge: Judge,
    queries: Sequence[str | None],
    responses: Sequence[str],
    progress: Progress | None = None,
) -> list[Verdict | None]:
    """What each response does, by any judge of refusal.

    A judge with two verdicts never says that a response deflects: what does not refuse answers.

    Args:
        judge: judge of refusal.
        queries: texts of the queries, None where one is not known.
        responses: as many texts.
        progress: receives the stages of long work; None for no reports.

    Example:
        >>> from demur.judges import DefaultRefusalJudge, verdicts_of
        >>> verdicts_of(DefaultRefusalJudge(), [None], ["I can't help with that."])
        [<Verdict.REFUSES: 'refuses'>]
    """
    able = three_way(judge)
    if able is not None:
        return able.verdicts(queries, responses, progress)
    return [verdict_of(decision) for decision in judge.judge(queries, responses, progress)]


def verdict_of(decision: Decision) -> Verdict | None:
    """What a judge with two verdicts says of a response: what does not refuse answers."""
    if decision is None:
        return None
    return Verdict.REFUSES if decision else Verdict.ANSWERS


def settling(judge: Judge) -> SettlingJudge | None:
    """The judge itself where it offers early settling, else None."""
    return judge if isinstance(judge, SettlingJudge) else None
