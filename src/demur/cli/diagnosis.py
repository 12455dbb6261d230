"""A diagnosis as a person reads it: the verdict first, then the numbers."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demur.cli.screen import print_report, printable
from demur.diagnosis import Diagnosis, Sheet
from demur.diagnosis.layers import LayerSeparation
from demur.evaluation.statistics import Rate

_LONGEST_NAME = 24
_LONGEST_QUERY = 60
_BARS = "▁▂▃▄▅▆▇█"


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """The verdict, the sheet of numbers, and where the figures lie."""
    sheet = diagnosis.sheet
    console.print()
    for statement in diagnosis.verdict:
        console.print(Text(printable(statement)))
    console.print()
    console.print(_conditions(sheet))
    console.print(_movements(sheet))
    if len(sheet.conditions) > 2:
        console.print(_angles(sheet))
    if sheet.layers:
        console.print(_layers(sheet.layers))
    if sheet.misplaced:
        console.print(_misplaced(sheet))
    shares = ", ".join(f"{100 * share:.0f} %" for share in sheet.explained_variance)
    console.print(f"Variance along the principal components: {shares}")
    console.print("The numbers, the figures and the responses are in")
    console.print(Text(str(diagnosis.path), style="bold"), soft_wrap=True)
    print_report(console, diagnosis.path)


def _conditions(sheet: Sheet) -> Table:
    table = _table("Anchor queries: do harmful and harmless part? Are they refused?")
    table.add_column("prompt")
    for name in ("AUC", "accuracy", "refusal AUC", "harmful refused", "harmless refused"):
        table.add_column(name, justify="right")
    for one in sheet.conditions:
        table.add_row(
            _name(one.condition),
            f"{one.harmfulness.auc:.2f}" if one.harmfulness else "",
            _rate(one.accuracy),
            f"{one.refusal.auc:.2f}" if one.refusal else "too few",
            _rate(one.harmful_refused),
            _rate(one.harmless_refused),
        )
    return table


def _movements(sheet: Sheet) -> Table:
    table = _table("Movements along the refusal direction")
    table.add_column("queries")
    table.add_column("from, to")
    table.add_column("logits", justify="right")
    table.add_column("cosine", justify="right")
    table.add_column("length", justify="right")
    table.add_column("refused", justify="right")
    table.caption = (
        "logits: mean change of the refusal logit, with its standard error; cosine: of the mean "
        "movement with the refusal direction among the components; refused: change in points"
    )
    table.caption_justify = "left"
    for one in sheet.movements:
        table.add_row(
            f"{one.queries}, {one.label}",
            Text(f"{_short(one.before)}, {_short(one.after)}"),
            f"{one.moved.refusal:+.2f} ± {one.moved.refusal_error:.2f}",
            f"{one.moved.along_refusal:+.2f}",
            f"{one.moved.length:.1f}",
            f"{100 * one.refused_change:+.0f}",
        )
    return table


def _angles(sheet: Sheet) -> Table:
    table = _table("Do different prompts move the queries the same way? Cosines of the movements")
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


def _layers(layers: tuple[LayerSeparation, ...]) -> Table:
    table = _table(f"AUC by layer, 1 to {len(layers)} (a bar from 0.5 to 1)")
    table.add_column("what")
    table.add_column("layers", no_wrap=True)
    table.add_column("best", justify="right")
    table.add_column("at layer", justify="right")
    for condition in layers[0].harmfulness:
        scores = [layer.harmfulness[condition] for layer in layers]
        _layer_row(table, f"harmful, harmless: {_short(condition)}", scores)
    refusal = [layer.refusal for layer in layers if layer.refusal is not None]
    if refusal:
        _layer_row(table, "refused, answered: all", refusal)
    return table


def _layer_row(table: Table, what: str, scores: list[float]) -> None:
    bars = "".join(_BARS[max(0, min(7, round(14 * (score - 0.5))))] for score in scores)
    best = max(scores)
    table.add_row(Text(what), bars, f"{best:.2f}", str(scores.index(best) + 1))


def _misplaced(sheet: Sheet) -> Table:
    table = _table("Deepest on the wrong side of the harmfulness boundary, without a prompt")
    table.add_column("is")
    table.add_column("query", overflow="fold")
    table.add_column("logits", justify="right")
    for one in sheet.misplaced:
        table.add_row(one.label, Text(_short(one.query, _LONGEST_QUERY)), f"{one.depth:.2f}")
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _name(text: str) -> Text:
    return Text(_short(text))


def _short(text: str, most: int = _LONGEST_NAME) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[:most]}..."


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return ""
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    return f"{100 * rate.value:.0f} % ({low:.0f} to {high:.0f})"
