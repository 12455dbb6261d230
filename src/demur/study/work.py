"""Doing what is left of a study, one cell after another."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demur.bars import default_progress
from demur.errors import DemurError, first_line
from demur.evaluation.choices import choose_conditions, choose_prompts
from demur.evaluation.chosen import Chosen, choose
from demur.evaluation.comparison import Comparison
from demur.evaluation.evaluate import run_evaluation
from demur.judges import Judge, as_refusal_judge
from demur.optimization.pipeline import carry_out
from demur.optimization.recorded import RunRecord
from demur.optimization.run import Run, finished_run
from demur.optimization.validation import Pick
from demur.progress import Progress
from demur.prompts import check_system_texts, load_system_prompt
from demur.records import MeasurementStore, WorkFolder, write_record
from demur.records.folder import RESULTS
from demur.records.kept import KeptRecords
from demur.report import write_report
from demur.study.grid import run_of
from demur.study.planning import StudyPlan, run_plan
from demur.study.record import (
    KIND,
    OUTCOMES,
    RESULTS_FORMAT,
    Cell,
    Outcome,
    StudyResults,
)

if TYPE_CHECKING:
    from demur.chat import ChatModel
    from demur.evaluation.answerers.protocol import Answerer

STAGE = "Cells of the study"


def do_study(plan: StudyPlan, progress: Progress | None = None) -> tuple[Outcome, ...]:
    """Do the cells of a study that are not done.

    A cell that fails is noted, and the next one follows. Everything that is finished is kept
    when the work is stopped, by a kill as well.

    Args:
        plan: the study.
        progress: reports progress.

    Returns:
        What came of each cell, in their order.

    Raises:
        DemurError: a judge cannot be used, or the study's own folder cannot be written.
    """
    progress = progress or default_progress()
    with WorkFolder.alone(plan.path, plan.record, KIND, progress):
        work = _Work(plan, progress)
        outcomes = work.run()
        write_record(plan.path / RESULTS, StudyResults(outcomes), RESULTS_FORMAT)
    return outcomes


class _Work:
    """A study that is under way."""

    def __init__(self, plan: StudyPlan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.kept = KeptRecords(plan.path, OUTCOMES, Outcome)
        self.models = _Models(plan, progress)
        self.bases: dict[int, Chosen] = {}
        self.judges: dict[str, Judge] = {}

    def run(self) -> tuple[Outcome, ...]:
        """Do every cell, and return what came of each."""
        cells = self.plan.record.cells
        before = {one.folder: one for one in self.kept.found}
        found: list[Outcome] = []
        failed: set[str] = set()
        if self.plan.left:
            self._base(cells[0].seed)  # mistakes in judges are found before a model is loaded
        with self.progress.stage(STAGE, len(cells), "cells") as stage:
            for number, cell in enumerate(cells, start=1):
                done = before.get(cell.folder)
                if self._is_finished(cell):
                    known = done if done is not None and done.status == "done" else None
                    outcome = known or Outcome(cell.folder, cell.content, "done", 0.0)
                else:
                    self.progress.message(f"Cell {number} of {len(cells)}, {cell.title}")
                    outcome = self._outcome(cell, failed)
                if outcome.status == "failed":
                    failed.add(cell.folder)
                if outcome != done:
                    self.kept.append([outcome])
                found.append(outcome)
                stage.advance()
        return tuple(found)

    def _is_finished(self, cell: Cell) -> bool:
        """Whether everything of a cell is there and whole; no model is needed for it."""
        path = self.plan.path / cell.folder
        if not (path / RESULTS).exists():
            return False
        try:
            if cell.kind == "run":
                run = finished_run(WorkFolder.open(path, RunRecord, "run"))
                return run is not None and run.results.epoch == run.epoch_of(self._pick(cell))
            comparison = Comparison.load(path)
            keys = [one.key for one in comparison.measured]
            keys += [one.key for one in comparison.outputs]
            return MeasurementStore(path).has_all(keys) and comparison.has_all_files
        except DemurError:  # the cell says it itself when it goes on
            return False

    def _pick(self, cell: Cell) -> Pick:
        assert cell.prompt is not None
        return self.plan.runs[cell.prompt, cell.method].settings.pick

    def _outcome(self, cell: Cell, failed: set[str]) -> Outcome:
        """Do a cell, whatever becomes of it."""
        start = time.monotonic()
        reason = ""
        try:
            if cell.kind == "evaluation" and run_of(cell) in failed:
                raise DemurError("There is no prompt to evaluate, because its run failed.")
            self._do(cell)
        except DemurError as error:
            reason = first_line(error)
        except Exception as error:  # for example the device's memory is full
            reason = f"{type(error).__name__}: {first_line(error)}"
        seconds = time.monotonic() - start
        if reason:
            self.progress.message(f"This cell failed: {reason}.")
            return Outcome(cell.folder, cell.content, "failed", seconds, reason)
        return Outcome(cell.folder, cell.content, "done", seconds)

    def _do(self, cell: Cell) -> None:
        path = self.plan.path / cell.folder
        lenders = self._lenders(cell)
        if cell.kind == "run":
            write_report([self._run(cell, path, lenders)])
            return
        chosen = self._chosen(cell)
        answerer = self.models.answerer(cell.model)
        write_report([run_evaluation(answerer, chosen, path, self.progress, lenders)])

    def _run(self, cell: Cell, path: Path, lenders: Sequence[Path]) -> Run:
        settings = self.plan.settings
        prompt = next(one for one in settings.basic_prompts if one.name == cell.prompt)
        method = next(one for one in settings.methods if one.name == cell.method)
        plan = run_plan(prompt, method, settings, cell.seed)
        plan = replace(plan, judge=self._judge(plan.settings.judge, plan.settings.base_url))
        model = self.models.loaded(cell.model)
        return carry_out(model, plan, output=path, progress=self.progress, lenders=lenders)

    def _judge(self, spec: str, base_url: str | None) -> Judge:
        """A judge of training, which may be a model and is loaded once."""
        if spec not in self.judges:
            self.judges[spec] = as_refusal_judge(spec, base_url=base_url, progress=self.progress)
        return self.judges[spec]

    def _base(self, seed: int) -> Chosen:
        """Queries and judges of the evaluations with a seed; the judges are loaded once."""
        if seed not in self.bases:
            plan = self.plan
            named = plan.settings.evaluation(seed, plan.chosen.settings.prompt)
            if not self.bases:
                self.bases[seed] = choose(named, named.prompt, self.progress)
            else:
                first = next(iter(self.bases.values()))
                light = named.model_copy(update={"judges": type(named.judges)()})
                self.bases[seed] = replace(
                    choose(light, named.prompt, self.progress),
                    judges=first.judges,
                    other_judges=first.other_judges,
                    preference_judge=first.preference_judge,
                    settings=named,
                )
        return self.bases[seed]

    def _chosen(self, cell: Cell) -> Chosen:
        """What an evaluation measures."""
        base = self._base(cell.seed)
        if cell.prompt is None:
            return base
        named = self.plan.prompts_of(cell)
        settings = self.plan.settings.evaluation(cell.seed, named)
        file = settings.system_prompt
        text = None if file is None else load_system_prompt(file)
        conditions, names = choose_conditions(choose_prompts(named), text, named)
        for one in base.sets:
            check_system_texts(conditions, one.queries.texts)
        return replace(base, conditions=tuple(conditions), names=tuple(names), settings=settings)

    def _lenders(self, cell: Cell) -> list[Path]:
        """Folders whose measurements a cell may share: the same kind, model and seed."""
        same = (cell.kind, cell.model, cell.seed)
        return [
            self.plan.path / one.folder
            for one in self.plan.record.cells
            if (one.kind, one.model, one.seed) == same and one.folder != cell.folder
        ]


class _Models:
    """The model that is loaded: one at a time, and each once where its cells lie together."""

    def __init__(self, plan: StudyPlan, progress: Progress) -> None:
        self._entries = {one.name: one for one in plan.settings.models}
        self._progress = progress
        self._loaded: tuple[str, ChatModel] | None = None
        self._failed: dict[str, DemurError] = {}

    def loaded(self, name: str) -> ChatModel:
        """A model, ready to run.

        Raises:
            DemurError: it cannot be loaded; it is not tried again for its other cells.
        """
        from demur.chat.chosen import load_chosen

        if self._loaded is not None and self._loaded[0] == name:
            return self._loaded[1]
        if name in self._failed:
            raise self._failed[name]
        self._loaded = None
        gc.collect()
        try:
            model = load_chosen(self._entries[name].settings, self._progress)
        except DemurError as error:
            self._failed[name] = error
            raise
        self._loaded = (name, model)
        return model

    def answerer(self, name: str) -> Answerer:
        """What answers for a model: itself, or its server."""
        entry = self._entries[name]
        if not entry.is_served:
            from demur.evaluation.answerers.model import ModelAnswerer

            return ModelAnswerer(self.loaded(name))
        from demur.evaluation.answerers.server import Server

        return Server.of(entry.settings.server)
