"""What is recorded of an evaluation before it is done, and the folder that it gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demur.chat.settings import WorkLoadSettings
from demur.evaluation.answerers.protocol import Answerer
from demur.evaluation.answerers.records import AnswererRecord, short_name
from demur.evaluation.choices import EVALUATIONS
from demur.evaluation.chosen import Chosen
from demur.evaluation.record import KIND, EvaluationRecord, JudgeRecord, SetRecord
from demur.evaluation.settings import FileSettings, ServerSettings
from demur.files import safe_name
from demur.progress import Progress
from demur.records import ConditionRecord, WorkFolder

_MOST_NAME = 120


def default_outputs(record: EvaluationRecord) -> list[Path]:
    """Where an evaluation lies unless told otherwise.

    Returns:
        Folders of evaluations with other prompts or settings, which have the name already, and last
        the evaluation's own.

    Raises:
        DemurError: the settings in one of the folders are damaged.
    """
    parts = [short_name(record.answerer), *(each.name for each in record.sets)]
    if record.instructions is not None:
        parts.append(record.instructions.name)
    if not record.sets and record.instructions is None:
        parts.append(record.judge.name)
    name = safe_name("-".join(parts)[:_MOST_NAME])
    found = [EVALUATIONS / name]
    while WorkFolder.holds_other(found[-1], record, KIND):
        found.append(EVALUATIONS / f"{name}-{len(found) + 1}")
    return found


def record_of(answerer: Answerer, chosen: Chosen, progress: Progress) -> EvaluationRecord:
    """What is recorded of an evaluation.

    Args:
        answerer: what answers.
        chosen: prompts, queries, judges and sampling.
        progress: reports what the answerer does to describe itself.

    Raises:
        DemurError: a prompt does not suit the answerer.
    """
    described: AnswererRecord = answerer.describe(progress)
    named = zip(chosen.conditions, chosen.names, strict=True)
    conditions = [answerer.condition(condition, name) for condition, name in named]
    return _recorded(chosen, described, answerer.settings, conditions)


def renewed(stored: EvaluationRecord, chosen: Chosen) -> EvaluationRecord:
    """What is recorded of another evaluation with the model of a stored one."""
    named = zip(chosen.conditions, chosen.names, strict=True)
    conditions = [condition.record(name) for condition, name in named]
    return _recorded(chosen, stored.answerer, stored.source, conditions)


def _recorded(
    chosen: Chosen,
    answerer: AnswererRecord,
    source: WorkLoadSettings | ServerSettings | FileSettings,
    conditions: Sequence[ConditionRecord],
) -> EvaluationRecord:
    harm, preference = chosen.judges.harm, chosen.preference_judge
    instructions = chosen.instructions
    return EvaluationRecord(
        answerer=answerer,
        conditions=tuple(conditions),
        sets=tuple(SetRecord.of(test_set.queries) for test_set in chosen.sets),
        instructions=None if instructions is None else SetRecord.of(instructions.queries),
        judge=JudgeRecord.of(chosen.judges.refusal),
        harm_judge=None if harm is None else JudgeRecord.of(harm),
        preference_judge=None if preference is None else JudgeRecord.of(preference),
        settings=chosen.settings,
        source=source,
        objects=chosen.objects,
    )
