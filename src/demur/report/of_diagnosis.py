"""What a report shows of a diagnosis."""

from __future__ import annotations

from pathlib import Path

from demur.diagnosis import Diagnosis, Headroom, Sheet
from demur.evaluation.captions import p_value_text
from demur.geometry import Separation
from demur.records import left_out_remarks
from demur.report.again import diagnosis_again
from demur.report.collecting import Collection
from demur.report.facts import (
    facts_of_answerer,
    facts_of_conditions,
    facts_of_options,
    facts_of_settings,
    facts_of_versions,
)
from demur.report.of_run import HELD_OUT
from demur.report.scatter import Scatter
from demur.report.subject import Arrow, Chart, Subject, Table, capitalized, rate_text

ANCHORS = "anchors"
USES = {
    HELD_OUT: "Held-out queries: nothing but measurements reads them.",
    ANCHORS: "Anchor queries: the boundaries are fitted to them.",
}


def subject_of_diagnosis(diagnosis: Diagnosis, *, full: bool = False) -> Subject:
    """What is shown of a finished diagnosis.

    Args:
        diagnosis: the diagnosis.
        full: whether responses that may do harm are in it, folded.

    Raises:
        DemurError: a measurement is missing or damaged.
    """
    record, sheet = diagnosis.settings, diagnosis.sheet
    anchors, held_out = diagnosis.anchors(), diagnosis.held_out()
    collection = Collection(full)
    for measurement in held_out:
        collection.add(HELD_OUT, measurement)
    for measurement in anchors:
        collection.add(ANCHORS, measurement)
    responses, shortened = collection.shortened()
    scatter = Scatter(anchors, record.settings.numbers.folds, record.settings.seed, collection)
    to_each = [Arrow(0, place) for place in range(1, len(anchors))]
    views = [scatter.view("Anchor queries", ANCHORS, anchors, to_each)]
    if held_out:
        moved = [Arrow(0, 1, dashed=True), Arrow(1, 2)]
        views.append(scatter.view("Held-out queries", HELD_OUT, held_out, moved))
    return Subject(
        kind="diagnosis",
        title=f"{Path(record.model.name).name}, diagnosed",
        verdict=diagnosis.verdict,
        tables=_tables(sheet, diagnosis.judged),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        again=diagnosis_again(record),
        left_out=collection.left_out,
        shortened=shortened,
        views=views,
        frame=scatter.frame,
        unplaced=left_out_remarks(anchors, held_out),
        charts=_charts(sheet),
        compared=(1, 2) if held_out else (0, 1) if len(collection.conditions) > 1 else None,
        uses=USES if held_out else {ANCHORS: USES[ANCHORS]},
        charts_title="Layer by layer: AUC, cross-validated; 0.5 is chance",
        facts={
            **facts_of_answerer(record.model),
            **facts_of_options(diagnosis.changed_options),
            **facts_of_conditions(record.conditions, record.conditions[0].system_prompt),
            **facts_of_settings(record.settings),
            **facts_of_versions(diagnosis.versions),
        },
    )


def _tables(sheet: Sheet, judged: str) -> tuple[Table, ...]:
    tables = [_conditions(sheet, judged), _movements(sheet)]
    if sheet.angles:
        tables.append(_angles(sheet))
    if sheet.misplaced:
        tables.append(_misplaced(sheet))
    if sheet.headroom is not None:
        tables.append(_headroom(sheet.headroom))
    return tuple(tables)


def _conditions(sheet: Sheet, judged: str) -> Table:
    return Table(
        title="Anchor queries: do harmful and harmless part, and are they refused?",
        columns=("prompt", "AUC", "accuracy", "refusal AUC", "harmful refused", "harmless refused"),
        rows=tuple(
            (
                one.condition,
                _score(one.harmfulness),
                "too few" if one.accuracy is None else rate_text(one.accuracy),
                _score(one.refusal),
                rate_text(one.harmful_refused),
                rate_text(one.harmless_refused),
            )
            for one in sheet.conditions
        ),
        note="AUC and accuracy: how well a linear boundary parts harmful from harmless queries "
        "that it was not fitted to. Refusal AUC: the same for refused and answered. In brackets: "
        f"95 % intervals. {capitalized(judged)}. Variance along the components: "
        + ", ".join(f"{100 * share:.0f} %" for share in sheet.explained_variance)
        + ".",
    )


def _movements(sheet: Sheet) -> Table:
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
                f"{one.queries}, {one.label}",
                one.before,
                one.after,
                f"{one.moved.refusal:+.2f} ± {one.moved.refusal_error:.2f}",
                f"{one.moved.along_refusal:+.2f}",
                f"{one.moved.along_refusal_whole:+.2f}",
                f"{one.moved.length:.1f}",
                f"{round(100 * one.refused_change):+d} points (p {p_value_text(one.p_value)})",
            )
            for one in sheet.movements
        ),
        note="Logits: mean change of the refusal logit, with its standard error. Cosine: of the "
        "mean movement with the refusal direction, among the components and in the whole space.",
        words=("from", "to"),
    )


def _angles(sheet: Sheet) -> Table:
    return Table(
        title="Do prompts move the queries the same way?",
        columns=("one movement", "the other", "cosine"),
        rows=tuple(
            (
                f"{one.first}, {one.first_label}",
                f"{one.second}, {one.second_label}",
                f"{one.cosine:+.2f}",
            )
            for one in sheet.angles
        ),
        words=("the other",),
    )


def _misplaced(sheet: Sheet) -> Table:
    names = [one.condition for one in sheet.conditions]
    return Table(
        title="Anchor queries deepest on the wrong side of the harmfulness boundary",
        columns=("query", "is", "logits", *(f"refused, {name}" for name in names)),
        rows=tuple(
            (
                one.query,
                one.label,
                f"{one.depth:.2f}",
                *(f"{100 * rate:.0f} %" for rate in one.refused),
            )
            for one in sheet.misplaced
        ),
        note="Without a prompt. Logits: how deep.",
        words=("is",),
    )


def _headroom(found: Headroom) -> Table:
    queries = "held-out" if found.queries == "held-out" else "anchor"
    read = "the representation" if found.layer is None else f"layer {found.layer}"
    wrong = {"harmful": "harmful answered"}
    kinds = [wrong.get(one.kind, f"{one.kind} refused") for one in found.mistakes]
    states = (
        "the states",
        f"{found.auc:.2f}",
        rate_text(found.found_at_2),
        rate_text(found.found_at_5),
        *(rate_text(one.wrong) for one in found.mistakes),
        "",
    )
    prompts = (
        (
            one.condition,
            f"{one.auc:.2f}",
            "",
            "",
            *(rate_text(each.wrong) for each in one.mistakes),
            f"{rate_text(one.states_find)} (p {p_value_text(one.p_value)})",
        )
        for one in found.conditions
    )
    return Table(
        title=f"Headroom: what the states tell of the {queries} queries, and what prompts refuse",
        columns=("told by", "AUC", "found at 2 %", "found at 5 %", *kinds, "the states find"),
        rows=(states, *prompts),
        note=f"The states: a linear probe on {read} without a prompt, fitted to {found.fitted} "
        f"other queries (AUC {found.fitted_auc:.2f} on those, cross-validated). A query that it "
        "takes for harmful counts as refused. Found at 2 %: harmful queries above the threshold "
        "that 2 % of the harmless ones pass. The states find: harmful queries, where as many "
        "harmless ones pass as the prompt refuses; p: whether that differs from what the prompt "
        "refuses by more than chance.",
    )


def _charts(sheet: Sheet) -> tuple[Chart, ...]:
    if not sheet.layers:
        return ()
    charts = []
    for place, one in enumerate(sheet.conditions):
        values = tuple(layer.harmfulness[place] for layer in sheet.layers)
        charts.append(_chart(f"harmful? {one.condition}", values))
    refusal = tuple(layer.refusal for layer in sheet.layers)
    charts.append(_chart("refused? all prompts", refusal))
    return tuple(chart for chart in charts if any(value is not None for value in chart.values))


def _chart(title: str, values: tuple[float | None, ...]) -> Chart:
    return Chart(title, values, "layer", bounds=(0.4, 1.0), baseline=0.5)


def _score(found: Separation | None) -> str:
    return "too few" if found is None else f"{found.auc:.2f}"
