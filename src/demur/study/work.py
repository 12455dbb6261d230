"""Doing what is left of a study: here, one cell after another, or where a runner does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

from demur.bars import default_progress
from demur.errors import DemurError, first_line
from demur.evaluation.comparison import Comparison
from demur.optimization.recorded import RunRecord
from demur.optimization.run import finished_run
from demur.progress import Progress
from demur.records import MeasurementStore, WorkFolder, are_listed, write_record
from demur.records.folder import RESULTS
from demur.records.kept import KeptRecords
from demur.study.cells import CellWork
from demur.study.grid import run_of
from demur.study.lease import working_alone
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
from demur.study.storage import StorageError
from demur.study.stored import StoredCell
from demur.study.travel import CellStorage, DamagedCell

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
            DemurError: a judge or the storage cannot be used, or nothing can be done for another
                reason.
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
        DemurError: a judge or the storage cannot be used, or the study's own folder cannot be
            written.
    """
    progress = progress or default_progress()
    with WorkFolder.alone(plan.path, plan.record, KIND, progress), _stored(plan, progress):
        outcomes = _outcomes(plan, progress, runner or Here())
        write_record(plan.path / RESULTS, StudyResults(outcomes), RESULTS_FORMAT)
    return outcomes


def _stored(plan: StudyPlan, progress: Progress) -> AbstractContextManager[None]:
    """Make the storage of a study its own, and keep other commands from working there."""
    if plan.storage is None:
        return nullcontext()
    plan.storage.begin(plan.record.name)
    plan.storage.storage.try_out()
    return working_alone(plan.storage.storage, progress)


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

        storage = plan.storage
        there = {} if storage is None else storage.cells(plan.record.cells)
        left: list[Cell] = []
        for cell in plan.record.cells:
            known = before.get(cell.folder)
            if known is None or not _is_finished(plan, cell, known):
                known = _fetched(plan, cell, there.get(cell.folder), progress)
            elif storage is not None:
                if cell.folder in there:
                    _require_same(plan, cell, known, there[cell.folder])
                else:
                    storage.publish(plan.path, cell, known)
            if known is None:
                left.append(cell)
            else:
                keep(known)
        if left:
            cells = {cell.folder: cell for cell in left}
            for outcome in runner.outcomes(plan, left, progress):
                cell = cells[outcome.folder]
                if outcome.status == "failed":
                    keep(outcome)
                elif storage is None:
                    keep(replace(outcome, files=files_of(plan.path, cell)))
                else:
                    keep(_brought(plan, cell, outcome, storage))
    return tuple(found[cell.folder] for cell in plan.record.cells)


def _fetched(
    plan: StudyPlan, cell: Cell, there: StoredCell | None, progress: Progress
) -> Outcome | None:
    """What came of a cell that is finished at the storage; None where it must be done.

    A cell that is whole and cannot be read here has failed: it stays at the storage.
    """
    if plan.storage is None or there is None:
        return None
    outcome = there.outcome
    run = next((one for one in outcome.files if one.name != f"{cell.folder}/{RESULTS}"), None)
    # Otherwise it measured a run that is done again.
    if run is None or are_listed(plan.path, [run.name], [run]):
        try:
            plan.storage.fetch(plan.path, cell, there)
        except DamagedCell as error:
            progress.message(str(error))
            return None
        try:
            if _is_whole(plan, cell, outcome):
                return outcome
        except DemurError as error:
            reason = f"It is finished at {plan.storage.url} and cannot be read: {first_line(error)}"
            progress.message(f"A cell failed, {cell.title}: {reason}.")
            return Outcome(cell.folder, cell.content, "failed", 0.0, reason)
    progress.message(
        f"What {plan.storage.url} has of a cell is not whole, or not what the study measures now: "
        f"it is done again, {cell.title}."
    )
    plan.storage.forget(cell)
    return None


def _brought(plan: StudyPlan, cell: Cell, outcome: Outcome, storage: CellStorage) -> Outcome:
    """What came of a cell that a worker has stored; its files are in the folder of the study.

    Raises:
        StorageError: something else is stored than what the worker has told.
    """
    there = storage.find(cell)
    if there is not None and there.outcome == outcome:
        storage.fetch(plan.path, cell, there)
        if _is_finished(plan, cell, outcome):
            return outcome
    raise StorageError(
        f"{cell.folder} was stored at {storage.url}, and is not there as it should be: run the "
        "same command again."
    )


def _require_same(plan: StudyPlan, cell: Cell, known: Outcome, there: StoredCell) -> None:
    """Check that a cell that is finished here and at the storage has the same results.

    Raises:
        DemurError: it has others.
    """
    if plan.storage is not None and there.outcome.files != known.files:
        raise DemurError(
            f"{plan.path / cell.folder} has other results than {plan.storage.url} has for this "
            "cell: give another --output or another --storage, or delete that folder."
        )


def _is_finished(plan: StudyPlan, cell: Cell, outcome: Outcome) -> bool:
    """Whether everything of a cell is there as it ended; no model is needed for it."""
    try:
        return _is_whole(plan, cell, outcome)
    except DemurError:  # the cell says it itself when it goes on
        return False


def _is_whole(plan: StudyPlan, cell: Cell, outcome: Outcome) -> bool:
    """Whether a cell is done and its folder has all that belongs to it, unchanged.

    Raises:
        DemurError: this version of demur cannot read it, or a record is damaged.
    """
    path = plan.path / cell.folder
    if outcome.status != "done" or not is_as_left(plan.path, cell, outcome):
        return False
    if cell.kind == "run":
        run = finished_run(WorkFolder.open(path, RunRecord, "run"))
        return run is not None and run.results.epoch == run.epoch_of(plan.pick_of(cell))
    comparison = Comparison.load(path)
    keys = [one.key for one in comparison.measured]
    keys += [one.key for one in comparison.outputs]
    return MeasurementStore(path).has_all(keys) and comparison.has_all_files
