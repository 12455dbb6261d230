"""Tables of others in CSV, as they are: no cell becomes a formula of a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a text begins with that a spreadsheet takes for a formula."""

Cell = str | int | float | None


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table as CSV.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        header: names of the columns.
        rows: the cells of each row. Numbers are given as numbers: a text such as "-1" is a text.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([_safe(cell) if isinstance(cell, str) else cell for cell in row])
    return table.getvalue()


def rounded(value: float) -> float:
    """A number with six significant digits, as tables show it."""
    return float(f"{value:.6g}")


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
