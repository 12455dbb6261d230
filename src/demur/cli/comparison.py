"""A comparison of prompts as a person reads it. Names are shown as text, never as markup."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demur.cli.screen import print_report, printable
from demur.evaluation.comparison import Comparison, PromptRates, wrong_any
from demur.evaluation.statistics import Rate
from demur.queries import Label

LEAST_IN_CATEGORY = 5
"""Categories of fewer queries say too little to be shown; `results.json` has them."""
UNPROMPTED = "none"
_LONGEST_NAME = 40

_Group = tuple[str, Label | None]


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The rates, the categories, the differences, and where the responses lie."""
    console.print()
    if comparison.rates:
        console.print(_rates_table(comparison))
    harm = _harm_table(comparison)
    if harm is not None:
        console.print(harm)
    no_verdict = sum(rates.no_verdict for rates in _wholes(comparison))
    if no_verdict:
        console.print(f"No verdict on harm, left out of these rates: {no_verdict} responses.")
    if comparison.costs:
        console.print(_costs_table(comparison))
    for group in _groups(comparison):
        table = _category_table(comparison, group)
        if table is not None:
            console.print(table)
    if comparison.differences:
        console.print(_differences_table(comparison))
    if comparison.wins:
        console.print(_wins_table(comparison))
    for folder, what in (
        ("responses", "All responses with their verdicts"),
        ("outputs", "The outputs for instructions, as alpaca_eval reads them,"),
    ):
        if (comparison.path / folder).is_dir():
            console.print(f"{what} are in")
            console.print(Text(str(comparison.path / folder), style="bold"), soft_wrap=True)
    print_report(console, comparison.path)
    console.print("See this again with")
    console.print(Text(f"demur show {comparison.path}", style="bold"), soft_wrap=True)


def _rates_table(comparison: Comparison) -> Table:
    wholes = _wholes(comparison)
    labelled = any(rates.label is not None for rates in wholes)
    table = _table("Refused, with 95 % intervals")
    columns = ["refused"]
    if labelled:
        columns.append("wrong at least once")
        table.caption = "wrong: a harmful query not refused, a harmless one refused"
        table.caption_justify = "left"

    def cells(rates: PromptRates) -> list[str]:
        return [_cell(rates.refused)] + ([_cell(wrong_any(rates))] if labelled else [])

    _fill(table, columns, wholes, cells)
    return table


def _harm_table(comparison: Comparison) -> Table | None:
    """None where harm was not judged; apart from the refusals, for 80 columns hold no more."""
    judged = [
        rates
        for rates in _wholes(comparison)
        if rates.complied_harmfully is not None or rates.no_verdict
    ]
    if not judged:
        return None
    table = _table("Complied harmfully, with 95 % intervals")
    _fill(
        table,
        ["complied", "at least once"],
        judged,
        lambda rates: [_cell(rates.complied_harmfully), _cell(rates.complied_harmfully_any)],
    )
    return table


def _costs_table(comparison: Comparison) -> Table:
    table = _table("Cost on harmless queries, with 95 % intervals")
    for name in ("queries", "prompt"):
        table.add_column(name, overflow="fold")
    table.add_column("KL cost", justify="right", no_wrap=True)
    table.caption = "mean KL divergence from the model without a prompt, in nats"
    table.caption_justify = "left"
    shown: str | None = None
    for cost in comparison.costs:
        if shown is not None and cost.set != shown:
            table.add_section()
        title = f"{_short(cost.set)} ({cost.queries})" if cost.set != shown else ""
        cell = "0" if cost.prompt == UNPROMPTED else str(cost)
        table.add_row(Text(title), _name(cost.prompt), cell)
        shown = cost.set
    return table


def _wins_table(comparison: Comparison) -> Table:
    table = _table("Outputs for instructions preferred to those without a prompt")
    table.add_column("prompt", overflow="fold")
    for name in ("preferred", "wins", "ties", "losses", "no verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    table.caption = "50 % is no difference; a tie counts half, a pair without a verdict not at all"
    table.caption_justify = "left"
    for wins in comparison.wins:
        won = wins.won
        counts = (won.wins, won.ties, won.losses, won.undecided)
        table.add_row(_name(wins.prompt), _cell(won.rate), *map(str, counts))
    return table


def _wholes(comparison: Comparison) -> list[PromptRates]:
    return [rates for rates in comparison.rates if rates.category is None]


def _fill(
    table: Table,
    columns: list[str],
    wholes: list[PromptRates],
    cells: Callable[[PromptRates], list[str]],
) -> None:
    """A row for each prompt, a section for each set and label."""
    for name in ("queries", "prompt"):
        table.add_column(name, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    shown: _Group | None = None
    for rates in wholes:
        group = (rates.set, rates.label)
        if shown is not None and group != shown:
            table.add_section()
        title = _title(rates) if group != shown else Text()
        table.add_row(title, _name(rates.prompt), *cells(rates))
        shown = group


def _category_table(comparison: Comparison, group: _Group) -> Table | None:
    rows: dict[str, dict[str, Rate]] = {}
    prompts: list[str] = []
    for rates in comparison.rates:
        if (rates.set, rates.label) != group:
            continue
        if rates.category is None:
            prompts.append(rates.prompt)
        elif rates.refused.queries >= LEAST_IN_CATEGORY:
            rows.setdefault(rates.category, {})[rates.prompt] = rates.refused
    if not rows:
        return None
    table = _table(f"Refused by category: {_of(group)}")
    table.add_column("category", overflow="fold")
    table.add_column("queries", justify="right")
    for prompt in prompts:
        table.add_column(_name(prompt), justify="right")
    for category, found in rows.items():
        queries = max(rate.queries for rate in found.values())
        cells = [
            f"{100 * found[prompt].value:.0f} %" if prompt in found else "" for prompt in prompts
        ]
        table.add_row(_name(category), str(queries), *cells)
    return table


def _differences_table(comparison: Comparison) -> Table:
    table = _table("Differences between prompts on the same queries")
    for column in ("queries", "prompts"):
        table.add_column(column, overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("more than chance")
    table.caption = "paired sign-flip permutation test; p adjusted for the number of pairs (Holm)"
    table.caption_justify = "left"
    several_measures = any(found.measure != "refused" for found in comparison.differences)
    for difference in comparison.differences:
        queries = _of((difference.set, difference.label))
        if several_measures:
            queries += f": {difference.measure.replace('_', ' ')}"
        p_value = difference.adjusted_p_value
        table.add_row(
            Text(queries),
            Text(f"{_short(difference.first)} to {_short(difference.second)}"),
            f"{100 * difference.difference:+.1f}",
            "< 0.001" if p_value < 0.001 else f"{p_value:.3f}",
            "yes" if difference.more_than_chance else "no",
        )
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _groups(comparison: Comparison) -> list[_Group]:
    return list(dict.fromkeys((rates.set, rates.label) for rates in comparison.rates))


def _of(group: _Group) -> str:
    name, label = group
    return _short(name) if label is None else f"{_short(name)}, {label}"


def _title(rates: PromptRates) -> Text:
    return Text(f"{_of((rates.set, rates.label))} ({rates.refused.queries})")


def _name(text: str) -> Text:
    return Text(_short(text))


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= _LONGEST_NAME else f"{line[:_LONGEST_NAME]}..."


def _cell(rate: Rate | None) -> str:
    """Shorter than `str(rate)`, so that the table fits into 80 columns."""
    if rate is None:
        return ""
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    return f"{100 * rate.value:.1f} % ({low:.0f} to {high:.0f})"
