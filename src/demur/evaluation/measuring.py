"""Measure queries under a condition: representations, sampled responses, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demur.bars import default_progress
from demur.evaluation.answerers.protocol import Question, Task
from demur.evaluation.changed_options import copy_changes, keep_changes
from demur.evaluation.judging import Judges
from demur.evaluation.protocol import Protocol
from demur.judges.protocol import Judge, settling
from demur.progress import Progress
from demur.prompts import Condition
from demur.records import (
    REASONING,
    Measurement,
    MeasurementHeader,
    MeasurementKey,
    MeasurementStore,
    Queries,
    StoredMeasurement,
)

if TYPE_CHECKING:
    from demur.chat import ChatModel


def measure(
    model: ChatModel,
    queries: Queries,
    condition: Condition,
    protocol: Protocol,
    judge: Judge,
    store: MeasurementStore,
    *,
    name: str | None = None,
    harm_judge: Judge | None = None,
    lenders: Sequence[Path] = (),
    progress: Progress | None = None,
    description: str = "Reading queries",
) -> Measurement:
    """Measure queries under one condition, or read the measurement where there is one.

    A measurement that was interrupted goes on after the last batch that was stored.

    Args:
        model: model whose representations and responses are wanted.
        queries: N queries.
        condition: what stands before them.
        protocol: how responses are sampled.
        judge: judge of refusal.
        store: where the measurement lies, or will lie.
        name: name of the condition, for people; by default the safety prompt's own.
        harm_judge: judge of harm, or None.
        lenders: folders of runs, evaluations and diagnoses, one of which may have the very same
            measurement; it is then copied.
        progress: receives a stage, and a message where the measurement is copied.
        description: what the stage is called.

    Raises:
        DemurError: a stored file is damaged, a query is too long, or a judge fails.
    """
    from demur.evaluation.answerers.model import ModelTask

    progress = progress or default_progress()
    task = ModelTask(
        model, Question(condition, name or condition.name, queries, protocol), description
    )
    key = key_of(task, protocol.fingerprint(judge, harm_judge))
    borrow(task, key, store, lenders, progress)
    stored = complete(task, key, Judges(judge, harm_judge), store, progress)
    return replace(stored.measurement(queries), condition=task.condition)


def key_of(task: Task, protocol: str) -> MeasurementKey:
    """The identity of the measurement that a task's answers belong into.

    Args:
        task: what is answered.
        protocol: fingerprint of the protocol with its judges.
    """
    identity = task.identity
    return MeasurementKey(identity.condition, identity.queries, identity.model, protocol)


def borrow(
    task: Task,
    key: MeasurementKey,
    store: MeasurementStore,
    lenders: Sequence[Path],
    progress: Progress,
) -> None:
    """Copy a measurement from another folder, where one has the very same and it is not here.

    Args:
        task: what is answered.
        key: identity of the measurement.
        store: where the measurement will lie.
        lenders: folders of runs, evaluations and diagnoses.
        progress: receives a message where it is copied.
    """
    if not lenders:
        return
    name = task.condition.name
    lender = store.borrow(key, lenders, name, task.set)
    if lender is None:
        return
    copy_changes(store, MeasurementStore(lender))
    progress.message(
        f"{task.set} under {name} was measured in {lender} already: taking it from there."
    )


def complete(
    task: Task,
    key: MeasurementKey,
    judges: Judges,
    store: MeasurementStore,
    progress: Progress,
) -> StoredMeasurement:
    """Answer and judge what a measurement lacks, appending batch by batch.

    An interruption costs one batch of answers at most.

    Returns:
        The finished measurement.

    Raises:
        DemurError: a stored file is damaged, or answering or judging fails.
    """
    stored = store.stored(key)
    begun = stored.read()
    if begun and stored.finished:
        return stored
    judge = settling(judges.refusal)
    reasoning = 0
    with progress.stage(task.description, task.total, task.unit) as stage:
        for batch in task.batches(
            stored.items if begun else 0,
            judges.most_at_once,
            None if judge is None else judge.is_settled,
            stage,
        ):
            judged = judges.judged(batch.answers, progress)
            reasoning += sum(one.end == REASONING for one in judged)
            if not begun:
                stored.begin(
                    MeasurementHeader(key, task.condition, task.set, task.per_query, task.width)
                )
                begun = True
            keep_changes(store, (task, judges.refusal, judges.harm))
            stored.append(judged, batch.items, batch.representations)
    stored.finish()
    if reasoning:
        said = (
            "1 response never left its reasoning and holds no answer; give it more tokens."
            if reasoning == 1
            else f"{reasoning} responses never left their reasoning and hold no answer; give them "
            "more tokens."
        )
        progress.message(f"{task.condition.name} on {task.set}: {said}")
    return stored
