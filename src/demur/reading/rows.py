"""The rows of a file, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from demur.errors import DemurError, did_you_mean
from demur.reading.archives import log_rows, parquet_rows
from demur.reading.files import TextFile, Watch
from demur.reading.formats import formats
from demur.reading.given import Format
from demur.reading.objects import json_document, json_lines
from demur.reading.row import Row
from demur.reading.spec import ENDINGS, JSON, LINES, LOG, PARQUET, TABLE, TEXT, FileSpec
from demur.reading.table import open_table
from demur.reading.text import read_text_lines

_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_PACKED = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz", ".rar")
_KNOWN = ", ".join(ENDINGS)


def open_rows(spec: FileSpec, watch: Watch | None = None) -> tuple[Iterator[Row], str | None]:
    """The rows of a file, and the field of them that the spec names.

    Args:
        spec: the file and its field.
        watch: sees the bytes that are read.

    Raises:
        DemurError: the file cannot be read, or its name does not say what it holds.
    """
    path, field = spec.path, spec.field
    if spec.data_set is not None:
        return spec.data_set.rows(watch), field
    if spec.kind == TEXT or not path.suffix:
        if field is not None:
            raise DemurError(
                f"{str(path)!r:.300} is a text file without columns: give only its name."
            )
        return (Row(place, line) for place, line in read_text_lines(TextFile(path, watch))), None
    if spec.kind == TABLE:
        return open_table(TextFile(path, watch), field).rows(), field
    if spec.kind == LOG:
        return log_rows(path, watch), field
    if spec.kind == PARQUET:
        return parquet_rows(path, watch), field
    if spec.kind == JSON or (spec.kind == LINES and _is_document(spec)):
        return json_document(path, field, watch)
    if spec.kind == LINES:
        return json_lines(path, watch), field
    without_field = Path(str(path).rpartition(":")[0] or path)
    if not path.exists() and not without_field.exists():
        beside = [one.name for one in path.parent.glob("*")] if path.parent.is_dir() else []
        raise DemurError(
            f"There is no file {str(path)!r:.300}{did_you_mean(path.name, beside)}: check the path."
        )
    ending = path.suffix.lower()
    first = "save the sheet as CSV, or " if ending.startswith(_SHEETS) else ""
    first = "unpack it, or " if ending.startswith(_PACKED) else first
    raise DemurError(
        f"Cannot tell what {str(path)!r:.300} holds: {first}give a file that ends in {_KNOWN} (or "
        "in .gz behind that)."
    )


def format_of(row: Row) -> Format | None:
    """The tool that a file is of, told by its first row; None where none is known."""
    return next((one for one in formats() if one.fits(row)), None)


def _is_document(spec: FileSpec) -> bool:
    """Whether a file of JSON lines is one list after all."""
    for line in TextFile(spec.path).lines():
        if line.strip():
            return line.lstrip().startswith("[")
    return False
