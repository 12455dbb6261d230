"""Rows of CSV and JSONL files as answers, one at a time."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answer
from demur.progress import Stage
from demur.queries.messages import check_query
from demur.queries.tables import check_column, check_text
from demur.records import Conversation, Label, Query, from_plain

DEFAULT_SET = "responses"
COLUMNS = ("prompt", "set", "label", "category", "query", "response", "end")
EXTENSIONS = (".csv", ".jsonl")

_LABELS: dict[str, Label] = {"harmful": "harmful", "harmless": "harmless"}
_LARGEST_CELL = 2**31 - 1
_BYTES_BETWEEN_REPORTS = 1 << 20
_FINGERPRINT = re.compile("[0-9a-f]{64}")


class Digest(Protocol):
    """A checksum in the making, for example `hashlib.sha256()`."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""


def read_answers(path: Path, stage: Stage, digest: Digest | None = None) -> Iterator[Answer]:
    """The responses of a file in their order.

    Args:
        path: `.csv` with a header row, or `.jsonl` with an object a line; UTF-8, with or without a
            byte-order mark. The column `response` is needed; `query`, `label`, `category`,
            `prompt`, `set` and `end` are read where they are there, and in `.jsonl` also
            `condition` and `refused` as demur writes them; all others are left alone. Without a
            prompt's name, the prompt is called after the file. In `.jsonl` the query may be a
            conversation: as demur writes it, or in a column `messages` that ends with the query.
        stage: advanced by the bytes read.
        digest: takes in every byte that is read, or None.

    Raises:
        DemurError: the file cannot be read, or a row has no response, a blank one without an `end`,
            or a label other than `harmful` and `harmless`; the message names the row.
    """
    is_table = path.suffix.lower() == ".csv"
    lines = _text_lines(path, stage, digest)
    rows = _csv_rows(path, lines) if is_table else _jsonl_rows(path, lines)
    for place, row in rows:
        yield _answer(row, place, path.stem)


def _answer(row: Mapping[str, Any], place: str, file_name: str) -> Answer:
    response = check_text(row["response"], "response", place)
    end = _name(row, "end", place)
    # Rows that demur wrote tell an empty answer, which was judged, from none at all.
    none = not response and "refused" in row and row["refused"] is None
    if not response.strip() and end is None and not none:
        raise DemurError(f"{place}: the response is blank: fill it in or drop the row.")
    query = _query(row, place)
    if isinstance(query, str) and not query.strip():
        raise DemurError(f"{place}: the query is blank: fill it in or drop the row.")
    label = (_text(row, "label", place) or "").strip().lower()
    if label and label not in _LABELS:
        raise DemurError(f"{place} has the label {label[:40]!r}: give harmful or harmless.")
    return Answer(
        prompt=_name(row, "prompt", place) or file_name,
        condition=_fingerprint(row),
        set=_name(row, "set", place) or DEFAULT_SET,
        label=_LABELS.get(label),
        category=_name(row, "category", place),
        query=query,
        text=None if none else response,
        end=end,
    )


def _query(row: Mapping[str, Any], place: str) -> Query | None:
    """The query: a text, or a conversation."""
    value = row.get("query")
    if value is None and row.get("messages") is not None:
        return check_query(row["messages"], "messages", place)
    if not isinstance(value, Mapping):
        return _text(row, "query", place)
    try:
        return from_plain(Conversation, value)
    except ValueError as error:
        raise DemurError(
            f"{place}: the query is no text and no conversation as demur writes it: give a text, "
            "or the conversation as 'messages'."
        ) from error


def _fingerprint(row: Mapping[str, Any]) -> str | None:
    """The fingerprint of the condition, where the column holds one and nothing else."""
    value = row.get("condition")
    return value if isinstance(value, str) and _FINGERPRINT.fullmatch(value) else None


def _text(row: Mapping[str, Any], column: str, place: str) -> str | None:
    value = row.get(column)
    return None if value is None else check_text(value, column, place)


def _name(row: Mapping[str, Any], column: str, place: str) -> str | None:
    return (_text(row, column, place) or "").strip() or None


def _jsonl_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{str(path)!r} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DemurError(f"{place} is not valid JSON: write one JSON object a line.") from error
        if not isinstance(row, dict):
            raise DemurError(f"{place} is not a JSON object: write one JSON object a line.")
        check_column(place, "response", list(row))
        yield place, row


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Rows are counted as a spreadsheet does: the header is row 1."""
    reader = csv.reader(lines, strict=True)
    number = 1
    try:
        header = [cell.strip() for cell in next(reader, [])]
        check_column(str(path), "response", header)
        columns = {column: header.index(column) for column in COLUMNS if column in header}
        for column in columns:
            if header.count(column) > 1:
                raise DemurError(f"{str(path)!r} has more than one column {column!r}: rename one.")
        for cells in reader:
            number += 1
            if not cells:  # a blank line
                continue
            place = f"{str(path)!r} row {number}"
            if len(cells) <= max(columns.values()):
                raise DemurError(f"{place} is too short: give every row {len(header)} cells.")
            yield place, {column: cells[index] for column, index in columns.items()}
    except csv.Error as error:
        raise DemurError(
            f"{str(path)!r} line {reader.line_num} is not valid CSV ({error}): correct that line."
        ) from error


def _text_lines(path: Path, stage: Stage, digest: Digest | None) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends."""
    unreported = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                unreported += len(line)
                if digest is not None:
                    digest.update(line)
                if unreported >= _BYTES_BETWEEN_REPORTS:
                    stage.advance(unreported)
                    unreported = 0
                content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                try:
                    yield content.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DemurError(
                        f"{str(path)!r} is not UTF-8 text (line {number}): save it as UTF-8."
                    ) from error
    except OSError as error:
        raise DemurError(
            f"Cannot read {str(path)!r} ({error.strerror or error}): check the file."
        ) from error
    stage.advance(unreported)


@contextmanager
def large_cells() -> Iterator[None]:
    """Let cells of CSV files be as large as responses may be, while this lasts."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
