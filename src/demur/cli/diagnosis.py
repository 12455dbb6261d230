"""A diagnosis as a person reads it: the statements first, then the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demur.cli.screen import (
    new_table,
    one_line,
    print_again,
    printable,
    short_name,
    show_command,
    with_notes,
)
from demur.cli.tables import rate_text
from demur.diagnosis import Diagnosis, Headroom, Sheet
from demur.evaluation.figures import SIGNIFICANCE
from demur.records import Rate
from demur.settings import options_of

_LONGEST_NAME = 24
_LONGEST_QUERY = 56
_LEAST_FOUND = 0.5  # share of the harmful queries, at 5 % false alarms
_BARS = "▁▂▃▄▅▆▇█"


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print what the numbers say, the numbers, and where the figures are."""
    sheet = diagnosis.sheet
    console.print()
    for statement in diagnosis.verdict:
        console.print(Text(printable(statement)))
    console.print()
    console.print(with_notes(_conditions(sheet), [diagnosis.judged]))
    console.print(_movements(sheet))
    if len(sheet.conditions) > 2:
        console.print(_angles(sheet))
    if sheet.layers:
        console.print(_layers(sheet))
    if sheet.misplaced:
        console.print(_misplaced(sheet))
    if sheet.headroom is not None:
        console.print(_headroom(sheet.headroom))
    shares = ", ".join(f"{100 * share:.0f} %" for share in sheet.explained_variance)
    console.print(f"Variance along the principal components: {shares}")
    for changed in diagnosis.changed_options:
        console.print(Text(printable(str(changed))))
    print_again(console, diagnosis.path, "The numbers, the figures and the responses")
    _print_next(console, diagnosis)


def _print_next(console: Console, diagnosis: Diagnosis) -> None:
    """Print what to do next, where the headroom says it: train a prompt, or take another model."""
    found, record = diagnosis.sheet.headroom, diagnosis.settings
    if found is None or record.settings.run is not None:
        return
    if found.found_at_5.value < _LEAST_FOUND:
        console.print(
            "\nNext: take a larger model. The states of this one tell only "
            f"{_percent(found.found_at_5)} of the harmful queries at 5 % false alarms, and a "
            "prompt seldom refuses more than that."
        )
    elif found.best.room > 0 and found.best.p_value < SIGNIFICANCE:
        console.print()
        show_command("Next, a training uses this room:", "optimize", options_of(record.load))


def _conditions(sheet: Sheet) -> Table:
    table = new_table("Anchor queries: do harmful and harmless part? Are they refused?")
    table.padding = (0, 1, 0, 0)  # so that names and rates fit into 80 columns
    table.add_column("prompt", overflow="fold")
    for name in ("AUC", "accuracy", "refusal\nAUC", "harmful refused", "harmless refused"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in sheet.conditions:
        table.add_row(
            _name(one.condition),
            f"{one.harmfulness.auc:.2f}" if one.harmfulness else "",
            "" if one.accuracy is None else _percent(one.accuracy),
            f"{one.refusal.auc:.2f}" if one.refusal else "too few",
            _rate(one.harmful_refused),
            _rate(one.harmless_refused),
        )
    return table


def _movements(sheet: Sheet) -> Table:
    table = new_table(
        "Movements along the refusal direction",
        "logits: mean change of the refusal logit, with its standard error; cosine: of the mean "
        "movement with the refusal direction among the components; refused: change in points",
    )
    table.add_column("queries", no_wrap=True)
    table.add_column("from, to", overflow="fold")
    table.add_column("logits", justify="right")
    table.add_column("cosine", justify="right")
    table.add_column("length", justify="right")
    table.add_column("refused", justify="right")
    for one in sheet.movements:
        table.add_row(
            f"{one.queries}, {one.label}",
            Text(f"{_short(one.before)}, {_short(one.after)}"),
            f"{one.moved.refusal:+.2f} ± {one.moved.refusal_error:.2f}",
            f"{one.moved.along_refusal:+.2f}",
            f"{one.moved.length:.1f}",
            f"{round(100 * one.refused_change):+d}",
        )
    return table


def _angles(sheet: Sheet) -> Table:
    table = new_table("Cosines between movements: do prompts move the queries the same way?")
    for column in ("prompts", "queries"):
        table.add_column(column)
    table.add_column("cosine", justify="right")
    for one in sheet.angles:
        prompts = one.first if one.first == one.second else f"{one.first}, {one.second}"
        labels = (
            one.first_label if one.first != one.second else f"{one.first_label}, {one.second_label}"
        )
        table.add_row(Text(printable(prompts)), labels, f"{one.cosine:+.2f}")
    return table


def _layers(sheet: Sheet) -> Table:
    table = new_table(f"AUC by layer, 1 to {len(sheet.layers)} (a bar from 0.5 to 1)")
    table.add_column("what")
    table.add_column("layers", no_wrap=True)
    table.add_column("best", justify="right")
    table.add_column("at layer", justify="right")
    for place, one in enumerate(sheet.conditions):
        scores = [layer.harmfulness[place] for layer in sheet.layers]
        _layer_row(table, f"harmful, harmless: {_short(one.condition)}", scores)
    _layer_row(table, "refused, answered: all", [layer.refusal for layer in sheet.layers])
    return table


def _layer_row(table: Table, what: str, scores: Sequence[float | None]) -> None:
    """Add a row, unless no layer has a score."""
    known = [score for score in scores if score is not None]
    if known:
        best = max(known)
        table.add_row(
            Text(what),
            "".join(map(_bar, scores)),
            f"{best:.2f}",
            str(scores.index(best) + 1),
        )


def _bar(score: float | None) -> str:
    return " " if score is None else _BARS[max(0, min(7, round(14 * (score - 0.5))))]


def _misplaced(sheet: Sheet) -> Table:
    table = new_table("Deepest on the wrong side of the harmfulness boundary, without a prompt")
    table.add_column("is")
    table.add_column("query", overflow="fold")
    table.add_column("logits", justify="right")
    for one in sheet.misplaced:
        table.add_row(one.label, Text(one_line(one.query, _LONGEST_QUERY)), f"{one.depth:.2f}")
    return table


def _headroom(found: Headroom) -> Table:
    place = "" if found.layer is None else f" (layer {found.layer})"
    queries = "held-out" if found.queries == "held-out" else "anchor"
    table = new_table(
        f"Headroom: what the states tell of the {queries} queries, and what prompts refuse",
        f"states: a linear probe without a prompt{place}, fitted to {found.fitted} other queries; "
        "2 %, 5 %: harmful queries found where so many harmless ones are taken for harmful; "
        "wrong: harmful ones missed or answered, harmless ones taken for harmful or refused; "
        "states find: harmful ones, at as many false alarms as the prompt has",
    )
    table.padding = (0, 1, 0, 0)  # so that names fit into 80 columns
    table.add_column("", overflow="fold")
    kinds = [f"{one.kind}\nwrong" for one in found.mistakes]
    for name in ("AUC", "2 %", "5 %", *kinds, "states\nfind"):
        table.add_column(name, justify="right", no_wrap=True)
    at = [_percent(found.found_at_2), _percent(found.found_at_5)]
    wrong = [_percent(one.wrong) for one in found.mistakes]
    table.add_row("states", f"{found.auc:.2f}", *at, *wrong, "")
    for one in found.conditions:
        wrong = [_percent(each.wrong) for each in one.mistakes]
        find = _percent(one.states_find)
        table.add_row(_name(one.condition), f"{one.auc:.2f}", "", "", *wrong, find)
    return table


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.0f} %"


def _name(text: str) -> Text:
    return Text(_short(text))


def _short(text: str) -> str:
    return short_name(text, _LONGEST_NAME)


def _rate(rate: Rate | None) -> str:
    return "" if rate is None else rate_text(rate, digits=0)
