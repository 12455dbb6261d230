"""Files that grow by appending, checked by length and checksum when they are read.

A journal lies beside its data files. Each append writes the new data first and then one line to
the journal with the length and the SHA-256 of every data file so far. What lies behind the last
entry is an append that was interrupted: it is dropped. Each journal line carries a checksum over
the lines before it, so a line that was dropped or changed is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.files import append_bytes, write_bytes, writing
from demur.records.codec import VERSION, canonical, unreadable

_CHUNK = 1 << 20
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Entry:
    """One append.

    Attributes:
        items: number of items that the data files hold.
        finished: whether no more will follow.
        files: for each data file its length in bytes and its SHA-256.
    """

    items: int
    finished: bool
    files: tuple[tuple[int, str], ...]


class Journal:
    """The journal of one or more data files.

    Args:
        path: the journal's own file.
        data: the data files that grow together.

    Attributes:
        header: what the journal is about, as it was given to `begin`; None before that.
        last: the last append, or None before the first.
    """

    def __init__(self, path: Path, data: Sequence[Path]) -> None:
        self.path = path
        self.data = tuple(data)
        self.header: Any = None
        self.last: Entry | None = None
        self._check = ""
        self._length = 0
        self._digests = [hashlib.sha256() for _ in self.data]

    @property
    def items(self) -> int:
        """Number of items that are stored."""
        return 0 if self.last is None else self.last.items

    @property
    def finished(self) -> bool:
        """Whether everything is stored."""
        return self.last is not None and self.last.finished

    def read(self) -> bool:
        """Read the journal and check the data files against it.

        Returns:
            Whether there is a journal with its data files. Where any of them is missing there is
            none, and the work starts again.

        Raises:
            DemurError: a file is damaged or cannot be read.
        """
        try:
            return self._read()
        except OSError as error:
            raise self.unreadable(error) from error

    def unreadable(self, error: OSError) -> DemurError:
        """The error for a file that cannot be read, or for a folder in its place."""
        for file in (self.path, *self.data):
            if file.is_dir():
                return DemurError(
                    f"{file} is damaged (it is a folder): delete {file} and run the command "
                    "that made it again."
                )
        return unreadable(Path(error.filename or self.path), error)

    def _read(self) -> bool:
        if not self.path.exists():
            return False
        if any(file.is_dir() for file in self.data):
            raise IsADirectoryError
        lines = self._lines()
        if not lines or any(not file.exists() for file in self.data):
            return False
        head, *entries = lines
        if head.get("format") != "demur journal" or head.get("version") != VERSION:
            raise self.damaged("it was written by another version of demur")
        self.header = head.get("header")
        self.last = self._entry(entries[-1]) if entries else None
        if self.last is not None:
            for place, (length, checksum) in enumerate(self.last.files):
                self._check_data(place, length, checksum)
        return True

    def begin(self, header: Any) -> None:
        """Start an empty journal with empty data files; older ones are replaced.

        Args:
            header: plain JSON data.
        """
        self.header, self.last, self._check = header, None, ""
        self._digests = [hashlib.sha256() for _ in self.data]
        for file in (self.path, *self.data):
            if file.is_dir():
                raise self.unreadable(IsADirectoryError())
        # The journal goes last: without it the data files count for nothing.
        with writing(self.path):
            self.path.unlink(missing_ok=True)
        for file in self.data:
            write_bytes(file, b"")
        head = {"format": "demur journal", "version": VERSION, "header": header}
        line = self._line(head)
        write_bytes(self.path, line)
        self._length = len(line)

    def append(self, parts: Sequence[bytes], items: int, *, finished: bool = False) -> None:
        """Append to the data files, then note it in the journal.

        Args:
            parts: bytes for each data file.
            items: number of items that these bytes hold.
            finished: whether no more will follow.

        Raises:
            DemurError: the disk is full or a file cannot be written.
        """
        files: list[tuple[int, str]] = []
        for place, part in enumerate(parts):
            before = 0 if self.last is None else self.last.files[place][0]
            if part:
                append_bytes(self.data[place], part, at=before)
            self._digests[place].update(part)
            files.append((before + len(part), self._digests[place].hexdigest()))
        entry = Entry(self.items + items, finished, tuple(files))
        content = {"items": entry.items, "finished": entry.finished, "files": entry.files}
        line = self._line(json.loads(canonical(content)))
        append_bytes(self.path, line, at=self._length)
        self._length += len(line)
        self.last = entry

    def damaged(self, why: str, file: Path | None = None) -> DemurError:
        """The error for damage, with the file to delete; the work then starts again."""
        return DemurError(
            f"{file or self.path} is damaged ({why}): delete {self.path} and run the command "
            "that made it again."
        )

    def _line(self, content: Mapping[str, Any]) -> bytes:
        check = self._next_check(content)
        self._check = check
        return canonical({**content, "check": check}) + b"\n"

    def _next_check(self, content: Mapping[str, Any]) -> str:
        return hashlib.sha256(self._check.encode() + canonical(dict(content))).hexdigest()[:32]

    def _lines(self) -> list[dict[str, Any]]:
        """The journal's whole lines, each checked; an unfinished last line is left out."""
        content = self._content()
        self._check, self._length = "", content.rfind(b"\n") + 1
        lines: list[dict[str, Any]] = []
        # The last part is what follows the last line break: nothing, or an interrupted append.
        for line in content.split(b"\n")[:-1]:
            try:
                row = json.loads(line)
                check = row.pop("check")
                if check != self._next_check(row):
                    raise ValueError("the checksum differs")
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                raise self.damaged("a line was changed or is missing") from error
            self._check = check
            lines.append(row)
        return lines

    def _content(self) -> bytes:
        if self.path.stat().st_size > _MOST_BYTES:
            raise self.damaged("it is too large")
        return self.path.read_bytes()

    def _entry(self, row: Mapping[str, Any]) -> Entry:
        try:
            files = tuple((int(length), str(checksum)) for length, checksum in row["files"])
            entry = Entry(int(row["items"]), bool(row["finished"]), files)
        except (KeyError, TypeError, ValueError) as error:
            raise self.damaged("an entry is incomplete") from error
        if len(entry.files) != len(self.data):
            raise self.damaged("an entry is incomplete")
        return entry

    def _check_data(self, place: int, length: int, checksum: str) -> None:
        file, digest = self.data[place], hashlib.sha256()
        left = length
        with file.open("rb") as stream:
            while left and (chunk := stream.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
        if left:
            raise self.damaged("it is shorter than what was written", file)
        if digest.hexdigest() != checksum:
            raise self.damaged("its content was changed", file)
        if self.finished and file.stat().st_size != length:
            raise self.damaged("it is longer than what was written", file)
        self._digests[place] = digest
