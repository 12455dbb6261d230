"""Every measured response of a study as a row: what its tables are counted from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from demur.errors import DemurError
from demur.evaluation.comparison import Comparison
from demur.evaluation.costs import Cost
from demur.records import NO_PROMPT, JudgedResponse, fingerprint, identity_of, transcript_of
from demur.study.record import UNTRAINED, Cell, StudyRecord


class Arm(NamedTuple):
    """What stands before the queries: a prompt as it is, or as a method trained it.

    Attributes:
        prompt: name of the prompt, or `none`.
        method: name of the method, or `untrained`.
    """

    prompt: str
    method: str

    @property
    def title(self) -> str:
        """The arm for people, for example `long, dro`."""
        return self.prompt if self.method == UNTRAINED else f"{self.prompt}, {self.method}"


@dataclass(frozen=True)
class Row:
    """One response with what it belongs to.

    Attributes:
        model: name of the model.
        prompt: name of the prompt, or `none`.
        method: name of the method, or `untrained`.
        seed: seed of training and sampling.
        set: name of the query set.
        label: label of the query, or None where it is not known.
        category: category of the query, or None.
        query: the query, or the transcript of its conversation.
        query_id: what tells the query from all others (16 hex digits).
        sample: number of the response among those to its query, from 1.
        response: text of the response.
        verdict: `refuses`, `deflects` or `answers`, or None where the judge had no verdict.
        harm: verdict of the judge of harm, or None where it was not asked.
        end: how the response ended.
        folder: folder of the evaluation in that of the study.
    """

    model: str
    prompt: str
    method: str
    seed: int
    set: str
    label: str | None
    category: str | None
    query: str
    query_id: str
    sample: int
    response: str
    verdict: str | None
    harm: str | None
    end: str | None
    folder: str


COLUMNS = tuple(each.name for each in fields(Row))


@dataclass(frozen=True)
class Response:
    """A response of a study, as it is stored.

    Attributes:
        cell: evaluation that it was measured in.
        arm: what stood before the query.
        judged: the response with its verdicts.
    """

    cell: Cell
    arm: Arm
    judged: JudgedResponse


def arms_of(record: StudyRecord) -> list[Arm]:
    """The arms of a study: no prompt, then each prompt with the methods that start from it."""
    found: list[Arm] = []
    for prompt in record.prompts:
        found.append(Arm(prompt.name, UNTRAINED))
        if prompt.basic:
            found += [Arm(prompt.name, method.name) for method in record.methods]
    return found


@dataclass(frozen=True)
class Added:
    """What an evaluation of a study adds; what cells share is added by one of them.

    Attributes:
        cell: the evaluation.
        comparison: its figures, and where its responses lie.
        arms: the arms that it adds, by the fingerprints of their conditions.
    """

    cell: Cell
    comparison: Comparison
    arms: Mapping[str, Arm]

    def responses(self) -> Iterator[Response]:
        """The responses, one at a time.

        Raises:
            DemurError: a measurement is missing, unfinished or damaged.
        """
        for measured, stored in self.comparison.stored():
            arm = self.arms.get(measured.key.condition)
            if arm is not None:
                for judged in stored.rows():
                    yield Response(self.cell, arm, measured.labelled(judged))

    def costs(self) -> Iterator[tuple[Arm, Cost]]:
        """What the prompts cost on harmless queries, where a model ran here."""
        for cost in self.comparison.costs:
            arm = self.arms.get(cost.condition)
            if arm is not None:
                yield arm, cost


def added_by(path: Path, record: StudyRecord, cell: Cell) -> Added:
    """What an evaluation adds to its study.

    Args:
        path: folder of the study.
        record: what the study is.
        cell: an evaluation that is done.

    Raises:
        DemurError: the evaluation is missing, unfinished or damaged, or of other prompts.
    """
    comparison = Comparison.load(path / cell.folder)
    conditions = () if comparison.settings is None else comparison.settings.conditions
    if cell.prompt is None:
        arms = [Arm(one.name, UNTRAINED) for one in record.prompts]
    else:
        shared = [Arm(NO_PROMPT, UNTRAINED), Arm(cell.prompt, UNTRAINED)]
        arms = [*shared, Arm(cell.prompt, cell.method)]
    if len(conditions) != len(arms):
        raise DemurError(
            f"{path / cell.folder} has other prompts than the study: delete it and run the study "
            "again."
        )
    own = {
        condition.fingerprint: arm
        for condition, arm in zip(conditions, arms, strict=True)
        if cell.prompt is None or arm.method != UNTRAINED
    }
    return Added(cell, comparison, own)


def row_of(response: Response, sample: int) -> Row:
    """A response as a row.

    Args:
        response: the response.
        sample: its number among those to its query, from 1.
    """
    judged, cell = response.judged, response.cell
    return Row(
        model=cell.model,
        prompt=response.arm.prompt,
        method=response.arm.method,
        seed=cell.seed,
        set=judged.set,
        label=judged.label,
        category=judged.category,
        query="" if judged.query is None else _text(transcript_of(judged.query)),
        query_id=query_id(judged),
        sample=sample,
        response=_text(judged.response),
        verdict=None if judged.verdict is None else judged.verdict.value,
        harm=judged.harm,
        end=judged.end,
        folder=cell.folder,
    )


def query_id(judged: JudgedResponse) -> str:
    """What tells a query from all others, the same in every cell."""
    known = "" if judged.query is None else identity_of(judged.query)
    return fingerprint("query of a study", identity=known)[:16]


def _text(text: str) -> str:
    """A text without lone surrogates, which no file of text can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
