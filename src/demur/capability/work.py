"""Checking capability: every task without the prompt and with it, stored one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.bars import default_progress
from demur.capability.plan import CapabilityPlan
from demur.capability.results import (
    KIND,
    SCORES,
    Capability,
    CapabilityRecord,
    CapabilityResults,
    TaskScores,
)
from demur.chat.settings import LoadSettings
from demur.errors import DemurError
from demur.files import safe_name
from demur.progress import Progress
from demur.records import (
    WorkFolder,
    current_versions,
    damaged,
    fingerprint,
    list_files,
    read_record,
    write_record,
)
from demur.settings import part_of

if TYPE_CHECKING:
    from demur.chat import ChatModel
    from demur.prompts import Condition

CHECKS = Path("demur-capability")
_FORMAT = "capability scores"
_MOST_NAME = 120


@dataclass(frozen=True)
class StoredScores:
    """The scores on one task under one condition, as they are stored.

    Attributes:
        check: fingerprint of the check.
        condition: fingerprint of the condition.
        asked: name of the task that was asked for.
        scores: the scores; of a group, those of each of its tasks.
    """

    check: str
    condition: str
    asked: str
    scores: tuple[TaskScores, ...]


def carry_out(
    plan: CapabilityPlan,
    model: ChatModel,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Capability:
    """Do what was planned. A check that was stopped goes on after the last task that is stored.

    Args:
        plan: the check, as `make_plan` returns it.
        model: the model; its weights never change.
        output: folder of the check, or None for one below `demur-capability` that is named after
            the run or the model and the prompt.
        progress: reports progress.

    Raises:
        DemurError: the prompt does not suit the model, a task cannot be run, or a stored file is
            damaged.
    """
    from demur.capability.harness import VERSION

    progress = progress or default_progress()
    before, after = plan.conditions
    if after.safety_prompt is not None:
        after.safety_prompt.require_width(model.width)
    record = CapabilityRecord(
        model.record,
        (before.record(plan.names[0]), after.record(plan.names[1])),
        plan.settings,
        part_of(model.settings, LoadSettings),  # scores are computed here, wherever it samples
        VERSION,
    )
    path = Path(output) if output is not None else default_output(plan, model)
    found = Capability.find_finished(WorkFolder.check(path, record, KIND))
    if found is not None and found.has_all_files:
        WorkFolder.start(path, record, KIND)
        progress.message(f"This check is finished already: showing {path}.")
        return found
    with WorkFolder.alone(path, record, KIND, progress):
        work = _Work(plan, model, record, path, progress)
        capability = Capability(path, record, work.run())
        capability.save()
    return capability


def default_output(plan: CapabilityPlan, model: ChatModel) -> Path:
    """Where a check lies unless told otherwise."""
    name = (
        plan.run.path.resolve().name
        if plan.run is not None
        else f"{Path(model.name).name}-{plan.names[1]}"
    )
    return CHECKS / safe_name(name[:_MOST_NAME])


@dataclass(frozen=True)
class _Work:
    plan: CapabilityPlan
    model: ChatModel
    record: CapabilityRecord
    path: Path
    progress: Progress

    def run(self) -> CapabilityResults:
        """Every task under both conditions."""
        tasks = self.plan.settings.tasks
        self.progress.plan([self._stage(task, name) for task in tasks for name in self.plan.names])
        before: list[TaskScores] = []
        after: list[TaskScores] = []
        for task in tasks:
            first, second = (
                self._scores(task, condition, name)
                for condition, name in zip(self.plan.conditions, self.plan.names, strict=True)
            )
            if list(map(_measured, first)) != list(map(_measured, second)):
                raise DemurError(
                    f"The task {task!r:.100} changed between the two checks: delete "
                    f"{self.path / SCORES} and run the same command again."
                )
            before += first
            after += second
        return CapabilityResults(
            self.record.fingerprint,
            tuple(before),
            tuple(after),
            current_versions(),
            list_files(self.path, (SCORES,)),
        )

    def _stage(self, task: str, name: str) -> str:
        return f"Checking {task}: {name}"

    def _scores(self, task: str, condition: Condition, name: str) -> tuple[TaskScores, ...]:
        key = (self.record.fingerprint, condition.fingerprint, task)
        digest = fingerprint("capability scores", check=key[0], condition=key[1], task=task)
        file = self.path / SCORES / f"{digest[:16]}.json"
        if file.exists():
            kept = read_record(file, StoredScores, _FORMAT, in_work=True)
            if (kept.check, kept.condition, kept.asked) != key:
                raise damaged(file)
            return kept.scores
        from demur.capability.language_model import ConditionedModel

        conditioned = ConditionedModel(self.model, condition, self.progress)
        conditioned.stage = self._stage(task, name)
        settings = self.plan.settings
        scores = self.plan.harness.scores(conditioned, task, settings.limit, settings.fewshot)
        write_record(file, StoredScores(*key, scores), _FORMAT)
        return scores


def _measured(scores: TaskScores) -> object:
    """What scores of a task must have in common to be compared."""
    metrics = [(one.metric, one.filter) for one in scores.metrics]
    return scores.task, scores.version, scores.documents, metrics
