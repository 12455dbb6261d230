"""What a report shows of a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.files import read_json
from demur.report.collecting import Collection, built_in_categories
from demur.report.scatter import frame_of, plane_of, view
from demur.report.subject import Chart, Subject, Table, flat_facts, rate_text
from demur.runs import RunFolder

DIAGNOSIS = "diagnosis.json"


def subject_of_diagnosis(folder: RunFolder) -> Subject:
    """Read a finished diagnosis.

    Raises:
        DemurError: a file is damaged.
        KeyError: one is incomplete.
    """
    settings, result = folder.settings(), read_json(folder.path / DIAGNOSIS)
    sheet = result["sheet"]
    names = ["none", *(prompt["name"] for prompt in settings["prompts"])]
    stored = [
        folder.stored_measurement(f"anchors-{place}-{name}") for place, name in enumerate(names)
    ]
    anchors = [measurement for measurement in stored if measurement is not None]
    held_out = [
        measurement
        for place in range(3)
        if (measurement := folder.stored_measurement(f"held-out-{place}")) is not None
    ]
    collection, categories = Collection(), built_in_categories()
    for measurement in held_out:
        collection.add("held-out", measurement, categories)
    for measurement in anchors:
        collection.add("anchors", measurement, categories)
    responses, shortened = collection.shortened()
    plane = plane_of(anchors, settings["folds"], settings["seed"])
    to_each = [(0, place, False) for place in range(1, len(anchors))]
    views = [view("Anchor queries", plane, anchors, collection.places("anchors"), to_each)]
    if len(held_out) == 3:
        arrows = [(0, 1, True), (1, 2, False)]
        views.append(
            view("Held-out queries", plane, held_out, collection.places("held-out"), arrows)
        )
    model = Path(str(settings["model"]["name"])).name
    return Subject(
        kind="diagnosis",
        title=f"{model}, diagnosed",
        verdict=tuple(result["verdict"]),
        tables=_tables(sheet),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        left_out=collection.left_out,
        shortened=shortened,
        views=views,
        frame=frame_of(plane, anchors),
        charts=_charts(sheet["layers"]),
        charts_title="Layer by layer: AUC, cross-validated; 0.5 is chance",
        facts=flat_facts(settings, result.get("versions", {})),
        command=_command(settings),
    )


def _command(settings: Mapping[str, Any]) -> str:
    if settings.get("run"):
        return f"demur diagnose --run demur-runs/{settings['run']}"
    prompts = " ".join(f"--prompt {prompt['name']}" for prompt in settings["prompts"])
    return (
        f"demur diagnose {settings['model']['name']} {prompts} "
        f"--preset {settings['preset']} --seed {settings['seed']}"
    )


def _tables(sheet: Mapping[str, Any]) -> tuple[Table, ...]:
    tables = [_conditions(sheet), _movements(sheet)]
    if sheet["angles"]:
        tables.append(_angles(sheet))
    if sheet["misplaced"]:
        tables.append(_misplaced(sheet))
    return tuple(tables)


def _conditions(sheet: Mapping[str, Any]) -> Table:
    return Table(
        title="Anchor queries: do harmful and harmless part, and are they refused?",
        columns=("prompt", "AUC", "accuracy", "refusal AUC", "harmful refused", "harmless refused"),
        rows=tuple(
            (
                one["condition"],
                _score(one["harmfulness"]),
                rate_text(one["accuracy"]),
                _score(one["refusal"]),
                rate_text(one["harmful_refused"]),
                rate_text(one["harmless_refused"]),
            )
            for one in sheet["conditions"]
        ),
        note="AUC and accuracy: how well a linear boundary parts harmful from harmless queries "
        "that it was not fitted to. Refusal AUC: the same for refused and answered. In brackets: "
        "95 % intervals. Variance along the components: "
        + ", ".join(f"{100 * share:.0f} %" for share in sheet["explained_variance"])
        + ".",
    )


def _movements(sheet: Mapping[str, Any]) -> Table:
    return Table(
        title="How prompts move the queries",
        columns=(
            "queries",
            "from",
            "to",
            "logits",
            "cosine",
            "in the whole space",
            "length",
            "refused",
        ),
        rows=tuple(
            (
                f"{one['queries']}, {one['label']}",
                one["before"],
                one["after"],
                f"{one['moved']['refusal']:+.2f} ± {one['moved']['refusal_error']:.2f}",
                f"{one['moved']['along_refusal']:+.2f}",
                f"{one['moved']['along_refusal_whole']:+.2f}",
                f"{one['moved']['length']:.1f}",
                f"{100 * one['refused_change']:+.0f} points (p {_p_value(one['p_value'])})",
            )
            for one in sheet["movements"]
        ),
        note="Logits: mean change of the refusal logit, with its standard error. Cosine: of the "
        "mean movement with the refusal direction, among the components and in the whole space.",
        words=("from", "to"),
    )


def _angles(sheet: Mapping[str, Any]) -> Table:
    return Table(
        title="Do prompts move the queries the same way?",
        columns=("one movement", "the other", "cosine"),
        rows=tuple(
            (
                f"{one['first']}, {one['first_label']}",
                f"{one['second']}, {one['second_label']}",
                f"{one['cosine']:+.2f}",
            )
            for one in sheet["angles"]
        ),
        words=("the other",),
    )


def _misplaced(sheet: Mapping[str, Any]) -> Table:
    names = list(sheet["misplaced"][0]["refused"])
    return Table(
        title="Anchor queries deepest on the wrong side of the harmfulness boundary",
        columns=("query", "is", "logits", *(f"refused, {name}" for name in names)),
        rows=tuple(
            (
                one["query"],
                one["label"],
                f"{one['depth']:.2f}",
                *(f"{100 * one['refused'][name]:.0f} %" for name in names),
            )
            for one in sheet["misplaced"]
        ),
        note="Without a prompt; logits: how deep.",
        words=("is",),
    )


def _charts(layers: list[Mapping[str, Any]]) -> tuple[Chart, ...]:
    if not layers:
        return ()
    charts = [
        Chart(
            f"harmful? {condition}",
            tuple(layer["harmfulness"].get(condition) for layer in layers),
            "layer",
            (0.4, 1.0),
            0.5,
        )
        for condition in layers[0]["harmfulness"]
    ]
    refusal = tuple(layer["refusal"] for layer in layers)
    if any(value is not None for value in refusal):
        charts.append(Chart("refused? all prompts", refusal, "layer", (0.4, 1.0), 0.5))
    return tuple(charts)


def _score(separation: Mapping[str, Any] | None) -> str:
    return "too few" if separation is None else f"{separation['auc']:.2f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
