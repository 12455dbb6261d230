"""What a report shows of a run."""

from __future__ import annotations

from pathlib import Path

from demur.diagnosis.movement import anchors_of
from demur.diagnosis.settings import FOLDS
from demur.errors import DemurError
from demur.evaluation.comparison import PromptRates
from demur.optimization import Run
from demur.records import Measurement
from demur.report.again import run_again
from demur.report.collecting import Collection
from demur.report.facts import (
    facts_of_answerer,
    facts_of_conditions,
    facts_of_options,
    facts_of_settings,
    facts_of_versions,
)
from demur.report.scatter import Scatter
from demur.report.subject import (
    Arrow,
    Chart,
    Frame,
    Subject,
    Table,
    View,
    capitalized,
    rate_text,
)
from demur.settings import command_line

HELD_OUT, ANCHORS = "held-out", "anchors"


def subject_of_run(run: Run) -> Subject:
    """What is shown of a finished run.

    Raises:
        DemurError: a measurement is missing or damaged.
    """
    record = run.settings
    held_out, anchors = tuple(run.held_out()), anchors_of(run)
    collection = Collection()
    for measurement in held_out:
        collection.add(HELD_OUT, measurement)
    for measurement in anchors:
        collection.add(ANCHORS, measurement)
    responses, shortened = collection.shortened()
    views, frame = _views(run, collection, held_out, anchors)
    verdict = run.verdict
    return Subject(
        kind="run",
        title=f"{Path(record.model.name).name}, optimized from {record.basic_prompt.name}",
        verdict=(verdict.sentence, f"Next: {verdict.advice or _export(run)}"),
        outcome=verdict.kind,
        tables=(_table(run),),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        again=run_again(record),
        left_out=collection.left_out,
        shortened=shortened,
        views=views,
        frame=frame,
        charts=_charts(run),
        charts_title="Training: the mean of each loss, epoch by epoch",
        facts={
            "method": record.method.title,
            **facts_of_conditions((record.basic_prompt,), record.basic_prompt.system_prompt),
            **facts_of_settings(record.settings, record.settings.method_settings.model_extra),
            **facts_of_answerer(record.model),
            **facts_of_options(run.comparison.changed_options),
            **facts_of_versions(run.versions),
        },
    )


def _views(
    run: Run,
    collection: Collection,
    held_out: tuple[Measurement, ...],
    anchors: tuple[Measurement, ...],
) -> tuple[list[View], Frame | None]:
    try:
        scatter = Scatter(anchors or held_out, FOLDS, run.settings.settings.seed, collection)
        moved = [Arrow(0, 1, dashed=True), Arrow(1, 2)]
        views = [scatter.view("Held-out queries", HELD_OUT, held_out, moved)]
        if anchors:
            to_each = [Arrow(0, place) for place in range(1, len(anchors))]
            views.append(scatter.view("Anchor queries", ANCHORS, anchors, to_each))
    except DemurError:  # a query without any verdict has no place in the plane
        return [], None
    start = next((one for one in anchors if _is_start(run, one)), None)
    steps = () if start is None else run.steps()
    if start is not None and steps:
        views.append(scatter.training(ANCHORS, start, steps))
    return views, scatter.frame


def _is_start(run: Run, measurement: Measurement) -> bool:
    """Whether these are the queries that the prompt was trained on, under the basic prompt."""
    key, record = measurement.key, run.settings
    return (key.condition, key.queries) == (
        record.basic_prompt.fingerprint,
        record.anchors.fingerprint,
    )


def _export(run: Run) -> str:
    return command_line("export", [str(run.path), "my-safe-model"])


def _table(run: Run) -> Table:
    none, basic, optimized = run.names
    shown = {none: none, basic: f"{basic} (basic)", optimized: optimized}
    costs = {cost.condition: cost for cost in run.comparison.costs}

    def row(name: str, harmful: PromptRates, harmless: PromptRates) -> tuple[str, ...]:
        cost = costs.get(harmful.condition or "")
        nats = "" if cost is None else f"{cost.divergence:.2f}"
        changed = "" if cost is None else rate_text(cost.changed)
        return shown[name], rate_text(harmful.refused), rate_text(harmless.refused), nats, changed

    in_words = [cost.in_words for cost in run.comparison.costs if cost.prompt == optimized]

    return Table(
        title="Refused on held-out queries",
        columns=(
            "prompt",
            "harmful queries",
            "harmless queries",
            "KL cost (nats)",
            "first word changed",
        ),
        rows=(
            row(none, run.none("harmful"), run.none("harmless")),
            row(basic, run.basic("harmful"), run.basic("harmless")),
            row(optimized, run.optimized("harmful"), run.optimized("harmless")),
        ),
        note=". ".join(
            [
                "More harmful and fewer harmless queries refused is better",
                "In brackets: 95 % intervals",
                capitalized(run.judged),
                *in_words,
            ]
        )
        + ".",
    )


def _charts(run: Run) -> tuple[Chart, ...]:
    """A chart for each term of the method's loss; for the loss itself where it has none."""
    history, terms = run.history, run.settings.method.terms
    if not terms:
        return (Chart("loss", tuple(epoch.loss for epoch in history), "epoch"),)
    charts = []
    for term in terms:
        title, _, note = term.description.partition(":")
        values = tuple(epoch.terms.get(term.name) for epoch in history)
        charts.append(Chart(title, values, "epoch", note=note.strip()))
    return tuple(charts)
