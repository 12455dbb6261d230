"""Records that are kept one by one in a file of lines, which its journal checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from demur.records.codec import from_line, to_line
from demur.records.journal import Journal

Record = TypeVar("Record")


class KeptRecords(Generic[Record]):
    """Records of one kind: `NAME.jsonl` holds one a line, `NAME.journal` checks them.

    Args:
        folder: folder of both files.
        name: name of the files.
        kind: type of a record.

    Attributes:
        found: the records that were there.

    Raises:
        DemurError: the files are damaged or cannot be written.
    """

    def __init__(self, folder: Path, name: str, kind: type[Record]) -> None:
        file = folder / f"{name}.jsonl"
        self._journal = Journal(folder / f"{name}.journal", (file,))
        self.found: list[Record] = []
        if not self._journal.read():
            self._journal.begin(name)
            return
        last = self._journal.last
        length = 0 if last is None else last.files[0][0]
        # The last part is what follows the last line break: nothing.
        for line in file.read_bytes()[:length].split(b"\n")[:-1]:
            try:
                self.found.append(from_line(kind, line))
            except ValueError as error:
                raise self._journal.damaged("a line holds something else", file) from error

    def append(self, records: Sequence[Record]) -> None:
        """Store some more records and wait until the disk has them.

        Raises:
            DemurError: the disk is full or the file cannot be written.
        """
        self._journal.append((b"".join(map(to_line, records)),), len(records))
