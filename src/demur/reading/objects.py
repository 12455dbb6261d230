"""JSON: a file with an object a line, or one document with its rows somewhere inside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.limits import MOST_JSON_PARTS
from demur.reading.files import TextFile, Watch
from demur.reading.messages import CONVERSATION_FIELDS, is_conversation
from demur.reading.row import Row, listed

_PARTS = ",:[{"
_LARGE = 1 << 20
_LINE_END = re.compile(r"\r\n|\n|\r")
_TEXT_FIELDS = ("query", "response")
_CASES = {"test_case", "generation"}
"""Fields of HarmBench's completions, which stand in a list for every behavior."""

_ROW_LISTS = ("samples", "jailbreaks")
"""Where logs of Inspect and artifacts of JailbreakBench keep their rows, beside other lists."""


class _Twice(ValueError):
    """A name that stands in an object twice."""


def json_lines(path: Path, watch: Watch | None = None) -> Iterator[Row]:
    """The rows of a file with a JSON value a line; blank lines are passed over.

    Raises:
        DemurError: the file cannot be read, or a line is not valid JSON.
    """
    file = TextFile(path, watch)
    for number, line in enumerate(file.lines(), start=1):
        if line.strip():
            place = f"{file.name} line {number}"
            yield Row(place, _parsed(line, place, "write one JSON object a line"))


def json_document(
    path: Path, field: str | None = None, watch: Watch | None = None
) -> tuple[Iterator[Row], str | None]:
    """The rows of a JSON document, and what is left of the field once they are found.

    The rows are the items of the document itself where it is a list; else of the list that the
    field leads to (`data.goal` is the `goal` of every item of `data`), or of its only list. An
    object of columns, or of objects by their names, is read as pandas writes it, and one with a
    single query or response as one row. A file that holds one JSON object a line, whatever its
    name, is read as such.

    Args:
        path: the file.
        field: field of the rows, from the top of the document on; None where none is named.
        watch: sees the bytes that are read.

    Raises:
        DemurError: the file cannot be read, is not valid JSON, or has no rows, or several lists.
    """
    file = TextFile(path, watch)
    text = file.text()
    if not text.strip():
        return iter(()), field
    try:
        document = _parsed(text, file.name, "")
    except DemurError:
        if not _is_lines(text):
            raise
        return _rows_of_lines(text, file.name), field
    return _rows(document, field, file.name)


def _rows(document: object, field: str | None, name: str) -> tuple[Iterator[Row], str | None]:
    items, rest = document, field
    while isinstance(items, Mapping) and rest is not None and _by_column(items) is None:
        head, _, tail = rest.partition(".")
        inner = items.get(rest, items.get(head))
        if not isinstance(inner, (list, Mapping)):
            break
        items, rest = inner, (tail or None) if rest not in items else None
    if isinstance(items, Mapping):
        table = _by_column(items) or _by_name(items, rest)
        if table is not None:
            return _numbered(table, name), rest
        if _is_row(items, rest):
            return iter((Row(name, items),)), rest
        key = _only_list(items, field, name)
        return _numbered(items[key], name, key), rest
    if not isinstance(items, list):
        raise DemurError(
            f"{name} holds {type(items).__name__} and no rows: give a JSON list, or one object a "
            "line in a .jsonl file."
        )
    return _numbered(items, name), rest


def _by_column(document: Mapping[str, Any]) -> Sequence[object] | None:
    """The rows of an object that holds a table by its columns; None for any other object."""
    columns = list(document.values())
    if document.keys() == {"columns", "index", "data"} and isinstance(document["columns"], list):
        names, data = document["columns"], document["data"]
        fits = isinstance(data, list) and all(
            isinstance(row, list) and len(row) == len(names) for row in data
        )
        return [dict(zip(map(str, names), row, strict=True)) for row in data] if fits else None
    if len(columns) > 1 and all(isinstance(column, list) for column in columns):
        plain = not any(isinstance(item, Mapping) for column in columns for item in column)
        even = len({len(column) for column in columns}) == 1
        cells = zip(*columns, strict=True) if plain and even else None
    elif all(isinstance(column, Mapping) for column in columns):
        numbers = list(columns[0]) if columns else []
        even = all(column.keys() == columns[0].keys() for column in columns)
        counted = bool(numbers) and even and all(key.isdecimal() for key in numbers)
        cells = zip(*(column.values() for column in columns), strict=True) if counted else None
    else:
        return None
    return None if cells is None else [dict(zip(document, row, strict=True)) for row in cells]


def _by_name(document: Mapping[str, Any], field: str | None) -> Sequence[object] | None:
    """The rows of an object that holds objects by their names; None for any other object."""
    rows = list(document.values())
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        if rows and all(
            isinstance(row, list)
            and all(isinstance(item, Mapping) and item.keys() >= _CASES for item in row)
            for row in rows
        ):
            return [item for row in rows for item in row]
        return None
    if field is None:
        alike = len(rows) > 1 and all(row.keys() == rows[0].keys() for row in rows)
    else:
        alike = all(field in row or field.partition(".")[0] in row for row in rows)
    return rows if alike else None


def _is_row(document: Mapping[str, Any], field: str | None) -> bool:
    """Whether an object is no document with rows but a row itself."""
    if field is not None:
        return isinstance(document.get(field), str) or is_conversation(document.get(field))
    return any(isinstance(document.get(name), str) for name in _TEXT_FIELDS) or any(
        is_conversation(document.get(name)) for name in CONVERSATION_FIELDS
    )


def _only_list(document: Mapping[str, Any], field: str | None, name: str) -> str:
    """Name of the list in an object whose items are its rows."""
    lists = [key for key, value in document.items() if isinstance(value, list) and value]
    known = [key for key in _ROW_LISTS if isinstance(document.get(key), list)]
    if len(known) == 1 or len(lists) == 1:
        return (known or lists)[0]
    if field is not None:
        raise DemurError(
            f"{name} has no list of rows at {field!r:.80}: its fields are "
            f"{listed(tuple(document))}; name one as FILE:LIST.FIELD."
        )
    choice = f"several lists ({listed(lists)})" if lists else "no list of rows"
    raise DemurError(
        f"{name} is one object with {choice}: name the field that is meant as FILE:LIST.FIELD."
    )


def _numbered(items: Sequence[object], name: str, implied: str | None = None) -> Iterator[Row]:
    for number, item in enumerate(items, start=1):
        yield Row(f"{name} item {number}", item, implied=implied)


def _is_lines(text: str) -> bool:
    """Whether the first line is a JSON value by itself, and others follow."""
    first, *others = _LINE_END.split(text.strip(), maxsplit=1)
    try:
        return bool(others) and isinstance(json.loads(first), (dict, str))
    except (ValueError, RecursionError):
        return False


def _rows_of_lines(text: str, name: str) -> Iterator[Row]:
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip():
            place = f"{name} line {number}"
            yield Row(place, _parsed(line, place, "write one JSON object a line"))


def parse_json(text: str, place: str) -> object:
    """The value of a JSON text.

    Raises:
        DemurError: it is not valid JSON, too large, too deep, or has a name twice in an object.
    """
    return _parsed(text, place, "")


def _parsed(text: str, place: str, fix: str) -> object:
    if len(text) > _LARGE and sum(text.count(part) for part in _PARTS) > MOST_JSON_PARTS:
        raise DemurError(
            f"{place} holds more than {MOST_JSON_PARTS:,} values, above what is read: split it."
        )
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _Twice as error:
        raise DemurError(
            f"{place} has the name {error.args[0]!r:.80} twice in one object: remove one."
        ) from error
    except json.JSONDecodeError as error:
        where = f" (line {error.lineno}, column {error.colno})" if not fix else ""
        raise DemurError(
            f"{place} is not valid JSON{where}: {fix or 'correct it, or write it again'}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DemurError(
            f"{place} is not valid JSON that can be read (it is too deep, or has a number that is "
            f"too long): {fix or 'write it again'}."
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found
