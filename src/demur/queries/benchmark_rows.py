"""What is read of a benchmark's file, and what is kept of one that has answers in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from demur.errors import DemurError
from demur.queries.benchmark_table import Benchmark, Columns
from demur.queries.query_set import QuerySet
from demur.reading import TextFile, parse_json, read_table_columns, read_text_lines
from demur.records import Label

_LABELS: dict[str, Label] = {"unsafe": "harmful", "safe": "harmless"}


@dataclass(frozen=True)
class _Row:
    """A row as text; blank where the file has no such column or no value."""

    query: str
    category: str = ""
    label: str = ""


def parse_benchmark(content: bytes, file: Path, benchmark: Benchmark) -> tuple[QuerySet, ...]:
    """The queries in a benchmark's file, a set a side; see `load_benchmark`.

    Args:
        content: content of the file.
        file: where it is, for messages.
        benchmark: what is known of it.

    Raises:
        DemurError: the file is not what the table of benchmarks says.
    """
    text, columns = TextFile(file, content=content), benchmark.columns
    rows = (
        [_Row(line) for _, line in read_text_lines(text)]
        if columns is None
        else list(_rows(text, columns))
    )
    sides = _sides(benchmark)
    found: dict[Label, dict[str, str]] = {side: {} for side in sides}
    missing = 0
    for row in rows:
        if not row.query.strip():
            missing += 1
            continue
        side = _LABELS.get(row.label.strip()) if benchmark.side == "both" else sides[0]
        if side is None:
            raise DemurError(
                f"{str(file)!r} has the label {row.label!r}: only safe and unsafe are known."
            )
        found[side].setdefault(row.query.strip(), row.category.strip())
    for side, queries in found.items():
        if not queries:
            raise DemurError(f"{str(file)!r} holds no {side} queries: it is not {benchmark.name}")
    remark = (
        f"{missing} rows of {benchmark.name} have no query and are left out."
        if missing and columns is not None
        else ""
    )
    return tuple(
        QuerySet(
            name=benchmark.name,
            label=side,
            texts=tuple(queries),
            categories=tuple(queries.values()) if columns and columns.category else None,
            source=f"benchmark {benchmark.name}",
            remark=remark,
        )
        for side, queries in found.items()
    )


def kept_content(content: bytes, benchmark: Benchmark) -> bytes:
    """What is kept of a file as published: all of it, or the columns that are read.

    A file that has answers of an attacked model beside its queries is never kept with them.

    Raises:
        DemurError: the file is not what the table of benchmarks says.
    """
    columns = benchmark.columns
    if benchmark.kept_sha256 is None or columns is None:
        return content
    read = [column for column in (columns.query, columns.category, columns.label) if column]
    rows = [
        {column: row.get(column) for column in read}
        for row in _json_rows(TextFile(Path(benchmark.file_name), content=content), columns)
    ]
    document = {columns.rows: rows} if columns.rows else rows
    return (json.dumps(document, ensure_ascii=True, sort_keys=True) + "\n").encode("ascii")


def _sides(benchmark: Benchmark) -> tuple[Label, ...]:
    if benchmark.side == "both":
        return "harmful", "harmless"
    return ("harmful",) if benchmark.side == "harmful" else ("harmless",)


def _rows(file: TextFile, columns: Columns) -> Iterator[_Row]:
    roles = {"query": columns.query, "category": columns.category, "label": columns.label}
    named = {role: column for role, column in roles.items() if column is not None}
    if columns.only is not None:
        named["only"] = columns.only[0]
    if file.path.suffix == ".csv":
        cells = read_table_columns(file, tuple(named.values()))
        rows = [dict(zip(named, row, strict=True)) for row in cells]
    else:
        rows = [
            {role: _text(row, column, file.name) for role, column in named.items()}
            for row in _json_rows(file, columns)
        ]
    for row in rows:
        if columns.only is None or row.pop("only").strip() == columns.only[1]:
            yield _Row(**row)


def _json_rows(file: TextFile, columns: Columns) -> Iterator[Mapping[str, object]]:
    """The objects in a file of JSON lines, or in a list in a JSON document."""
    if file.path.suffix == ".jsonl":
        rows: object = [parse_json(line, place) for place, line in read_text_lines(file)]
    else:
        rows = parse_json(file.text(), file.name)
        if columns.rows is not None and isinstance(rows, dict):
            rows = rows.get(columns.rows)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DemurError(f"{file.name} holds no list of objects: get that file again.")
    yield from rows


def _text(row: Mapping[str, object], column: str, name: str) -> str:
    """A value as text; blank for none."""
    value = row.get(column)
    if column not in row or not isinstance(value, (str, type(None))):
        raise DemurError(f"{name} has a row whose {column!r} is no text: get that file again.")
    return value or ""
