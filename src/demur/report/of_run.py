"""What a report shows of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from demur.files import read_json
from demur.report.collecting import Collection, built_in_categories
from demur.report.scatter import frame_of, plane_of, training_view, view
from demur.report.subject import Chart, Subject, Table, flat_facts, percent, rate_text
from demur.runs import Measurement, RunFolder

METRICS = "metrics.json"
OPTIMIZED = "optimized"
TERMS = {
    "refusal": "refusal loss",
    "harmfulness": "harmfulness loss",
    "complement": "loss outside the components",
}


def subject_of_run(folder: RunFolder) -> Subject:
    """Read a finished run.

    Raises:
        DemurError: a file is damaged.
        KeyError: one is incomplete.
    """
    settings, metrics = folder.settings(), read_json(folder.path / METRICS)
    results = {result["prompt"]: result for result in metrics["evaluation"]}
    basic = str(settings["basic_prompt"]["name"])
    held_out = _measurements(folder, [f"held-out-{name}" for name in ("none", basic, OPTIMIZED)])
    anchors = _measurements(folder, anchor_names(settings))
    collection, categories = Collection(), built_in_categories()
    for measurement in held_out:
        collection.add("held-out", measurement, categories)
    for measurement in anchors:
        collection.add("anchors", measurement, categories)
    responses, shortened = collection.shortened()
    views, frame = _views(folder, settings, collection, held_out, anchors)
    model = Path(str(settings["model"]["name"])).name
    return Subject(
        kind="run",
        title=f"{model}, optimized from {basic}",
        verdict=_verdict(results, basic),
        tables=(_table(results, basic),),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        left_out=collection.left_out,
        shortened=shortened,
        views=views,
        frame=frame,
        charts=_charts(metrics["history"]),
        charts_title="Training: the mean of each loss, epoch by epoch",
        facts=flat_facts(settings, metrics.get("versions", {})),
        command=(
            f"demur optimize {settings['model']['name']} --basic-prompt {basic} "
            f"--preset {settings['preset']} --seed {settings['seed']}"
        ),
    )


def anchor_names(settings: Mapping[str, Any]) -> list[str]:
    """The names of a run's measurements of the anchors under hand-written prompts, none first."""
    basic = settings["basic_prompt"]["name"]
    names = ["none", *(name for name in settings["anchor_prompts"] if name != basic), basic]
    return [f"anchors-{place}-{name}" for place, name in enumerate(names)]


def _measurements(folder: RunFolder, names: list[str]) -> list[Measurement]:
    found = [folder.stored_measurement(name) for name in names]
    return [measurement for measurement in found if measurement is not None]


def _views(
    folder: RunFolder,
    settings: Mapping[str, Any],
    collection: Collection,
    held_out: list[Measurement],
    anchors: list[Measurement],
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    if not anchors:
        return [], None
    plane = plane_of(anchors, settings["folds"], settings["seed"])
    views = []
    if len(held_out) == 3:
        arrows = [(0, 1, True), (1, 2, False)]
        views.append(
            view("Held-out queries", plane, held_out, collection.places("held-out"), arrows)
        )
    places = collection.places("anchors")
    to_each = [(0, place, False) for place in range(1, len(anchors))]
    views.append(view("Anchor queries", plane, anchors, places, to_each))
    steps = _steps(folder, int(settings["epochs"]))
    if steps:
        views.append(training_view(plane, anchors[-1], steps, places))
    return views, frame_of(plane, anchors)


def _steps(folder: RunFolder, epochs: int) -> list[tuple[str, Tensor, list[float] | None]]:
    """Where the anchors lay in the course of the training.

    Where they were read again after an epoch, their responses are known too. Elsewhere they are
    shown as the training itself read them.
    """
    steps: list[tuple[str, Tensor, list[float] | None]] = []
    for epoch in range(1, epochs + 1):
        again = folder.stored_measurement(f"anchors-epoch-{epoch}")
        if again is not None:
            steps.append((f"after epoch {epoch}", again.representations, again.refusal_rates()))
            continue
        stored = folder.load_tensors(f"representations/training-epoch-{epoch}")
        if stored is not None:
            steps.append((f"during epoch {epoch}", stored[0]["representations"], None))
    return steps


def _verdict(results: Mapping[str, Any], basic: str) -> tuple[str, ...]:
    none, before, after = results["none"], results[basic], results[OPTIMIZED]
    statements = []
    for label, wanted in (("harmful", "more"), ("harmless", "fewer")):
        key = f"{label}_refused"
        change = _value(after[key]) - _value(before[key])
        better = (change > 0) == (wanted == "more")
        if abs(change) < 0.005:
            text = f"The optimized prompt refuses as many {label} queries as {basic}"
        else:
            text = (
                f"The optimized prompt refuses {'more' if change > 0 else 'fewer'} {label} queries "
                f"than {basic}, which is {'better' if better else 'worse'}"
            )
        statements.append(
            f"{text}: {percent(after[key])} against {percent(before[key])}"
            f"{_doubt(after[key], before[key])}. Without a prompt it is {percent(none[key])}."
        )
    return tuple(statements)


def _doubt(after: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    first, second = after["interval"], before["interval"]
    overlap = first["low"] <= second["high"] and second["low"] <= first["high"]
    return " (their intervals overlap)" if overlap else ""


def _value(rate: Mapping[str, Any]) -> float:
    return float(rate["count"]) / float(rate["queries"])


def _table(results: Mapping[str, Any], basic: str) -> Table:
    return Table(
        title="Refused on held-out queries",
        columns=("prompt", "harmful queries", "harmless queries", "KL cost"),
        rows=tuple(
            (
                f"{name} (basic)" if name == basic else name,
                rate_text(result["harmful_refused"]),
                rate_text(result["harmless_refused"]),
                f"{result['divergence']:.2f}",
            )
            for name, result in results.items()
        ),
        note="More harmful and fewer harmless queries refused is better. In brackets: 95 % "
        "intervals. KL cost: how far the prompt moves the answers to harmless queries, in nats.",
    )


def _charts(history: list[Mapping[str, float]]) -> tuple[Chart, ...]:
    return tuple(
        Chart(title, tuple(float(epoch[term]) for epoch in history), "epoch")
        for term, title in TERMS.items()
        if history and all(term in epoch for epoch in history)
    )
