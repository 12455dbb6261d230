"""Doing single cells of a study, with models and judges that are loaded once."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError, first_line
from demur.evaluation.choices import choose_conditions, choose_prompts
from demur.evaluation.chosen import Chosen, choose
from demur.evaluation.comparison import Comparison
from demur.evaluation.evaluate import run_evaluation
from demur.files import write_bytes, writing
from demur.judges import Judge, as_refusal_judge
from demur.optimization.pipeline import carry_out
from demur.optimization.run import Run
from demur.plugins import describe_error, traceback_of_bug
from demur.progress import Progress
from demur.prompts import check_system_texts, load_system_prompt
from demur.report import write_report
from demur.study.outcomes import files_of
from demur.study.planning import StudyPlan, run_plan
from demur.study.record import Cell, Outcome, Status

if TYPE_CHECKING:
    from demur.chat import ChatModel
    from demur.evaluation.answerers.protocol import Answerer

ERROR = "error.txt"
"""The traceback of a bug, in the folder of the cell that failed."""


class CellWork:
    """Does cells of a study, one after another, and keeps what they share.

    A cell that is done is stored as well, where the study has a storage.

    Args:
        plan: the study.
        progress: reports progress.
    """

    def __init__(self, plan: StudyPlan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.models = _Models(plan, progress)
        self.bases: dict[int, Chosen] = {}
        self.judges: dict[tuple[str, str | None], Judge] = {}

    def check(self) -> None:
        """Load the judges of the evaluations, so that a mistake is found before a model is loaded.

        Raises:
            DemurError: a judge cannot be used.
        """
        self._base(self.plan.record.seeds[0])

    def outcome(self, cell: Cell, *, run_failed: bool) -> Outcome:
        """Do a cell; what goes wrong is in its outcome.

        Args:
            cell: a cell of the study.
            run_failed: whether the run failed whose prompt the cell measures.

        Raises:
            DemurError: the storage cannot be used.
        """
        start = time.monotonic()
        reason = ""
        try:
            self._forget_error(cell)
            if run_failed:
                raise DemurError("There is no prompt to evaluate, because its run failed.")
            self._do(cell)
        except DemurError as error:
            reason = first_line(error) + self._kept_error(cell, error)
        except Exception as error:  # for example the device's memory is full, or a bug
            reason = describe_error(error) + self._kept_error(cell, error)
        seconds = time.monotonic() - start
        status: Status = "failed" if reason else "done"
        outcome = Outcome(cell.folder, cell.content, status, seconds, reason, finished=time.time())
        if reason or self.plan.storage is None:
            return outcome
        outcome = replace(outcome, files=files_of(self.plan.path, cell))
        return self.plan.storage.publish(self.plan.path, cell, outcome)

    def _forget_error(self, cell: Cell) -> None:
        """Remove the traceback of an earlier attempt."""
        file = self.plan.path / cell.folder / ERROR
        with writing(file):
            file.unlink(missing_ok=True)

    def _kept_error(self, cell: Cell, error: Exception) -> str:
        """Write the traceback of a bug into the folder of its cell, and say where it is."""
        text = traceback_of_bug(error)
        if not text:
            return ""
        file = self.plan.path / cell.folder / ERROR
        try:
            write_bytes(file, text.encode("utf-8", "replace"))
        except DemurError:  # the disk may be full, which must not hide the reason
            return ""
        host = "" if self.plan.home is None else f" on {socket.gethostname()}"
        return f" (traceback in {file}{host})"

    def _do(self, cell: Cell) -> None:
        path = self.plan.path / cell.folder
        lenders = self._lenders(cell)
        done: Run | Comparison
        if cell.kind == "run":
            done = self._run(cell, path, lenders)
        else:
            chosen = self._chosen(cell)
            answerer = self.models.answerer(cell.model)
            done = run_evaluation(answerer, chosen, path, self.progress, lenders)
        if self.plan.home is None:  # otherwise the page is written there
            write_report([done])

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
        key = (spec, base_url)
        if key not in self.judges:
            self.judges[key] = as_refusal_judge(spec, base_url=base_url, progress=self.progress)
        return self.judges[key]

    def _base(self, seed: int) -> Chosen:
        """Queries and judges of the evaluations with a seed; the judges are loaded once.

        What stands before queries in a later turn, and built-in tools, are drawn with the study's
        first seed for all of them: every seed is measured on the same queries.
        """
        first = self.plan.record.seeds[0]
        if first not in self.bases:
            named = self.plan.settings.evaluation(first, self.plan.chosen.settings.prompt)
            self.bases[first] = choose(named, named.prompt, self.progress)
        if seed not in self.bases:
            named = self.plan.settings.evaluation(seed, self.plan.chosen.settings.prompt)
            self.bases[seed] = replace(self.bases[first], settings=named)
        return self.bases[seed]

    def _chosen(self, cell: Cell) -> Chosen:
        """What an evaluation measures."""
        base = self._base(cell.seed)
        if cell.prompt is None:
            return base
        named = self.plan.prompts_of(cell)
        recorded = self.plan.prompts_of(cell, recorded=True)
        settings = self.plan.settings.evaluation(cell.seed, recorded)
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
        self._failed: dict[str, str] = {}

    def loaded(self, name: str) -> ChatModel:
        """A model, ready to run.

        Raises:
            DemurError: it cannot be loaded; it is not tried again for its other cells, whatever
                was raised for the first.
        """
        from demur.chat.chosen import load_chosen

        if self._loaded is not None and self._loaded[0] == name:
            return self._loaded[1]
        if name in self._failed:
            raise DemurError(self._failed[name])
        self._loaded = None
        gc.collect()
        try:
            model = load_chosen(self._entries[name].settings, self._progress)
        except DemurError as error:
            self._failed[name] = str(error)
            raise
        except Exception as error:  # for example the device's memory is full
            self._failed[name] = (
                f"The model was not loaded for an earlier cell: {describe_error(error)}"
            )
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
