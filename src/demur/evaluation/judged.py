"""Judged responses: one a line in a file, whoever gave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from demur.errors import DemurError
from demur.evaluation.jsonl import damaged, read_rows, write_rows
from demur.judges.combination import complied
from demur.judges.harm import HarmJudge, HarmVerdict
from demur.progress import Progress
from demur.queries import Label

Harm = Literal["unsafe", "safe", "no verdict"]
_HARM_AT_ONCE = 64
"""How many responses are judged before their verdicts are saved: each may have cost something."""

_HARM: dict[HarmVerdict, Harm] = {True: "unsafe", False: "safe", None: "no verdict"}


@dataclass(frozen=True)
class JudgedResponse:
    """One response with its verdicts.

    Attributes:
        prompt: the name of the safety prompt, or `none`.
        set: the name of the query set.
        label: of the query, or None where it is not known.
        category: of the query, or None where the set has none.
        query: or None where it is not known.
        response: never trusted.
        refused: the refusal judge's verdict.
        end: `stop`, `length` or `settled`, as the engine's samples say; None where not known.
        harm: the harm judge's verdict, or None where it was not asked.
    """

    prompt: str
    set: str
    label: Label | None
    category: str | None
    query: str | None
    response: str
    refused: bool
    end: str | None
    harm: Harm | None = None

    def to_row(self) -> dict[str, Any]:
        """Plain data, a line of JSONL; `harm` is there only where the harm judge was asked."""
        row = dict(vars(self))
        if self.harm is None:
            del row["harm"]
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> JudgedResponse:
        """Read what `to_row` gave; raises `TypeError` for anything else."""
        return cls(**row)

    @property
    def may_harm(self) -> bool:
        """Whether an unsafe verdict would make it a harmful one; else no judge need be asked."""
        return self.label == "harmful" and complied(self.response, self.refused, True) is True


def read_judged(file: Path) -> list[JudgedResponse]:
    """Judged responses from a file that demur wrote.

    Raises:
        DemurError: the file is damaged.
    """
    try:
        return [JudgedResponse.from_row(row) for row in read_rows(file)]
    except TypeError as error:
        raise damaged(file) from error


def judge_harm(
    responses: Sequence[JudgedResponse], harm_judge: HarmJudge, progress: Progress
) -> list[JudgedResponse]:
    """The same responses, with the harm judge's verdict on those that may harm.

    Raises:
        DemurError: the judge gave more or fewer verdicts than it was asked for.
    """
    judged = list(responses)
    places = [place for place, response in enumerate(judged) if response.may_harm]
    if not places:
        return judged
    verdicts = harm_judge.judge(
        [judged[place].query or "" for place in places],
        [judged[place].response for place in places],
        progress,
    )
    if len(verdicts) != len(places):
        raise DemurError(
            f"the harm judge {harm_judge.name!r} gave {len(verdicts)} verdicts on {len(places)} "
            "responses: use one that gives a verdict each"
        )
    for place, verdict in zip(places, verdicts, strict=True):
        judged[place] = replace(judged[place], harm=_HARM[verdict])
    return judged


def write_judged(file: Path, responses: Sequence[JudgedResponse]) -> None:
    """Write judged responses, one a line, all or none."""
    write_rows(file, (response.to_row() for response in responses))


def judge_harm_in_batches(
    responses: Sequence[JudgedResponse],
    harm_judge: HarmJudge,
    kept: Path,
    progress: Progress,
    before_keeping: Callable[[], object] = lambda: None,
) -> list[JudgedResponse]:
    """The same as `judge_harm`; what was judged before an interruption is not judged again.

    Args:
        responses: any number of them.
        harm_judge: is asked.
        kept: the file that verdicts lie in meanwhile.
        progress: hears of it.
        before_keeping: is called before anything is written.

    Raises:
        DemurError: as `judge_harm`.
    """
    done = read_judged(kept) if kept.exists() else []
    while len(done) < len(responses):
        batch = responses[len(done) : len(done) + _HARM_AT_ONCE]
        done += judge_harm(batch, harm_judge, progress)
        before_keeping()
        write_judged(kept, done)
    return done
