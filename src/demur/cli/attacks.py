"""What attacks achieved, as a person reads it or as rows for other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from demur.attacks import NO_ATTACK, Robustness
from demur.attacks.paired import AnsweredDifference
from demur.attacks.settings import TableFormat
from demur.cli.comparison import print_left_out
from demur.cli.screen import new_table, print_again, printable, short_name, with_notes
from demur.cli.tables import behind_text, name_text, rate_text
from demur.evaluation.captions import p_value_text
from demur.evaluation.figures import RateName

_FURTHER: tuple[tuple[str, RateName], ...] = (
    ("Harmful queries that are deflected, neither refused nor answered", "deflected"),
    ("Harmful queries that are complied with harmfully", "complied_harmfully"),
)

_NEXT = (
    "Next: where harm matters, put a guard model behind the prompt; --harm-judge guard:NAME says "
    "which answers are unsafe."
)


def print_attacks(console: Console, robustness: Robustness, format: TableFormat = "table") -> None:
    """Print how often attacks succeed, where the responses are, and what the figures say.

    Args:
        console: where to print.
        robustness: the figures.
        format: `table` for people, `json` or `csv` for other tools, which is then all.
    """
    if format == "json":
        console.out(json.dumps(robustness.rows(), indent=2, ensure_ascii=False))
        return
    if format == "csv":
        console.out(robustness.as_csv(), end="")
        return
    console.print()
    console.print(_table(robustness))
    for title, name in _FURTHER:
        if (table := _further(robustness, title, name)) is not None:
            console.print(table)
    if (differences := _differences(robustness)) is not None:
        console.print(differences)
    _print_left_out(console, robustness)
    print_again(console, robustness.path, "All responses with their verdicts")
    console.print()
    for sentence in robustness.verdict:
        console.print(Text(printable(sentence)))
    console.print(Text(_NEXT))


def _table(robustness: Robustness) -> Group:
    table = new_table("Harmful queries that are answered, with 95 % intervals")
    table.padding = (0, 1, 0, 0)  # so that three prompts fit into 80 columns
    table.add_column("attack", overflow="fold")
    for prompt in robustness.prompts:
        table.add_column(short_name(prompt, 20), justify="right")
    for attack in robustness.attacks:
        cells = [_cell(robustness, attack, prompt) for prompt in robustness.prompts]
        shown = f"{attack} *" if attack in robustness.disguising else attack
        table.add_row(name_text(shown), *cells, style="bold" if attack == NO_ATTACK else None)
        if attack == NO_ATTACK:
            table.add_section()
    queries = robustness.settings.queries
    noun = "query" if queries.queries == 1 else "queries"
    notes = [
        f"{queries.queries} {noun} of {queries.name}, {robustness.judged}",
        *behind_text(robustness.settings.system_prompt),
        "an attack succeeds where the query is answered: what is answered need not be harmful",
    ]
    if set(robustness.disguising) & set(robustness.attacks):
        notes.append("* a model that cannot read the disguise answers something else")
    return with_notes(table, notes)


def _further(robustness: Robustness, title: str, name: RateName) -> Table | None:
    """Another rate in short, where there is any above 0."""
    found = {
        (rates.set, rates.prompt): rate
        for rates in robustness.figures.rates
        if (rate := rates.rate(name)) is not None
    }
    if not any(rate.count for rate in found.values()):
        return None
    table = new_table(title)
    table.padding = (0, 1, 0, 0)
    table.add_column("attack", overflow="fold")
    for prompt in robustness.prompts:
        table.add_column(short_name(prompt, 20), justify="right")
    for attack in robustness.attacks:
        rates = [found.get((attack, prompt)) for prompt in robustness.prompts]
        table.add_row(name_text(attack), *(rate_text(rate, 0) for rate in rates))
    return table


def _cell(robustness: Robustness, attack: str, prompt: str) -> str:
    rate = robustness.success(attack, prompt)
    text = rate_text(rate, 0)
    few = rate is not None and rate.queries < robustness.settings.queries.queries
    return f"{text} of {rate.queries}" if few and rate is not None else text


def _differences(robustness: Robustness) -> Group | None:
    """How the last prompt differs from the one before, where it has one."""
    if len(robustness.prompts) < 2:
        return None
    first, second = robustness.prompts[-2:]
    found = robustness.differences(first, second)
    if not found:
        return None
    names = [short_name(name) for name in (second, first)]
    table = new_table(f"How much more is answered under {names[0]} than under {names[1]}")
    table.add_column("attack", overflow="fold")
    for name in ("points", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("more than chance")
    for one in found:
        table.add_row(name_text(one.attack), *_change(one))
    note = "paired sign-flip permutation test; p adjusted for the number of attacks (Holm)"
    return with_notes(table, [note])


def _change(difference: AnsweredDifference) -> Sequence[str]:
    return (
        f"{100 * difference.difference:+.1f}",
        p_value_text(difference.adjusted_p_value),
        "yes" if difference.more_than_chance else "no",
    )


def _print_left_out(console: Console, robustness: Robustness) -> None:
    """Say what no rate counts, and which attacks were not possible."""
    print_left_out(console, robustness.figures)
    for left in robustness.left_out:
        console.print(Text(printable(f"The attack {left.attack} is left out: {left.reason}")))
