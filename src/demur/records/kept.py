"""Records that are kept one by one in a file of lines, which its journal checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from demur.errors import DemurError
from demur.records.codec import from_line, to_line
from demur.records.journal import Journal

Record = TypeVar("Record")


class KeptRecords(Generic[Record]):
    """Records of one kind: `NAME.jsonl` holds one a line, `NAME.journal` checks them.

    Args:
        folder: folder of both files.
        name: name of the files.
        kind: type of a record.
        header: plain data that says what the records are about; by default the name.
        others: what the records of another header are about, for messages.

    Attributes:
        file: the file of lines.
        found: all records, those that were there first.

    Raises:
        DemurError: the files are damaged, have another header, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        kind: type[Record],
        header: Any = None,
        others: str = "something else",
    ) -> None:
        header = name if header is None else header
        self.file = file = folder / f"{name}.jsonl"
        self._journal = Journal(folder / f"{name}.journal", (file,))
        self.found: list[Record] = []
        if not self._journal.read():
            self._journal.begin(header)
            return
        if self._journal.header != header:
            raise self._journal.damaged(f"it belongs to {others}")
        last = self._journal.last
        length = 0 if last is None else last.files[0][0]
        # The last part is what follows the last line break: nothing.
        for line in file.read_bytes()[:length].split(b"\n")[:-1]:
            try:
                self.found.append(from_line(kind, line))
            except ValueError as error:
                raise self._journal.damaged("a line holds something else", file) from error

    def damaged(self, why: str) -> DemurError:
        """The error for records that are not what they should be, with the file to delete."""
        return self._journal.damaged(why, self.file)

    @property
    def finished(self) -> bool:
        """Whether everything is stored; what stands behind it then is damage."""
        return self._journal.finished

    def append(self, records: Sequence[Record], *, finished: bool = False) -> None:
        """Store some more records and wait until the disk has them.

        Args:
            records: the records, in their order.
            finished: whether no more will follow.

        Raises:
            DemurError: the disk is full or the file cannot be written.
        """
        lines = b"".join(map(to_line, records))
        self._journal.append((lines,), len(records), finished=finished)
        self.found += records
