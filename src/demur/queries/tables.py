"""Decode files of queries and take one column of a table. No file is opened here."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from demur.errors import DemurError

_LISTED_COLUMNS = 12


def decode(content: bytes, path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Raises:
        DemurError: it is not UTF-8; the message names the first bad line.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DemurError(
            f"{str(path)!r} is not UTF-8 text (line {line}): save it as UTF-8."
        ) from error


def text_lines(text: str) -> list[str]:
    """Lines as editors count them; `str.splitlines` would also break at rarer characters."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_csv(text: str, path: Path, column: str | None) -> list[str]:
    """One column of a table with a header row; see `read_csv_columns`."""
    return [cells[0] for cells in read_csv_columns(text, path, (column,))]


def read_csv_columns(text: str, path: Path, columns: Sequence[str | None]) -> list[tuple[str, ...]]:
    """The cells of the named columns, in their order, for every row below the header row.

    Raises:
        DemurError: a column is None, missing or stands in the header twice, a row is too short to
            have it, or the table cannot be parsed.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[tuple[str, ...]] = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        indices: list[tuple[str, int]] = []
        for column in columns:
            wanted = check_column(str(path), column, header)
            if header.count(wanted) > 1:
                raise DemurError(f"{str(path)!r} has more than one column {wanted!r}: rename one.")
            indices.append((wanted, header.index(wanted)))
        for row in reader:
            if not row:  # a blank line
                continue
            for wanted, index in indices:
                if len(row) <= index:
                    raise DemurError(
                        f"{str(path)!r} line {reader.line_num} ends before column {wanted!r}: "
                        f"give every row {len(header)} cells."
                    )
            rows.append(tuple(row[index] for _, index in indices))
    except csv.Error as error:
        raise DemurError(
            f"{str(path)!r} line {reader.line_num} is not valid CSV ({error}): correct that line."
        ) from error
    return rows


def read_jsonl(text: str, path: Path, column: str | None) -> list[tuple[object, str, str]]:
    """One field of a file with a JSON object a line.

    Returns:
        For each line that is not blank the value, the name of the field, and the place of the line
        for messages.

    Raises:
        DemurError: no field is named, or a line is not valid JSON, not an object, or lacks the
            field.
    """
    cells: list[tuple[object, str, str]] = []
    for number, line in enumerate(text_lines(text), start=1):
        if not line.strip():
            continue
        place = f"{str(path)!r} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DemurError(f"{place} is not valid JSON: write one JSON object a line.") from error
        if not isinstance(row, dict):
            raise DemurError(f"{place} is not a JSON object: write one JSON object a line.")
        wanted = check_column(place, column, list(row))
        cells.append((row[wanted], wanted, place))
    return cells


def check_column(source: str, column: str | None, present: list[str]) -> str:
    """`column`, if it is one of those present.

    Raises:
        DemurError: it is None or not present; the message lists those that are.
    """
    listed = ", ".join(repr(name) for name in present[:_LISTED_COLUMNS]) or "none"
    if len(present) > _LISTED_COLUMNS:
        listed += f" and {len(present) - _LISTED_COLUMNS} more"
    if column is None:
        raise DemurError(
            f"{source} needs the name of the column with the queries, after a colon: "
            f"its columns are {listed}."
        )
    if column not in present:
        raise DemurError(f"{source} has no column {column!r}: its columns are {listed}")
    return column


def check_text(value: object, column: str, place: str) -> str:
    """`value`, if it is text that can be written as UTF-8.

    Raises:
        DemurError: it is a number, a list, nothing at all, or holds half a surrogate pair.
    """
    if not isinstance(value, str):
        raise DemurError(
            f"{place}: {column!r} is not text but {type(value).__name__}: give a column of text."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DemurError(
            f"{place}: {column!r} holds a broken character (a lone surrogate): remove it."
        ) from error
    return value
