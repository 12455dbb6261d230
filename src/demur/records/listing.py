"""The files that finished work leaves beside its measurements, listed with their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ListedFile:
    """A file in the folder of some work.

    Attributes:
        name: path of the file in the folder, with `/` between its parts.
        sha256: SHA-256 of its bytes (64 hex digits).
    """

    name: str
    sha256: str


def list_files(folder: Path, places: Iterable[str]) -> tuple[ListedFile, ...]:
    """The files in a folder of work, in a fixed order.

    Args:
        folder: folder of the work.
        places: names of files, and of subfolders whose files are all meant. Those that are missing
            and hidden files are left out.
    """
    found: set[Path] = set()
    for place in places:
        path = folder / place
        found |= {one for one in path.iterdir() if one.is_file()} if path.is_dir() else {path}
    return tuple(
        ListedFile(path.relative_to(folder).as_posix(), _checksum(path))
        for path in sorted(found)
        if path.is_file() and not path.name.startswith(".")
    )


def are_listed(folder: Path, places: Iterable[str], listed: Sequence[ListedFile]) -> bool:
    """Whether all files of a list are in the folder, unchanged.

    Args:
        folder: folder of the work.
        places: as for `list_files`. The list may be a stranger's: no other file is read.
        listed: what `list_files` returned when the work was finished.
    """
    return {*listed} <= {*list_files(folder, places)}


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
