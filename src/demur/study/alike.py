"""Whether the evaluations of a study belong together, so that they can be counted together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.record import KIND, EvaluationIdentity, EvaluationRecord
from demur.records import ModelRecord, WorkFolder
from demur.study.outcomes import is_as_left
from demur.study.record import Cell, Outcome


def require_alike(path: Path, done: Mapping[Cell, Outcome]) -> None:
    """Check that cells are as the study left them, and were measured alike.

    Args:
        path: folder of the study.
        done: the cells that are done, with what came of them.

    Raises:
        DemurError: a cell is another one, or was changed, or two evaluations have other queries,
            judges or amounts, or of one model other weights.
    """
    first: dict[tuple[str, object], tuple[Path, object]] = {}
    for cell, outcome in done.items():
        place = path / cell.folder
        if outcome.files and not is_as_left(path, cell, outcome):
            raise DemurError(
                f"The results in {place} are not those that the study ended with: run the study's "
                "command again, which says what to do."
            )
        if cell.kind != "evaluation":
            continue
        measured = WorkFolder.open(place, EvaluationRecord, KIND).settings.identity()
        if measured.seed != cell.seed:
            raise _other(place, path, "seed")
        for what, group, value in (
            ("choice of judges or amounts", None, _amounts(measured)),
            ("choice of queries", None, _queries(measured)),
            ("model", cell.model, _answerer(measured)),
        ):
            other, known = first.setdefault((what, group), (place, value))
            if value != known:
                raise _other(place, other, what)


def _amounts(one: EvaluationIdentity) -> object:
    """What all evaluations of a study have in common."""
    judges = (one.judge, one.harm_judge, one.preference_judge)
    return (*judges, one.samples, one.tokens, one.output_tokens)


def _queries(one: EvaluationIdentity) -> object:
    """What they have in common as well: tests count a query once over all seeds."""
    return one.choice_of_queries, one.instructions


def _answerer(one: EvaluationIdentity) -> object:
    """The model itself; a study may go on with it on another device."""
    if isinstance(one.answerer, ModelRecord):
        return replace(one.answerer, device="", prefix_sharing=False)
    return one.answerer


def _other(place: Path, than: Path, what: str) -> DemurError:
    return DemurError(
        f"{place} was measured with another {what} than {than}: delete it and run the study again."
    )
