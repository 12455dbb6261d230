"""The main job, from a basic prompt to an optimized and measured one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demur.chat import ChatModel, Condition
from demur.chat.catalog import hub_model_of
from demur.evaluation.divergence import kl_divergence
from demur.evaluation.measuring import measure
from demur.evaluation.results import evaluate_measurements
from demur.files import safe_name
from demur.judges import get_refusal_judge
from demur.optimization.anchoring import Anchoring, read_anchors, read_anchors_again
from demur.optimization.dro import DirectedRepresentation
from demur.optimization.examples import telling_examples
from demur.optimization.run import METRICS, Run
from demur.optimization.settings import OptimizeSettings
from demur.optimization.training import TrainedPrompt, train_prompt
from demur.progress import Progress, SilentProgress
from demur.prompts import SafetyPrompt, load_basic_prompt, load_system_prompt
from demur.queries import load_query_set, require
from demur.report import ensure_report
from demur.runs import Measurement, Queries, RunFolder

RUNS = Path("demur-runs")
DIAGNOSES = Path("demur-diagnoses")
OPTIMIZED = "optimized"


def optimize(
    model: ChatModel,
    *,
    basic_prompt: str = "long",
    harmful: str = "anchors",
    harmless: str = "anchors",
    system_prompt: str | None = None,
    preset: str = "standard",
    output: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Optimize a safety prompt with DRO and measure it (arXiv 2401.18018).

    Every stage is kept in the run's folder: the same call goes on where an earlier one stopped, and
    returns at once where it has finished.

    Args:
        model: its weights stay as they are.
        basic_prompt: `long`, `short`, `plain`, a text file, or a text prompt on the hub; where the
            optimization starts.
        harmful: the harmful anchor queries: `anchors`, a text file, `file.csv:column`,
            `file.jsonl:column` or `hf:org/name:column`.
        harmless: the harmless ones.
        system_prompt: a text file with the application's own system text, which follows the safety
            prompt and is never trained.
        preset: `quick`, `standard` or `paper`.
        output: the run's folder; by default one below `demur-runs` named after model, prompt and
            preset.
        progress: hears of every stage.
        **settings: fields of `OptimizeSettings` that differ from the preset.

    Raises:
        DemurError: something the user can mend; nothing is half-written.
    """
    progress = progress or SilentProgress()
    chosen = OptimizeSettings.preset(preset, **settings)
    basic = load_basic_prompt(basic_prompt)
    judge = get_refusal_judge(chosen.judge)
    system = load_system_prompt(system_prompt) if system_prompt is not None else None
    anchors = _queries(harmful, harmless, chosen.most_anchors)
    held_out = _queries("held-out", "held-out", chosen.most_held_out)
    conditions = [
        Condition(None, system),
        *(
            Condition(load_basic_prompt(name), system)
            for name in chosen.anchor_prompts
            if name != basic.name
        ),
        Condition(basic, system),
    ]
    for condition in conditions:
        model.inputs(anchors.texts, condition, chosen.tokens_harmful)

    recorded = _recorded(model, basic, system, anchors, held_out, preset, chosen)
    path = Path(output) if output is not None else default_output(model, basic.name, preset)
    folder = RunFolder.start(path, recorded)
    if (folder.path / METRICS).exists():
        progress.message(f"This run is finished already: showing {folder.path}.")
        ensure_report(folder.path)
        return Run.load(folder.path)

    def measure_held_out(condition: Condition) -> Measurement:
        return measure(
            model,
            held_out,
            condition,
            chosen.protocol,
            judge,
            progress,
            folder=folder,
            name=f"held-out-{condition.name}",
            description="Measuring on held-out queries",
        )

    before = [measure_held_out(condition) for condition in (conditions[0], conditions[-1])]
    anchoring = read_anchors(
        model, anchors, conditions, chosen, progress, folder, lenders=[DIAGNOSES]
    )
    trained = _train(model, anchoring, conditions[-1], chosen, progress, folder)
    optimized = SafetyPrompt(OPTIMIZED, basic.text, trained.embeddings)
    after = measure_held_out(Condition(optimized, system))

    measurements = [*before, after]
    harmless_rows = held_out.rows(harmful=False)
    divergences = [
        kl_divergence(
            model,
            measurement.representations[harmless_rows],
            before[0].representations[harmless_rows],
        )
        for measurement in measurements
    ]
    evaluation = evaluate_measurements(measurements, divergences)
    run = Run(
        path=folder.path,
        settings=recorded,
        safety_prompt=SafetyPrompt(
            OPTIMIZED,
            basic.text,
            trained.embeddings,
            {
                "model": recorded["model"],
                "base_model": hub_model_of(model.name, model.identity),
                "settings": recorded,
                "results": evaluation.to_json(),
            },
        ),
        evaluation=evaluation,
        examples=telling_examples(before[-1], after),
        history=trained.history,
    )
    run.save(_versions())
    ensure_report(folder.path)
    return run


def _train(
    model: ChatModel,
    anchoring: Anchoring,
    condition: Condition,
    settings: OptimizeSettings,
    progress: Progress,
    folder: RunFolder,
) -> TrainedPrompt:
    """Train epoch by epoch, with the directions estimated anew as often as the settings ask."""
    anchors = anchoring.basic.queries
    every = settings.reanchor_every or settings.epochs
    for until in [*range(every, settings.epochs, every), settings.epochs]:
        objective = DirectedRepresentation(
            anchoring.directions,
            anchoring.basic.representations,
            anchors.labels(),
            settings.loss_weights,
            settings.weight_harmless,
        )
        trained = train_prompt(
            model, anchors, condition, objective, settings.training, progress, folder, until
        )
        if until < settings.epochs:
            text = condition.safety_prompt.text if condition.safety_prompt else None
            so_far = SafetyPrompt(f"epoch {until}", text, trained.last)
            anchoring = read_anchors_again(
                model,
                anchoring,
                Condition(so_far, condition.system_prompt),
                settings,
                progress,
                folder,
                until,
            )
    return trained


def default_output(model: ChatModel, prompt: str, preset: str) -> Path:
    """Where a run lies unless told otherwise."""
    return RUNS / safe_name(f"{Path(model.name).name}-{prompt}-{preset}")


def _queries(harmful: str, harmless: str, most: int | None) -> Queries:
    sets = [
        require(load_query_set(harmful, "harmful")),
        require(load_query_set(harmless, "harmless")),
    ]
    if most is not None:
        sets = [queries.head(most) for queries in sets]
    return Queries.of(*sets)


def _recorded(
    model: ChatModel,
    basic: SafetyPrompt,
    system: str | None,
    anchors: Queries,
    held_out: Queries,
    preset: str,
    settings: OptimizeSettings,
) -> Mapping[str, Any]:
    return {
        "model": {
            "name": model.name,
            "identity": model.identity,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "chat_template": model.renderer.fingerprint,
        },
        "basic_prompt": {"name": basic.name, "text": basic.text},
        "system_prompt": system,
        "anchors": anchors.fingerprint,
        "held_out": held_out.fingerprint,
        "preset": preset,
        **settings.model_dump(mode="json"),
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("demur", "torch", "transformers")}
