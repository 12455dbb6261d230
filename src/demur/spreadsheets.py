"""Tables of others in CSV, as they are: no cell becomes a formula of a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TextIO

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a text begins with that a spreadsheet takes for a formula."""

Cell = str | int | float | None


class CsvWriter:
    """Writes a table row by row.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        stream: open text file, with `newline=""`.
        header: names of the columns.
    """

    def __init__(self, stream: TextIO, header: Sequence[str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self.add(header)

    def add(self, row: Sequence[Cell]) -> None:
        """Write a row.

        Args:
            row: its cells. Numbers are given as numbers: a text such as "-1" is a text.
        """
        self._writer.writerow([_safe(cell) if isinstance(cell, str) else cell for cell in row])


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table as CSV, as `CsvWriter` writes it.

    Args:
        header: names of the columns.
        rows: the cells of each row.
    """
    table = io.StringIO(newline="")
    writer = CsvWriter(table, header)
    for row in rows:
        writer.add(row)
    return table.getvalue()


def rounded(value: float) -> float:
    """A number with six significant digits, as tables show it."""
    return float(f"{value:.6g}")


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
