"""What a notebook shows of results: tables in HTML, data frames, and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.spreadsheets import Cell

if TYPE_CHECKING:
    import pandas


def html_table(
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    above: Sequence[str] = (),
    folded: Sequence[str] = (),
) -> str:
    """A table with lines of text around it.

    Args:
        rows: the cells as plain text, the titles of the columns first; may be empty.
        notes: lines of plain text below the table.
        above: lines of plain text above it, which say the most important.
        folded: lines of plain text that only who wants them unfolds.
    """
    parts = [f"<p><strong>{escape(line)}</strong></p>" for line in above]
    if rows:
        head, *body = (
            "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row)
            for row, kind in zip(rows, ["th", *["td"] * len(rows)], strict=False)
        )
        lines = "".join(f"<tr>{row}</tr>" for row in body)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>")
    parts += [f"<p>{escape(note)}</p>" for note in notes]
    if folded:
        lines = "".join(f"<li>{escape(line)}</li>" for line in folded)
        parts.append(f"<details><summary>All figures</summary><ul>{lines}</ul></details>")
    return "\n".join(parts)


def data_frame(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], extra: str = "demur[notebook]"
) -> pandas.DataFrame:
    """A data frame.

    Args:
        columns: names of the columns.
        rows: the cells of each row, read once pandas is known to be there.
        extra: the extra that brings pandas, for the error.

    Raises:
        DemurError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise DemurError(f"Data frames need pandas: run `pip install '{extra}'`.") from error
    return pandas.DataFrame(list(rows), columns=list(columns))
