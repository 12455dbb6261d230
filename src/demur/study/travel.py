"""Cells of a study that travel between machines through a storage, whole or not at all.

    study.json                       whose storage this is
    cells/runs/MODEL/NAME.json       a finished cell: what came of it, and its files with checksums
    files/SHA256                     the content of a file, by its checksum

The files of a cell are stored first, and what names them last. So a transfer that was interrupted
leaves no cell, two that do the same cell at once mix nothing up, and equal files are stored once.
What comes from a storage is a stranger's: every name and every checksum is checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from demur.errors import DemurError
from demur.files import writing
from demur.records import RESULTS, ListedFile, record_bytes, record_from
from demur.study.record import Cell, Outcome
from demur.study.storage import Storage, StorageError
from demur.study.stored import (
    StoredCell,
    StoredFile,
    StudyStorage,
    described,
    files_in,
    require_sound,
)
from demur.temporary import remove_leftovers, temporary

STORAGE = "study.json"
CELLS = "cells"
FILES = "files"

_FORMAT = "study storage"
_CELL_FORMAT = "stored cell"
_TOKEN = re.compile(r"[0-9a-f]{16}")


class DamagedCell(StorageError):
    """What is stored of a cell is not what was sent there; it is gone from the storage now."""


class CellStorage:
    """The cells of one study at a storage.

    Args:
        url: address of the study's folder there.

    Attributes:
        storage: the folder.

    Raises:
        DemurError: the address cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)

    @property
    def url(self) -> str:
        """The address of the study's folder."""
        return self.storage.url

    def owner(self, name: str) -> StudyStorage | None:
        """Whose storage it is; None where there is nothing yet.

        Args:
            name: name of the study that wants to use it.

        Raises:
            DemurError: another study, or something else, is there.
        """
        content = self.storage.read(STORAGE)
        if content is None:
            if not self.storage.is_empty:
                raise DemurError(
                    f"{self.url} holds something else than a study: give a folder of its own there."
                )
            return None
        try:
            found = record_from(content, StudyStorage, _FORMAT)
            if not _TOKEN.fullmatch(found.token):
                raise ValueError("it has another token")
        except ValueError as error:
            raise DemurError(
                f"{self.url}/{STORAGE} is damaged, or that of another version of demur: give "
                "another address, or empty this one."
            ) from error
        if found.name != name:
            raise DemurError(
                f"{self.url} holds the study {found.name!r:.80}, and this one is {name!r:.80}: "
                "give each a folder of its own there."
            )
        return found

    def begin(self, name: str) -> StudyStorage:
        """Make the storage that of a study, or go on with it.

        Raises:
            DemurError: another study, or something else, is there, or it cannot be written.
        """
        found = self.owner(name)
        if found is None:
            new = StudyStorage(name, token_hex(8))
            self.storage.write(STORAGE, record_bytes(new, _FORMAT))
            found = self.owner(name)
        if found is None:
            raise StorageError(
                f"What was written to {self.url} is not there when it is read: give an address of "
                "another storage."
            )
        return found

    def cells(self, wanted: Iterable[Cell]) -> Mapping[str, StoredCell]:
        """The finished cells that are there, by their folders.

        Args:
            wanted: cells of the study.

        Raises:
            DemurError: one was done with other settings than it has now.
        """
        names = {*self.storage.names(CELLS)}
        there = [cell for cell in wanted if f"{cell.folder}.json" in names]
        found = zip(there, self.storage.each(self.find, there), strict=True)
        return {cell.folder: stored for cell, stored in found if stored is not None}

    def find(self, cell: Cell) -> StoredCell | None:
        """A finished cell; None where there is none, or none that was stored to its end.

        Raises:
            DemurError: it was done with other settings than it has now.
        """
        content = self.storage.read(_place(cell))
        if content is None:
            return None
        try:
            found = record_from(content, StoredCell, _CELL_FORMAT)
            require_sound(found, cell)
        except ValueError:
            return None
        if found.outcome.content != cell.content:
            raise DemurError(
                f"{self.url} has the cell {cell.folder} with other settings than the study has "
                "now: give another address, or empty this one."
            )
        return found

    def publish(self, root: Path, cell: Cell, outcome: Outcome) -> Outcome:
        """Store a finished cell, unless another worker has stored it meanwhile.

        Args:
            root: folder of the study on this machine.
            cell: the cell.
            outcome: what came of it, with the checksums of its results.

        Returns:
            What came of the cell that is at the storage now. Where that is another worker's, the
            folder on this machine has its files.

        Raises:
            DemurError: the storage cannot be used.
        """
        place = root / cell.folder
        there = self.find(cell)
        if there is not None and _same_run(there.outcome, outcome, cell):
            with suppress(DamagedCell):  # then this one takes its place
                self.fetch(root, cell, there)
                return there.outcome
        files = tuple(files_in(place))
        self.storage.each(lambda file: self.send(place / file.name, file), files)
        with writing(place):
            finished = (place / RESULTS).stat().st_mtime
        stored = StoredCell(outcome, finished, files)
        self.storage.write(_place(cell), record_bytes(stored, _CELL_FORMAT))
        return outcome

    def fetch(self, root: Path, cell: Cell, stored: StoredCell) -> None:
        """Put the files of a finished cell into the folder of the study, all or none.

        What is there of the cell in another state is replaced.

        Args:
            root: folder of the study on this machine.
            cell: the cell.
            stored: what `find` returned for it.

        Raises:
            DamagedCell: a file is missing at the storage or was changed there.
            DemurError: the storage cannot be read, or this machine's disk cannot be written.
        """
        place = root / cell.folder
        if not place.resolve().is_relative_to(root.resolve()):
            raise DemurError(f"{place} leads out of {root}, by a link: delete the link.")
        if {*stored.files} == {*files_in(place)}:
            return
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(place.parent, place.name)
            with temporary(place, is_folder=True) as workspace:
                new = workspace / "new"
                new.mkdir()
                for file in stored.files:
                    (new / file.name).parent.mkdir(parents=True, exist_ok=True)
                self.storage.each(
                    lambda file: self.receive(new / file.name, file, cell), stored.files
                )
                os.utime(new / RESULTS, (stored.finished, stored.finished))
                if place.exists():
                    place.rename(workspace / "old")
                new.rename(place)

    def forget(self, cell: Cell) -> None:
        """Let a cell count as not finished at the storage, so that it is stored anew."""
        self.storage.remove(_place(cell))

    def send(self, path: Path, file: StoredFile) -> None:
        """Store the content of a file, unless it is there.

        Args:
            path: the file on this machine.
            file: its checksum and size.

        Raises:
            StorageError: the storage cannot be used.
        """
        name = f"{FILES}/{file.sha256}"
        if self.storage.size(name) != file.size:
            self.storage.put(name, path)

    def receive(self, path: Path, file: StoredFile, cell: Cell | None = None) -> None:
        """Write the content of a file to this machine.

        Args:
            path: where it belongs.
            file: its checksum and size.
            cell: the cell that it belongs to, which is removed from the storage where the file is
                not what was sent; None for no cell.

        Raises:
            DamagedCell: it is not.
            DemurError: the storage cannot be read, or the disk cannot be written.
        """
        name = f"{FILES}/{file.sha256}"
        for _ in range(2):  # the way from there may have been at fault
            if self.storage.get(name, path) and described(path, file.name) == file:
                return
            path.unlink(missing_ok=True)
        self.storage.remove(name)
        if cell is None:
            raise DamagedCell(
                f"{file.name!r:.200} was changed on its way through {self.url}: run the same "
                "command again."
            )
        self.forget(cell)
        raise DamagedCell(
            f"A file of {cell.folder} at {self.url} was missing or changed there: run the same "
            "command again, which does that cell once more where no machine has it."
        )


def _place(cell: Cell) -> str:
    return f"{CELLS}/{cell.folder}.json"


def _same_run(one: Outcome, other: Outcome, cell: Cell) -> bool:
    """Whether two outcomes of a cell belong to the same run, where they measure one."""
    return _others(one, cell) == _others(other, cell)


def _others(outcome: Outcome, cell: Cell) -> set[ListedFile]:
    return {file for file in outcome.files if file.name != f"{cell.folder}/{RESULTS}"}
