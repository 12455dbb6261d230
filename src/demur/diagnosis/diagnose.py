"""Diagnose a model: read the anchors under every condition, compute the numbers, draw them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from demur.chat import ChatModel, Condition
from demur.diagnosis.choices import (
    Subject,
    choose_subject,
    require_model_of_run,
    subject_of_run,
)
from demur.diagnosis.diagnosis import RESULT, Diagnosis, current_versions
from demur.diagnosis.figures import draw_figures
from demur.diagnosis.plane import make_plane
from demur.diagnosis.readings import Readings, directions_of
from demur.diagnosis.sheet import make_sheet
from demur.diagnosis.verdict import make_verdict
from demur.errors import DemurError
from demur.evaluation.borrowing import borrow, measurement_name
from demur.evaluation.choices import PromptChoice
from demur.evaluation.measuring import measure
from demur.files import safe_name
from demur.judges import get_refusal_judge
from demur.optimization.pipeline import DIAGNOSES, RUNS
from demur.progress import Progress, SilentProgress
from demur.report import ensure_report
from demur.runs import Measurement, Queries, RunFolder

UNFINISHED = "unfinished"


def diagnose(
    model: ChatModel,
    *,
    prompts: Sequence[PromptChoice] | None = None,
    harmful: str = "anchors",
    harmless: str = "anchors",
    system_prompt: str | None = None,
    preset: str = "standard",
    run: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Diagnosis:
    """See where a model places queries and how safety prompts move them (arXiv 2401.18018).

    Every reading is kept in the folder: the same call goes on where an earlier one stopped, and
    returns at once where it has finished. Readings that a run of the same model and settings below
    `demur-runs` has already are taken from there.

    Args:
        model: its weights stay as they are.
        prompts: the safety prompts beside none, by default `long`, `short` and `plain`; for each a
            built-in name, a text file, the folder of a run or of a saved safety prompt,
            `organisation/name` on the hub, or a `SafetyPrompt`.
        harmful: the harmful anchor queries, as `load_query_set` takes them.
        harmless: the harmless ones.
        system_prompt: a text file with the application's own system text.
        preset: `quick`, `standard` or `paper`: how responses are sampled.
        run: the folder of a finished run, whose queries, system prompt and settings are then used
            and whose optimized prompt is shown on the held-out queries.
        output: the folder; by default one below `demur-diagnoses` named after the model or run.
        progress: hears of every stage.
        **settings: fields of `OptimizeSettings` that say how anchors are read.

    Raises:
        DemurError: something the user can mend; nothing is half-written.
    """
    progress = progress or SilentProgress()
    if run is None:
        subject = choose_subject(prompts, harmful, harmless, system_prompt, preset, settings)
    else:
        subject = subject_of_run(run, prompts)
    if subject.run is not None:
        require_model_of_run(model, subject.run)
    conditions = [Condition(prompt, subject.system_prompt) for prompt in (None, *subject.prompts)]
    _check_fit(model, subject, conditions)
    path = Path(output) if output is not None else default_output(model, subject)
    folder = RunFolder.start(path, subject.recorded(model))
    if (path / RESULT).exists():
        progress.message(f"This diagnosis is finished already: showing {path}.")
        ensure_report(path)
        return Diagnosis.load(path)

    readings = _read(model, subject, conditions, folder, progress)
    with progress.stage("Computing the numbers", 1) as stage:
        sheet = make_sheet(readings, subject.settings.folds)
        stage.advance()
    folder.save_tensors("directions", readings.directions.tensors())
    with progress.stage("Drawing the figures", 1) as stage:
        plane = make_plane(readings, subject.settings.folds, subject.settings.seed)
        draw_figures(path, plane, sheet.layers)
        stage.advance()
    diagnosis = Diagnosis(path, folder.settings(), make_verdict(sheet), sheet, current_versions())
    for place, measurement in enumerate(readings.held_out):
        folder.save_measurement(f"held-out-{place}", measurement)
    diagnosis.save()
    ensure_report(path)
    shutil.rmtree(path / UNFINISHED, ignore_errors=True)
    return diagnosis


def default_output(model: ChatModel, subject: Subject) -> Path:
    """Where a diagnosis lies unless told otherwise."""
    if subject.run is not None:
        return DIAGNOSES / safe_name(subject.run.path.resolve().name)
    return DIAGNOSES / safe_name(Path(model.name).name)


def _check_fit(model: ChatModel, subject: Subject, conditions: Sequence[Condition]) -> None:
    """Find what cannot be read before anything is.

    Raises:
        DemurError: a prompt was trained for another model, a conversation is too long, or there
            are more components than dimensions.
    """
    for condition in conditions:
        if condition.safety_prompt is not None:
            condition.safety_prompt.require_width(model.width)
        model.inputs(
            subject.anchors.texts, condition, subject.settings.protocol.sampling.most_tokens
        )
    most = min(len(subject.anchors) * len(conditions), model.width)
    if not 2 <= subject.settings.components < most:
        raise DemurError(
            f"--components {subject.settings.components} does not suit {model.name} and these "
            f"queries: give at least 2, for the figures, and less than {most}."
        )


def _read(
    model: ChatModel,
    subject: Subject,
    conditions: Sequence[Condition],
    folder: RunFolder,
    progress: Progress,
) -> Readings:
    settings = subject.settings
    lenders = [RUNS] if subject.run is None else [subject.run.path]
    anchors: list[Measurement] = []
    for place, condition in enumerate(conditions):
        name = measurement_name(place, condition.name)
        borrow(lenders, folder, name, condition, subject.anchors, progress)
        anchors.append(
            measure(
                model,
                subject.anchors,
                condition,
                settings.protocol,
                get_refusal_judge(settings.judge),
                progress,
                folder=folder,
                name=name,
                description="Reading the anchor queries",
            )
        )
    unfinished = RunFolder(folder.path / UNFINISHED)
    layers = [
        _read_layers(
            model,
            subject.anchors,
            condition,
            unfinished,
            measurement_name(place, condition.name),
            progress,
        )
        for place, condition in enumerate(conditions)
    ]
    known = [outputs for outputs in layers if outputs is not None]
    return Readings(
        anchors=tuple(anchors),
        directions=directions_of(anchors, settings.components, settings.folds, settings.seed),
        layers=tuple(known) if len(known) == len(layers) else None,
        held_out=subject.held_out,
    )


def _read_layers(
    model: ChatModel,
    queries: Queries,
    condition: Condition,
    unfinished: RunFolder,
    name: str,
    progress: Progress,
) -> Tensor | None:
    """Every layer's outputs; kept until the diagnosis is finished."""
    stored = unfinished.load_tensors(f"layers/{name}")
    if stored is not None:
        return stored[0]["layers"]
    with progress.stage(f"Reading every layer: {condition.name}", len(queries), "queries") as stage:
        outputs = model.represent_layers(queries.texts, condition, stage)
    if outputs is not None:
        unfinished.save_tensors(f"layers/{name}", {"layers": outputs})
    return outputs
