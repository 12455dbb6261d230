"""Rows of plain data, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.files import write_bytes


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file's content by `rows`, whole or not at all."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_bytes(file, "".join(f"{line}\n" for line in lines).encode())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """What `write_rows` wrote.

    Raises:
        DemurError: the file is damaged.
    """
    try:
        # Not `splitlines`: it would also break at characters that JSON leaves as they are.
        lines = file.read_bytes().removesuffix(b"\n").split(b"\n")
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise damaged(file) from error
    if not all(isinstance(row, dict) for row in rows):
        raise damaged(file)
    return rows


def damaged(file: Path) -> DemurError:
    """What is said of a file that does not hold what was written."""
    return DemurError(f"{file} is damaged: delete it and run the same command again.")
