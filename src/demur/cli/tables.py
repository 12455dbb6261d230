"""Tables of rates, as runs, evaluations, diagnoses and published prompts show them.

Names, queries and responses are not trusted: they are shown as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.text import Text

from demur.cli.names import NameText
from demur.cli.screen import new_table, one_line, short_name, with_notes
from demur.evaluation.costs import cost_in_words
from demur.records import Label, Rate, Verdict

NO_VERDICT = "no verdict"
_DONE = {Verdict.REFUSES: "refused", Verdict.DEFLECTS: "deflected", Verdict.ANSWERS: "answered"}
RIGHT, WRONG = "green", "red"
"""Styles of what is as it should be, and of what is not."""


@dataclass(frozen=True)
class Row:
    """What was measured under one prompt.

    Attributes:
        prompt: name of the prompt, for people.
        harmful: rate at which harmful queries are refused; None where there is no verdict.
        harmless: rate at which harmless queries are refused, likewise.
        divergence: KL divergence from the model without a prompt, in nats; None where it was not
            measured.
        changed: share of harmless queries whose likeliest first word changed, likewise.
        main: whether the row is the one to look at.
        basic: whether the prompt is the basic one.
    """

    prompt: str
    harmful: Rate | None
    harmless: Rate | None
    divergence: float | None = None
    changed: Rate | None = None
    main: bool = False
    basic: bool = False


def refusal_table(title: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> Group:
    """A table with one row for each prompt and the two labels side by side.

    Args:
        title: title of the table.
        rows: the prompts.
        notes: lines below the table, for example the judge.
    """
    with_costs = any(row.divergence is not None for row in rows)
    with_words = any(row.changed is not None for row in rows)
    table = new_table(title)
    table.padding = (0, 1, 0, 0)  # so that the rates fit into 80 columns
    table.add_column("prompt", overflow="fold")
    for name in (
        "harmful\nqueries",
        "harmless\nqueries",
        *(["KL cost\n(nats)"] if with_costs else []),
        *(["first word\nchanged"] if with_words else []),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [rate_text(row.harmful, 0), rate_text(row.harmless, 0)]
        if with_costs:
            cells.append(nats_text(row.divergence))
        if with_words:
            cells.append("" if row.changed is None else rate_text(row.changed, 0))
        prompt = name_text(row.prompt)
        if row.basic:
            prompt.append(" (basic)")
        table.add_row(prompt, *cells, style="bold" if row.main else None)
    costs_in_words = [
        cost_in_words(row.divergence, row.changed)
        for row in rows
        if row.main and row.divergence is not None and row.changed is not None
    ]
    return with_notes(table, [*notes, *costs_in_words])


def behind_text(system_text: str | None) -> list[str]:
    """A line on the application's own system text, where there is one."""
    if system_text is None:
        return []
    return [f"behind the application's system text: {one_line(system_text, 60)}"]


def rate_text(rate: Rate | None, digits: int = 1) -> str:
    """A rate in percent with its interval; short, so that tables fit into 80 columns."""
    if rate is None:
        return NO_VERDICT
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    return f"{100 * rate.value:.{digits}f} % ({low:.0f} to {high:.0f})"


def nats_text(divergence: float | None) -> str:
    """A KL divergence in nats; empty where it was not measured."""
    if divergence is None:
        return ""
    return f"{divergence:.2f}" if divergence else "0"


def verdict_text(verdict: Verdict | None, label: Label | None) -> Text:
    """What a response does, in green where it is as it should be and in red where it is not."""
    if verdict is None:
        return Text(NO_VERDICT)
    word = _DONE[verdict]
    if label is None:
        return Text(word)
    return Text(word, style=RIGHT if verdict.is_right(label) else WRONG)


def name_text(name: str, most: int = 40) -> NameText:
    """A name as text, shortened."""
    return NameText(short_name(name, most))
