"""The responses of a study as CSV and Parquet, written while they are counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TextIO

from demur.files import require_replaceable, writing
from demur.spreadsheets import Cell, CsvWriter
from demur.study.rows import COLUMNS, Row
from demur.temporary import remove_leftovers, temporary

CSV_FILE = "study.csv"
PARQUET_FILE = "study.parquet"
EXTRA = "demur[study]"

_AT_ONCE = 20_000
_WHOLE = ("seed", "sample")
"""Columns of whole numbers; all others are texts."""


class Sink(Protocol):
    """Takes rows, one after another."""

    def add(self, row: Row) -> None:
        """Write a row."""


@contextmanager
def sinks(folder: Path) -> Iterator[tuple[Sink, ...]]:
    """Files for the rows of a study, which appear whole when the block ends, or not at all.

    Args:
        folder: folder of the study.

    Yields:
        One for CSV, and one for Parquet where pyarrow is installed.

    Raises:
        DemurError: the folder cannot be written.
    """
    with ExitStack() as stack:
        found: list[Sink] = [stack.enter_context(_csv_sink(folder / CSV_FILE))]
        if has_parquet():
            found.append(stack.enter_context(_parquet_sink(folder / PARQUET_FILE)))
        yield tuple(found)


def has_parquet() -> bool:
    """Whether Parquet can be written."""
    return find_spec("pyarrow") is not None


class _CsvSink:
    """Rows of CSV."""

    def __init__(self, stream: TextIO) -> None:
        self._writer = CsvWriter(stream, COLUMNS)

    def add(self, row: Row) -> None:
        self._writer.add(values_of_row(row))


class _ParquetSink:
    """Rows of Parquet, some thousands at once."""

    def __init__(self, file: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        kinds = [
            (name, pyarrow.int64() if name in _WHOLE else pyarrow.string()) for name in COLUMNS
        ]
        self._schema = pyarrow.schema(kinds)
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[tuple[Cell, ...]] = []

    def add(self, row: Row) -> None:
        self._rows.append(values_of_row(row))
        if len(self._rows) >= _AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            columns = dict(zip(COLUMNS, zip(*self._rows, strict=True), strict=True))
            self._writer.write_table(pyarrow.table(columns, schema=self._schema))
        self._rows = []


def values_of_row(row: Row) -> tuple[Cell, ...]:
    """The values of a row in the order of the columns."""
    return tuple(getattr(row, name) for name in COLUMNS)


@contextmanager
def _csv_sink(path: Path) -> Iterator[_CsvSink]:
    with _replacing(path) as new, new.open("w", encoding="utf-8", newline="") as stream:
        yield _CsvSink(stream)


@contextmanager
def _parquet_sink(path: Path) -> Iterator[_ParquetSink]:
    with _replacing(path) as new:
        sink = _ParquetSink(new)
        yield sink
        sink.close()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    with writing(path):
        require_replaceable(path)
        remove_leftovers(path.parent, path.name)
        with temporary(path) as new:
            yield new
            new.replace(path)
