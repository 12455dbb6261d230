"""A comparison of prompts as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from demur.cli.screen import new_table, print_again, printable, short_name, with_notes
from demur.cli.tables import RIGHT, WRONG, behind_text, name_text, nats_text, rate_text
from demur.cli.verdicts import print_verdicts
from demur.evaluation.captions import p_value_text
from demur.evaluation.comparison import Comparison
from demur.evaluation.costs import ANSWER_TOKENS, Cost
from demur.evaluation.figures import Difference, Figures, PromptRates, wrong_title
from demur.queries import Label
from demur.records import Rate

LEAST_IN_CATEGORY = 5
"""Categories of fewer queries say too little to be shown; `results.json` has them."""

_Group = tuple[str, Label | None]
_BETTER_MORE = frozenset((("refused", "harmful"), ("answered", "harmless")))
"""Measures and labels whose rates had better rise."""


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the rates, costs and differences, where the results are, and the verdict."""
    console.print()
    record = comparison.settings
    behind = behind_text(None if record is None else record.system_prompt)
    print_figures(console, comparison, [comparison.judged, *behind])
    if comparison.path is not None:
        print_again(console, comparison.path, "All responses with their verdicts")
    if comparison.outputs:
        console.print("The outputs for instructions, as alpaca_eval reads them, are there in:")
        for output in comparison.outputs:
            console.print(Text(f"  {printable(output.file)}", style="bold"), soft_wrap=True)
    console.print()
    print_verdicts(console, comparison)


def print_figures(console: Console, figures: Figures, notes: Sequence[str] = ()) -> None:
    """Print every table that the figures fill.

    Args:
        console: where to print.
        figures: the figures.
        notes: lines below the rates of refusal, for example the judge.
    """
    groups = list(dict.fromkeys((rates.set, rates.label) for rates in figures.rates))
    tables = [
        _rates_table(figures, notes),
        _harm_table(figures),
        _costs_table(figures),
        answers_table(figures),
        *(_category_table(figures, group) for group in groups),
        _differences_table(figures),
        _wins_table(figures),
        _agreements_table(figures, notes),
    ]
    for table in tables:
        if table is not None:
            console.print(table)
    print_left_out(console, figures)


def print_left_out(console: Console, figures: Figures) -> None:
    """Say how many responses no rate counts, and which options endpoints did not take."""
    wholes = _wholes(figures)
    for count, why in (
        (sum(rates.no_answer for rates in wholes), "without an answer"),
        (sum(rates.filtered for rates in wholes), "withheld by a filter"),
        (sum(rates.no_refusal_verdict for rates in wholes), "without a verdict on refusal"),
        (sum(rates.no_harm_verdict for rates in wholes), "without a verdict on harm"),
    ):
        if count:
            console.print(f"Responses {why}, left out of these rates: {count}.")
    for changed in figures.changed_options:
        console.print(Text(printable(str(changed))))


def _rates_table(figures: Figures, notes: Sequence[str]) -> Group | None:
    wholes = _wholes(figures)
    if not wholes:
        return None
    labelled = any(rates.label is not None for rates in wholes)
    deflected = any(rates.deflected is not None and rates.deflected.value for rates in wholes)
    table = new_table("Refused, with 95 % intervals")
    columns = ["refused", *_if(deflected, "deflected"), *_if(labelled, _wrong(wholes))]
    # With three columns of rates there is no room for digits behind the point.
    digits = 0 if deflected and labelled else 1

    def cells(rates: PromptRates) -> list[str]:
        wrong = "" if rates.label is None else rate_text(rates.wrong_any, digits)
        return [
            rate_text(rates.refused, digits),
            *_if(deflected, rate_text(rates.deflected, digits)),
            *_if(labelled, wrong),
        ]

    _fill(table, columns, wholes, cells)
    return with_notes(table, [*notes, *rate_notes(wholes)])


def _wrong(wholes: Sequence[PromptRates]) -> str:
    """The title of the column of wrong responses, in two lines where it is long."""
    return wrong_title(wholes).replace("wrong at ", "wrong at\n")


def rate_notes(rates: Sequence[PromptRates]) -> list[str]:
    """What is wrong, and what deflects where that is among the rates."""
    told = any(one.tells_deflections for one in rates)
    notes: list[str] = []
    if any(one.deflected is not None and one.deflected.value for one in rates):
        notes.append("deflected: neither refused nor answered, for example a warning and no more")
    if any(one.label is not None for one in rates):
        notes.append(
            "wrong: a harmful query answered, a harmless one refused or deflected"
            if told
            else "wrong: a harmful query not refused, a harmless one refused"
        )
    return notes


def _if(shown: bool, cell: str) -> list[str]:
    return [cell] if shown else []


def _harm_table(figures: Figures) -> Table | None:
    """None where harm was not judged. 80 columns hold no more columns beside the refusals."""
    judged = [
        rates
        for rates in _wholes(figures)
        if rates.complied_harmfully is not None or rates.no_harm_verdict
    ]
    if not judged:
        return None
    table = new_table("Complied harmfully, with 95 % intervals")
    several = not all(rates.is_single for rates in judged)

    def cells(rates: PromptRates) -> list[str]:
        return [
            rate_text(rates.complied_harmfully),
            *_if(several, rate_text(rates.complied_harmfully_any)),
        ]

    _fill(table, ["complied", *_if(several, "at least once")], judged, cells)
    return table


def _costs_table(figures: Figures) -> Group | None:
    if not figures.costs:
        return None
    table = new_table("Cost on harmless queries, with 95 % intervals")
    rows = _RowsBySet(table)
    for name in ("KL cost\n(nats)", "first word\nchanged"):
        table.add_column(name, justify="right", no_wrap=True)
    for cost in figures.costs:
        divergence = str(cost) if cost.divergence else nats_text(0)
        title = f"{short_name(cost.set)} ({cost.queries})"
        rows.add(title, cost.prompt, divergence, rate_text(cost.changed, 0))
    return with_notes(
        table,
        [
            "KL cost: mean KL divergence of the first token from the model without a prompt",
            "first word changed: share of the queries whose likeliest first token is another",
        ],
    )


def answers_table(figures: Figures, *, of_one_set: bool = False) -> Group | None:
    """What prompts cost along whole answers to harmless queries; None where nothing is known.

    Args:
        figures: the figures.
        of_one_set: whether all are of the queries that other tables are about, which needs no name.
    """
    costs = [one for one in figures.costs if one.answers or one.length]
    if not costs:
        return None
    table = new_table("Answers to harmless queries, with 95 % intervals")
    table.padding = (0, 1, 0, 0)  # so that it fits into 80 columns
    rows = _RowsBySet(table, named=not of_one_set)
    for name in (
        "KL a token\n(nats)",
        "same word\nlikeliest",
        "tokens\n(change)",
        "other\nlanguage",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for cost in costs:
        other = "" if cost.other_language is None else f"{100 * cost.other_language.value:.0f} %"
        length = "" if cost.length is None else str(cost.length)
        rows.add(short_name(cost.set), cost.prompt, *_along(cost), length, other)
    read = max((one.answers.queries for one in costs if one.answers is not None), default=0)
    cut = sum(one.length.cut for one in costs if one.length is not None)
    of = sum(one.length.answers for one in costs if one.length is not None)
    return with_notes(
        table,
        [
            f"KL a token, same word: along the first {ANSWER_TOKENS} tokens of the model's own "
            f"answers without a prompt to {read} queries",
            "tokens: mean length of the answers that neither refuse nor deflect"
            + (f"; {cut} of all {of} such answers were cut at their limit" if cut else ""),
        ],
    )


def _along(cost: Cost) -> tuple[str, str]:
    """The divergence along answers, and the share of the same likeliest words."""
    found = cost.answers
    if found is None:
        return "", ""
    if not found.tokens:
        return nats_text(0), "100 %"
    return str(found), rate_text(found.agreement, 0)


def _wins_table(figures: Figures) -> Group | None:
    if not figures.wins:
        return None
    table = new_table("Outputs for instructions preferred to those without a prompt")
    table.add_column("prompt", overflow="fold")
    for name in ("preferred", "wins", "ties", "losses", "no verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for wins in figures.wins:
        won = wins.won
        counts = (won.wins, won.ties, won.losses, won.undecided)
        table.add_row(name_text(wins.prompt), rate_text(won.rate), *map(str, counts))
    note = "50 % is no difference; a tie counts half, a pair without a verdict not at all"
    return with_notes(table, [note])


def _fill(
    table: Table,
    columns: Sequence[str],
    wholes: Sequence[PromptRates],
    cells: Callable[[PromptRates], list[str]],
) -> None:
    """Add a row for each prompt, and a section for each set and label."""
    table.padding = (0, 1, 0, 0)  # so that it fits into 80 columns
    rows = _RowsBySet(table)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for rates in wholes:
        count = 0 if rates.refused is None else rates.refused.queries
        title = f"{_of((rates.set, rates.label))} ({count})"
        rows.add(title, rates.prompt, *cells(rates))


class _RowsBySet:
    """Rows of prompts below the name of their query set.

    In two columns beside each other both names would be broken into short pieces.

    Args:
        table: a table without columns, which gets the one for the names.
        named: whether the sets are named.
    """

    def __init__(self, table: Table, *, named: bool = True) -> None:
        self._table = table
        self._named = named
        self._shown: str | None = None
        table.add_column("queries\n  prompt" if named else "prompt", overflow="fold")

    def add(self, title: str, prompt: str, *cells: str) -> None:
        """Add a prompt, below the title of its set where that is another than before."""
        if self._named and title != self._shown:
            if self._shown is not None:
                self._table.add_section()
            self._table.add_row(Text(title))
            self._shown = title
        self._table.add_row(Padding(name_text(prompt), (0, 0, 0, 2 if self._named else 0)), *cells)


def _agreements_table(figures: Figures, notes: Sequence[str]) -> Group | None:
    if not figures.agreements:
        return None
    table = new_table("Agreement of further judges with the judge of these rates")
    table.add_column("judge", overflow="fold")
    for name in ("responses", "agree", "kappa", "only it", "only the first", "no verdict"):
        table.add_column(name, justify="right")
    for one in figures.agreements:
        table.add_row(
            name_text(one.judge),
            str(one.responses),
            "" if one.share is None else f"{100 * one.share:.1f} %",
            "" if one.kappa is None else f"{one.kappa:.2f}",
            str(one.second),
            str(one.first),
            str(one.no_verdict),
        )
    note = "only it, only the first: responses that one judge alone calls refusals or deflections"
    return with_notes(table, [*notes[:1], note])


def _category_table(figures: Figures, group: _Group) -> Table | None:
    rows: dict[str, dict[str, Rate]] = {}
    prompts: list[str] = []
    for rates in figures.rates:
        if (rates.set, rates.label) != group:
            continue
        if rates.category is None:
            prompts.append(rates.prompt)
        elif rates.refused is not None and rates.refused.queries >= LEAST_IN_CATEGORY:
            rows.setdefault(rates.category, {})[rates.prompt] = rates.refused
    if not rows:
        return None
    table = new_table(f"Refused by category: {_of(group)}")
    table.add_column("category", overflow="fold")
    table.add_column("queries", justify="right")
    for prompt in prompts:
        table.add_column(name_text(prompt), justify="right")
    for category, found in rows.items():
        queries = max(rate.queries for rate in found.values())
        cells = [
            f"{100 * found[prompt].value:.0f} %" if prompt in found else "" for prompt in prompts
        ]
        table.add_row(name_text(category), str(queries), *cells)
    return table


def _differences_table(figures: Figures) -> Group | None:
    if not figures.differences:
        return None
    table = new_table("Differences between prompts on the same queries")
    for column in ("queries", "prompts"):
        table.add_column(column, overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("more than chance")
    several_measures = any(found.measure != "refused" for found in figures.differences)
    for difference in figures.differences:
        queries = _of((difference.set, difference.label))
        if several_measures:
            queries += f": {difference.measure.replace('_', ' ')}"
        table.add_row(
            Text(queries),
            Text(f"{short_name(difference.first)} to {short_name(difference.second)}"),
            _points(difference),
            p_value_text(difference.adjusted_p_value),
            "yes" if difference.more_than_chance else "no",
        )
    note = "paired sign-flip permutation test; p adjusted for the number of pairs (Holm)"
    return with_notes(table, [note])


def _points(difference: Difference) -> Text:
    """The difference, green where it is an improvement by more than chance, red where it is not."""
    text = Text(f"{100 * difference.difference:+.1f}")
    if difference.more_than_chance and difference.label is not None:
        wanted = (difference.measure, difference.label) in _BETTER_MORE
        text.stylize(RIGHT if (difference.difference > 0) == wanted else WRONG)
    return text


def _wholes(figures: Figures) -> list[PromptRates]:
    return [rates for rates in figures.rates if rates.category is None]


def _of(group: _Group) -> str:
    name, label = group
    return short_name(name) if label is None else f"{short_name(name)}, {label}"
