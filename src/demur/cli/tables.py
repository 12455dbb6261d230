"""Tables of rates, as runs, evaluations, diagnoses and published prompts show them.

Names, queries and responses are not trusted: they are shown as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from demur.cli.screen import new_table, short_name
from demur.records import Rate

NO_VERDICT = "no verdict"


@dataclass(frozen=True)
class Row:
    """Refusals under one prompt.

    Attributes:
        prompt: name of the prompt, for people.
        harmful: rate at which harmful queries are refused; None where there is no verdict.
        harmless: rate at which harmless queries are refused, likewise.
        cost: KL cost in nats, as text; empty where it was not measured.
        main: whether the row is the one to look at.
        basic: whether the prompt is the basic one.
    """

    prompt: str
    harmful: Rate | None
    harmless: Rate | None
    cost: str
    main: bool = False
    basic: bool = False


def refusal_table(title: str, rows: Sequence[Row]) -> Table:
    """A table with one row for each prompt and the two labels side by side."""
    caption = "KL cost: mean KL divergence from the model without a prompt, in nats"
    with_costs = any(row.cost for row in rows)
    table = new_table(title, caption if with_costs else None)
    table.add_column("prompt", overflow="fold")
    for name in ("harmful queries", "harmless queries", *(["KL cost"] if with_costs else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [rate_text(row.harmful), rate_text(row.harmless), row.cost]
        style = "bold" if row.main else None
        prompt = name_text(row.prompt)
        if row.basic:
            prompt.append(" (basic)")
        table.add_row(prompt, *cells[: len(table.columns) - 1], style=style)
    return table


def rate_text(rate: Rate | None, digits: int = 1) -> str:
    """A rate in percent with its interval; short, so that tables fit into 80 columns."""
    if rate is None:
        return NO_VERDICT
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    return f"{100 * rate.value:.{digits}f} % ({low:.0f} to {high:.0f})"


def name_text(name: str, most: int = 40) -> Text:
    """A name as text, shortened."""
    return Text(short_name(name, most))
