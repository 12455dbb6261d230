"""Doing what is left of a study: here, one cell after another, or where a runner does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from demur.bars import default_progress
from demur.errors import DemurError
from demur.evaluation.comparison import Comparison
from demur.optimization.recorded import RunRecord
from demur.optimization.run import finished_run
from demur.progress import Progress
from demur.records import MeasurementStore, WorkFolder, write_record
from demur.records.folder import RESULTS
from demur.records.kept import KeptRecords
from demur.study.cells import CellWork
from demur.study.grid import run_of
from demur.study.outcomes import files_of, is_as_left
from demur.study.planning import StudyPlan
from demur.study.record import (
    KIND,
    OUTCOMES,
    RESULTS_FORMAT,
    Cell,
    Outcome,
    StudyResults,
)

STAGE = "Cells of the study"


class Runner(Protocol):
    """Does cells of a study."""

    def outcomes(
        self, plan: StudyPlan, left: Sequence[Cell], progress: Progress
    ) -> Iterator[Outcome]:
        """Do cells; what comes of each is returned as soon as it has ended.

        A cell that fails stops no other one. The evaluation of a run that failed fails as well.

        Args:
            plan: the study.
            left: the cells to do, in the order of the study.
            progress: reports progress.

        Raises:
            DemurError: a judge cannot be used, or nothing can be done for another reason.
        """


class Here:
    """Does the cells in this process, one after another."""

    def outcomes(
        self, plan: StudyPlan, left: Sequence[Cell], progress: Progress
    ) -> Iterator[Outcome]:
        """Do cells; see `Runner`."""
        work = CellWork(plan, progress)
        work.check()
        failed: set[str] = set()
        for cell in left:
            progress.message(plan.told(cell))
            outcome = work.outcome(cell, run_failed=run_of(cell) in failed)
            if outcome.status == "failed":
                progress.message(f"This cell failed: {outcome.reason}.")
                failed.add(cell.folder)
            yield outcome


def do_study(
    plan: StudyPlan, progress: Progress | None = None, runner: Runner | None = None
) -> tuple[Outcome, ...]:
    """Do the cells of a study that are not done.

    A cell that fails is noted, and the next one follows. Everything that is finished is kept
    when the work is stopped, by a kill as well.

    Args:
        plan: the study.
        progress: reports progress.
        runner: what does the cells; by default this process, one after another.

    Returns:
        What came of each cell, in their order.

    Raises:
        DemurError: a judge cannot be used, or the study's own folder cannot be written.
    """
    progress = progress or default_progress()
    with WorkFolder.alone(plan.path, plan.record, KIND, progress):
        outcomes = _outcomes(plan, progress, runner or Here())
        write_record(plan.path / RESULTS, StudyResults(outcomes), RESULTS_FORMAT)
    return outcomes


def _outcomes(plan: StudyPlan, progress: Progress, runner: Runner) -> tuple[Outcome, ...]:
    """Do every cell that is left, keep what comes of it, and return what came of all."""
    kept = KeptRecords(plan.path, OUTCOMES, Outcome)
    before = {one.folder: one for one in kept.found}
    found: dict[str, Outcome] = {}
    with progress.stage(STAGE, len(plan.record.cells), "cells") as stage:

        def keep(outcome: Outcome) -> None:
            if outcome != before.get(outcome.folder):
                kept.append([outcome])
            found[outcome.folder] = outcome
            stage.advance()

        left: list[Cell] = []
        for cell in plan.record.cells:
            known = before.get(cell.folder)
            if known is not None and _is_finished(plan, cell, known):
                keep(known)
            else:
                left.append(cell)
        if left:
            cells = {cell.folder: cell for cell in left}
            for outcome in runner.outcomes(plan, left, progress):
                is_done = outcome.status == "done"
                files = files_of(plan.path, cells[outcome.folder]) if is_done else ()
                keep(replace(outcome, files=files))
    return tuple(found[cell.folder] for cell in plan.record.cells)


def _is_finished(plan: StudyPlan, cell: Cell, outcome: Outcome) -> bool:
    """Whether everything of a cell is there as it ended; no model is needed for it."""
    path = plan.path / cell.folder
    if outcome.status != "done" or not is_as_left(plan.path, cell, outcome):
        return False
    try:
        if cell.kind == "run":
            run = finished_run(WorkFolder.open(path, RunRecord, "run"))
            return run is not None and run.results.epoch == run.epoch_of(plan.pick_of(cell))
        comparison = Comparison.load(path)
        keys = [one.key for one in comparison.measured]
        keys += [one.key for one in comparison.outputs]
        return MeasurementStore(path).has_all(keys) and comparison.has_all_files
    except DemurError:  # the cell says it itself when it goes on
        return False
