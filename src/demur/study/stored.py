"""What is recorded at a storage of a study's cells, and which files of a cell travel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from demur.errors import DemurError
from demur.records import RESULTS, SETTINGS
from demur.study.outcomes import results_of
from demur.study.record import Cell, Outcome

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ENDINGS = (".json", ".jsonl", ".journal", ".f32", ".safetensors")
"""The data of runs and evaluations; pages are made again from them, and nothing else travels."""

_MOST_FILES = 20_000
_LAST = 253_402_000_000
"""Seconds from 1970 to the last days that a date can tell."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class StudyStorage:
    """Whose storage it is: the content of `study.json`.

    Attributes:
        name: name of the study.
        token: tells it from one that was there before (16 hex digits).
    """

    name: str
    token: str


@dataclass(frozen=True)
class StoredFile:
    """A file that travels.

    Attributes:
        name: where it belongs, with `/` between the parts.
        sha256: SHA-256 of its bytes (64 hex digits).
        size: number of its bytes.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class StoredCell:
    """A finished cell at the storage.

    Attributes:
        outcome: what came of it.
        finished: when it was finished, in seconds since 1970.
        files: its files; names are paths in the folder of the cell.
    """

    outcome: Outcome
    finished: float
    files: tuple[StoredFile, ...]


def describe_file(path: Path, name: str) -> StoredFile:
    """A file of this machine as it travels.

    Args:
        path: the file.
        name: where it belongs on the other machine.

    Raises:
        DemurError: it cannot be read.
    """
    try:
        return described(path, name)
    except OSError as error:
        raise DemurError(
            f"Cannot read {str(path)!r:.300} ({error.strerror or error}): give a file that can be "
            "read."
        ) from error


def described(path: Path, name: str) -> StoredFile:
    """The same, where what the system says is told by the caller."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return StoredFile(name, digest.hexdigest(), size)


def files_in(place: Path) -> Iterable[StoredFile]:
    """The files of a cell that travel, in a fixed order.

    Raises:
        DemurError: one cannot be read.
    """
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if _travels(name) and path.is_file() and not path.is_symlink():
            yield describe_file(path, name)


def _travels(name: str) -> bool:
    """Whether a name is one that the data of a cell has, and stays in the cell's folder."""
    parts = name.split("/")
    return (
        len(parts) <= 3 and name.endswith(_ENDINGS) and all(_PART.fullmatch(part) for part in parts)
    )


def require_sound(stored: StoredCell, cell: Cell) -> None:
    """Check what a storage says about a cell.

    Raises:
        ValueError: it is about another cell, or names what no cell has.
    """
    outcome, names = stored.outcome, [file.name for file in stored.files]
    if outcome.folder != cell.folder or outcome.status != "done":
        raise ValueError("it is another cell")
    if sorted(one.name for one in outcome.files) != sorted(results_of(cell)):
        raise ValueError("it has other results than a cell")
    if not 0 <= stored.finished < _LAST:
        raise ValueError("it was finished at no time")
    if len(names) > _MOST_FILES or len({name.lower() for name in names}) < len(names):
        raise ValueError("it has too many files, or one twice")
    if not all(map(_travels, names)) or not {SETTINGS, RESULTS} <= {*names}:
        raise ValueError("it has other files than a cell")
    if any(not _DIGEST.fullmatch(file.sha256) or file.size < 0 for file in stored.files):
        raise ValueError("a checksum is none")
    results = {file.sha256 for file in stored.files if file.name == RESULTS}
    told = {one.sha256 for one in outcome.files if one.name == f"{cell.folder}/{RESULTS}"}
    if results != told:
        raise ValueError("its results are others")
