"""What a report shows of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demur.diagnosis.movement import anchors_of
from demur.diagnosis.settings import FOLDS
from demur.errors import DemurError
from demur.evaluation.captions import IN_THIRD_TURN, THIRD_TURN, deflected_notes
from demur.evaluation.comparison import Comparison
from demur.evaluation.figures import PromptRates
from demur.optimization import Run
from demur.optimization.candidates import (
    CANDIDATES,
    CHOSEN_BY,
    COLUMNS,
    candidates_of,
    notes_on_candidates,
)
from demur.records import Label, Measurement, left_out_remarks
from demur.report.again import run_again
from demur.report.collecting import Collection
from demur.report.facts import (
    facts_of_answerer,
    facts_of_conditions,
    facts_of_options,
    facts_of_settings,
    facts_of_versions,
)
from demur.report.of_costs import answers_tables
from demur.report.scatter import Scatter
from demur.report.steps import steps_of_run
from demur.report.subject import (
    Arrow,
    Chart,
    Frame,
    Subject,
    Table,
    View,
    capitalized,
    dots_of,
    rate_text,
)

HELD_OUT, TRAINING = "held-out", "training"
USES = {
    HELD_OUT: "Held-out queries: nothing but this measurement reads them.",
    TRAINING: "Training queries: the prompt was trained on them.",
}
LABELS: tuple[Label, Label] = ("harmful", "harmless")


def subject_of_run(run: Run, *, full: bool = False) -> Subject:
    """What is shown of a finished run.

    Args:
        run: the run.
        full: whether responses that may do harm are in it, folded.

    Raises:
        DemurError: a measurement is missing or damaged.
    """
    record = run.settings
    held_out, anchors = tuple(run.held_out()), anchors_of(run)
    collection = Collection(full)
    chosen = record.settings.queries
    for measurement in held_out:
        collection.add(HELD_OUT, measurement, _sets(run), by_set=True)
    for measurement in anchors:
        names: dict[Label, tuple[str, ...]] = {
            "harmful": chosen.harmful,
            "harmless": chosen.harmless,
        }
        collection.add(TRAINING, measurement, names)
    responses, shortened = collection.shortened()
    views, frame, unplaced = _views(run, collection, held_out, anchors)
    verdict = run.verdict
    return Subject(
        kind="run",
        dots=dots_of(_charted(run)),
        title=f"{Path(record.model.name).name}, optimized from {record.basic_prompt.name}",
        verdict=(
            verdict.sentence,
            *filter(None, [run.remark]),
            *([f"Next: {verdict.advice}"] if verdict.advice else []),
        ),
        outcome=verdict.kind,
        tables=(
            *_tables(run),
            *answers_tables(run.comparison.costs, _harmless(run)),
            *_candidates(run),
        ),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        again=run_again(record),
        left_out=collection.left_out,
        shortened=shortened,
        views=views,
        frame=frame,
        unplaced=unplaced,
        charts=_charts(run),
        charts_title="Training: the mean of each loss, epoch by epoch",
        compared=(1, 2),  # the held-out queries were added first, under none, basic and optimized
        uses=USES if anchors else {},
        steps=steps_of_run(run),
        facts={
            "method": record.method.title,
            **facts_of_conditions((record.basic_prompt,), record.basic_prompt.system_prompt),
            **facts_of_settings(record.settings, record.settings.method_settings.model_extra),
            **facts_of_answerer(record.model),
            **facts_of_options(run.comparison.changed_options),
            **facts_of_versions(run.versions),
        },
    )


def _sets(run: Run) -> dict[Label, tuple[str, ...]]:
    """The names of the held-out sets of each label."""
    chosen = run.settings.settings.queries
    return {"harmful": chosen.held_out_harmful, "harmless": chosen.held_out_harmless}


def _harmless(run: Run) -> str:
    """The name of the held-out harmless queries."""
    return "+".join(_sets(run)["harmless"])


def _charted(run: Run) -> list[tuple[str, PromptRates]]:
    """The rates of the chart: of each held-out set by itself where there are several of a label."""
    found: list[tuple[str, PromptRates]] = []
    for label, names in _sets(run).items():
        rates = [one for one in run.comparison.rates if one.label == label]
        parts = [(str(one.category), one) for one in rates if one.category in names]
        if len(names) < 2 or not parts:
            parts = [(names[0] if names else one.set, one) for one in rates if not one.category]
        found += sorted(parts, key=lambda part: names.index(part[0]) if part[0] in names else 0)
    return found


def _views(
    run: Run,
    collection: Collection,
    held_out: tuple[Measurement, ...],
    anchors: tuple[Measurement, ...],
) -> tuple[list[View], Frame | None, tuple[str, ...]]:
    try:
        _, basic, optimized = held_out
        seed = run.settings.settings.seed
        scatter = Scatter(anchors or held_out, FOLDS, seed, collection, (basic, optimized))
        moved = [Arrow(0, 1, dashed=True), Arrow(1, 2)]
        views = [scatter.view("Held-out queries", HELD_OUT, held_out, moved)]
        if anchors:
            to_each = [Arrow(0, place) for place in range(1, len(anchors))]
            views.append(scatter.view("Training queries", TRAINING, anchors, to_each))
        unplaced = (*filter(None, [scatter.remark]), *left_out_remarks(held_out, anchors))
    except DemurError as error:  # too few verdicts, or the same representation of every query
        return [], None, (f"They cannot be drawn. {error}",)
    start = next((one for one in anchors if _is_start(run, one)), None)
    steps = () if start is None else run.steps()
    if start is not None and steps:
        views.append(scatter.training(TRAINING, start, steps))
    return views, scatter.frame, unplaced


def _is_start(run: Run, measurement: Measurement) -> bool:
    """Whether these are the queries that the prompt was trained on, under the basic prompt."""
    key, record = measurement.key, run.settings
    return (key.condition, key.queries) == (
        record.basic_prompt.fingerprint,
        record.anchors.fingerprint,
    )


def _tables(run: Run) -> tuple[Table, ...]:
    """The rates in the first turn, and in the third where they were measured."""
    in_words = [cost.in_words for cost in run.comparison.costs if cost.prompt == run.names[-1]]
    notes = [
        "More harmful and fewer harmless queries refused is better",
        "In brackets: 95 % intervals",
        capitalized(run.judged),
    ]
    besides = _deflected(run, run.comparison)
    first = _table(
        run, run.comparison, "Refused on held-out queries", [*notes, *in_words, *besides]
    )
    if run.third_turn is None:
        return (first,)
    besides = _deflected(run, run.third_turn)
    return first, _table(
        run, run.third_turn, THIRD_TURN, [capitalized(IN_THIRD_TURN), *notes[1:], *besides]
    )


def _candidates(run: Run) -> tuple[Table, ...]:
    """The prompts to choose from, from careful to strict; none where no refusals are scored."""
    rows = tuple(one.cells for one in candidates_of(run))
    if not rows:
        return ()
    notes = map(capitalized, notes_on_candidates(run.settings.settings.training.benign_budget))
    return (Table(CANDIDATES, COLUMNS, rows, ". ".join(notes) + ".", (CHOSEN_BY,)),)


def _deflected(run: Run, comparison: Comparison) -> list[str]:
    rates = [comparison.find(name, label=label) for name in run.names for label in LABELS]
    return [capitalized(note) for note in deflected_notes(rates)]


def _table(run: Run, comparison: Comparison, title: str, notes: Sequence[str]) -> Table:
    basic = run.names[1]
    costs = {cost.condition: cost for cost in comparison.costs}
    shown = {basic: f"{basic} (basic)"}

    def row(name: str) -> tuple[str, ...]:
        harmful, harmless = (comparison.find(name, label=label) for label in LABELS)
        cells = (shown.get(name, name), rate_text(harmful.refused), rate_text(harmless.refused))
        if not costs:
            return cells
        cost = costs.get(harmful.condition or "")
        nats = "" if cost is None else f"{cost.divergence:.2f}"
        return (*cells, nats, "" if cost is None else rate_text(cost.changed))

    return Table(
        title=title,
        columns=(
            *("prompt", "harmful queries", "harmless queries"),
            *(("KL cost (nats)", "first word changed") if costs else ()),
        ),
        rows=tuple(row(name) for name in run.names),
        note=". ".join(notes) + ".",
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
