"""Diagnose a model: read the anchors under every condition, compute the numbers, draw them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path

from demur.arguments import require_common, require_kind, require_several
from demur.bars import default_progress
from demur.chat import ChatModel
from demur.chat.chosen import require_model
from demur.diagnosis.diagnosis import (
    BESIDE,
    DIRECTIONS,
    FIGURES,
    KIND,
    Diagnosis,
    DiagnosisRecord,
    DiagnosisResults,
)
from demur.diagnosis.figures import draw_figures
from demur.diagnosis.layer_readings import LAYERS, READING_LAYERS, read_layers
from demur.diagnosis.plan import Given, Plan, PromptChoice, make_plan
from demur.diagnosis.plane import make_plane
from demur.diagnosis.probing import FITTING_THE_PROBE, measure_headroom
from demur.diagnosis.readings import Readings
from demur.diagnosis.settings import DiagnoseSettings, presets
from demur.diagnosis.sheet import Sheet, make_sheet
from demur.diagnosis.verdict import make_verdict
from demur.errors import DemurError, did_you_mean
from demur.evaluation.measuring import measure
from demur.files import safe_name
from demur.judges import JudgeSpec
from demur.optimization import Run
from demur.optimization.naming import DIAGNOSES, RUNS
from demur.optimization.preset_values import settled
from demur.optimization.settings import expanded
from demur.progress import Progress
from demur.queries.choosing import QueryChoice
from demur.records import (
    ListedFile,
    Measurement,
    WorkFolder,
    current_versions,
    folders_of_work,
    list_files,
    write_tensors,
)
from demur.settings import build

_READING = "Reading queries"
_COMPUTING, _DRAWING = "Computing the numbers", "Drawing the figures"
_MOST_NAME = 80


def diagnose(
    model: ChatModel,
    *,
    prompts: Sequence[PromptChoice] | None = None,
    harmful: QueryChoice | None = None,
    harmless: QueryChoice | None = None,
    system_prompt: str | Path | None = None,
    judge: JudgeSpec | None = None,
    probe_harmful: QueryChoice | None = None,
    probe_harmless: QueryChoice | None = None,
    preset: str = "standard",
    run: str | Path | Run | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
    **settings: object,
) -> Diagnosis:
    """See where a model places queries and how safety prompts move them (arXiv 2401.18018).

    Every measurement is kept in the folder, so the same call goes on where an earlier one stopped,
    and returns at once where it has finished. Measurements that a run or a diagnosis below
    `demur-runs` or `demur-diagnoses` has already are taken from there.

    Args:
        model: model to diagnose; its weights never change.
        prompts: safety prompts to look at beside no prompt; for each a name or path as
            `load_prompt` takes it, or a `SafetyPrompt`. Default: `long`, `short` and `plain`.
        harmful: harmful queries: name of a set, `QuerySet` or list of texts. Default: `anchors`.
        harmless: harmless queries, likewise.
        system_prompt: text file with the application's own system text. Default: none.
        judge: judge of refusal: a name, an object or a function. Default: `paper`.
        probe_harmful: harmful queries that a probe is fitted to, as `harmful`. It tells how well
            the model's states tell the queries apart. Default: `training`.
        probe_harmless: harmless queries, likewise. Default: `training`, half of them borderline.
        preset: `standard`, `quick` or `paper`, which say how responses are sampled.
        run: finished run, or its folder. Its queries, system prompt, judge and settings are used,
            and its optimized prompt is shown on the held-out queries.
        output: folder of the diagnosis. Default: one below `demur-diagnoses` with the name of the
            model or the run.
        progress: receives the stages and messages.
        **settings: other settings by name, for example `samples=4` or `seed=1`; see
            `DiagnoseSettings`.

    Returns:
        The diagnosis; `str()` gives its verdict.

    Raises:
        DemurError: something cannot be read, is out of its range, or does not fit the model.

    Example:
        `print(diagnose(ChatModel.load(), prompts=["long", "my.txt"]))`
    """
    require_model(model)
    require_common(output, progress, preset, system_prompt)
    require_several("prompts", prompts, "prompts, such as ['long']")
    require_kind("run", run, (str, Path, Run, type(None)), "a finished run or its folder")
    file = None if system_prompt is None else str(system_prompt)
    values = {"system_prompt": file, **settings}
    named = {name: value for name, value in values.items() if value is not None}
    if isinstance(run, str | Path):
        named["run"], run = str(run), None
    plan = make_plan(
        build(DiagnoseSettings, settled({"preset": preset, **expanded(named)}), _preset(preset)),
        Given(
            prompts,
            _as_text(harmful),
            _as_text(harmless),
            judge,
            run,
            _as_text(probe_harmful),
            _as_text(probe_harmless),
        ),
    )
    return carry_out(plan, model, output, progress)


def carry_out(
    plan: Plan,
    model: ChatModel,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Do what was planned; see `diagnose`.

    Args:
        plan: what is diagnosed.
        model: model to diagnose.
        output: folder of the diagnosis, or None for the default one.
        progress: receives the stages and messages.

    Raises:
        DemurError: something does not fit the model, or a stored file is damaged.
    """
    progress = progress or default_progress()
    plan.check(model)
    path = Path(output) if output is not None else default_output(model, plan)
    record = plan.record(model.record, model.settings)
    with WorkFolder.alone(path, record, KIND, progress) as folder:
        return _carried_out(plan, model, folder, progress)


def _carried_out(
    plan: Plan, model: ChatModel, folder: WorkFolder[DiagnosisRecord], progress: Progress
) -> Diagnosis:
    """Do what is missing in the folder of a diagnosis."""
    path = folder.path
    finished = _finished(folder)
    if finished is not None:
        progress.message(f"This diagnosis is finished already: showing {path}.")
        shutil.rmtree(path / LAYERS, ignore_errors=True)
        return finished if finished.has_all_files else _drawn_again(finished, progress)
    for remark in plan.anchors.remarks:
        progress.message(remark)
    fitting = [] if plan.fitting is None else [FITTING_THE_PROBE]
    progress.plan([_READING, READING_LAYERS, *fitting, _COMPUTING, _DRAWING])
    readings = _read(model, plan, folder, progress)
    headroom = measure_headroom(model, plan, readings, path, progress)
    with progress.stage(_COMPUTING, 1) as stage:
        sheet = make_sheet(readings, plan.settings.numbers.folds, headroom)
        stage.advance()
    results = DiagnosisResults(
        diagnosis=folder.settings.fingerprint,
        verdict=(*make_verdict(sheet), *readings.remarks),
        sheet=sheet,
        anchors=tuple(one.key for one in readings.anchors),
        versions=current_versions(),
        files=_draw(path, readings, sheet, plan.settings, progress),
    )
    diagnosis = Diagnosis(path, folder.settings, results)
    diagnosis.save()
    shutil.rmtree(path / LAYERS, ignore_errors=True)
    return diagnosis


def _drawn_again(found: Diagnosis, progress: Progress) -> Diagnosis:
    """A finished diagnosis whose figures are drawn again, from the numbers that it has."""
    settings, anchors = found.settings.settings, found.anchors()
    numbers = settings.numbers
    readings = Readings.of(
        anchors, numbers.components, numbers.folds, settings.seed, held_out=found.held_out()
    )
    files = _draw(found.path, readings, found.sheet, settings, progress)
    found = replace(found, results=replace(found.results, files=files))
    found.save()
    return found


def _draw(
    path: Path, readings: Readings, sheet: Sheet, settings: DiagnoseSettings, progress: Progress
) -> tuple[ListedFile, ...]:
    """Write the directions and the figures."""
    write_tensors(path / DIRECTIONS, readings.directions.tensors())
    with progress.stage(_DRAWING, 1) as stage:
        plane = make_plane(readings, settings.numbers.folds, settings.seed)
        draw_figures(path / FIGURES, plane, sheet)
        stage.advance()
    return list_files(path, BESIDE)


def _as_text(choice: QueryChoice | None) -> QueryChoice | None:
    """A path as the text that a command would have."""
    return fspath(choice) if isinstance(choice, PathLike) else choice


def default_output(model: ChatModel, plan: Plan) -> Path:
    """The folder of a diagnosis unless another one is chosen."""
    named = model.name if plan.run is None else str(plan.run.path.resolve())
    # Only the last part of a path, and nothing in it that leads elsewhere.
    return DIAGNOSES / (safe_name(Path(named).name)[:_MOST_NAME] or KIND)


def _preset(name: str) -> DiagnoseSettings:
    for preset, settings in presets().items():
        if preset == name:
            return settings
    raise DemurError(
        f"There is no preset {name!r:.60}{did_you_mean(name, presets())}: choose "
        f"{', '.join(presets())}."
    )


def _finished(folder: WorkFolder[DiagnosisRecord]) -> Diagnosis | None:
    """The diagnosis where its results and all its measurements are there and undamaged."""
    found = Diagnosis.find(folder)
    if found is None:
        return None
    keys = (*found.results.anchors, *folder.settings.held_out)
    return found if folder.measurements.has_all(keys) else None


def _read(
    model: ChatModel, plan: Plan, folder: WorkFolder[DiagnosisRecord], progress: Progress
) -> Readings:
    settings = plan.settings
    lenders = folders_of_work([RUNS, DIAGNOSES])
    if plan.run is not None:
        lenders.insert(0, plan.run.path)
    anchors = [
        measure(
            model,
            plan.anchors,
            condition,
            settings.protocol,
            plan.judge,
            folder.measurements,
            name=name,
            lenders=lenders,
            progress=progress,
            description=_READING,
        )
        for condition, name in zip(plan.conditions, plan.names, strict=True)
    ]
    layers = [
        read_layers(model, plan.anchors, condition, one.key, one.name, folder.path, progress)
        for condition, one in zip(plan.conditions, anchors, strict=True)
    ]
    known = [outputs for outputs in layers if outputs is not None]
    numbers = settings.numbers
    readings = Readings.of(
        anchors,
        numbers.components,
        numbers.folds,
        settings.seed,
        layers=known if len(known) == len(layers) else None,
        held_out=_held_out(plan.run, folder),
    )
    for remark in readings.remarks:
        progress.message(remark)
    return readings


def _held_out(run: Run | None, folder: WorkFolder[DiagnosisRecord]) -> tuple[Measurement, ...]:
    """The run's held-out queries, copied so that the folder has all that it shows."""
    if run is None:
        return ()
    found = tuple(run.held_out())
    for measurement in found:
        folder.measurements.borrow(
            measurement.key, [run.path], measurement.name, measurement.queries.name
        )
    return found
