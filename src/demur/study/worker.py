"""A worker of a cluster: does cells in a process of its own, and keeps model and judges between."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from demur.errors import DemurError, first_line
from demur.files import cache_directory, write_bytes, writing
from demur.progress import SilentProgress
from demur.records import RESULTS, fingerprint, kind_of
from demur.study.cells import CellWork
from demur.study.grid import needs_of, run_of
from demur.study.parcel import Parcel, unpack
from demur.study.planning import StudyPlan, plan_study
from demur.study.record import KIND, Cell, Outcome
from demur.study.settings import study_settings
from demur.study.source import StudySource
from demur.study.stored import StoredCell, describe_file
from demur.study.travel import CellStorage

STUDIES = "studies"
"""Subfolder of the cache in which workers have cells of studies whose disk they do not see."""


class Worker:
    """Does cells in a process of the cluster, and keeps model and judges between them.

    Args:
        source: what the study's settings are made from.
        path: folder of the study.
        place: folder that relative paths start at.
        parcel: what the worker needs where it sees neither of these folders.
    """

    def __init__(
        self, source: StudySource, path: Path, place: Path, parcel: Parcel | None = None
    ) -> None:
        self._source, self._path, self._place, self._parcel = source, path, place, parcel
        self._work: CellWork | None = None
        self._away: _Away | None = None

    def prepare(self) -> str:
        """Read the study and load its judges.

        Returns:
            What is wrong; empty where nothing is.
        """
        try:
            self._ready()
        except DemurError as error:
            return _told(error)
        return ""

    def do(self, cell: Cell, run_failed: bool) -> Outcome | str:
        """Do a cell; see `CellWork.outcome`.

        Returns:
            What came of it; or why no cell can be done here.
        """
        try:
            work = self._ready()
            if self._away is None:
                return work.outcome(cell, run_failed=run_failed)
            with self._away.beginning(cell):
                return work.outcome(cell, run_failed=run_failed)
        except DemurError as error:
            return _told(error)

    def _ready(self) -> CellWork:
        if self._work is None:
            plan = self._planned() if self._parcel is None else self._planned_away(self._parcel)
            work = CellWork(plan, SilentProgress())
            work.check()
            self._work = work
        return self._work

    def _planned(self) -> StudyPlan:
        try:
            os.chdir(self._place)
            is_here = kind_of(self._path) == KIND
        except OSError:
            is_here = False
        if not is_here:
            raise DemurError(
                f"The study's folder {self._place / self._path} is not there: put it on a disk "
                "that all machines of the cluster see under the same path, or give --storage."
            )
        return self._plan(self._path)

    def _planned_away(self, parcel: Parcel) -> StudyPlan:
        storage = CellStorage(parcel.url)
        storage.storage.try_out()
        root = cache_directory().absolute() / STUDIES / _folder_of(parcel)
        with writing(root), _locked(root / "files"):
            unpack(parcel, storage, root / "files")
            os.chdir(root / "files")
        # The plan is made for a free place: what lies here of a study are cells of any age.
        plan = self._plan(root / "free")
        plan = replace(plan, path=root / "study", storage=storage, home=parcel.home)
        self._away = _Away(plan, storage)
        return plan

    def _plan(self, path: Path) -> StudyPlan:
        source = self._source
        settings = study_settings(source.given, source.name, source.where)
        return plan_study(settings, path, SilentProgress())


class _Away:
    """A folder of a study on a machine that does not see the command's; it has some of the cells.

    Several workers of one machine share it.
    """

    def __init__(self, plan: StudyPlan, storage: CellStorage) -> None:
        self._plan, self._storage = plan, storage
        self._cells = {cell.folder: cell for cell in plan.record.cells}
        self._needs = needs_of(plan.record.cells)
        self._here: dict[str, StoredCell] = {}

    @contextmanager
    def beginning(self, cell: Cell) -> Iterator[None]:
        """Fetch what a cell needs, and drop what is left of another one with its name."""
        own = self._cells.get(cell.folder)
        if own is None or own.content != cell.content:
            raise DemurError(
                f"{cell.title} is another cell here than where the command runs: put the files "
                "that the study names by absolute paths on each machine, the same ones, and the "
                "same version of demur."
            )
        for folder in sorted(self._needs[cell.folder]):
            self._fetch(self._cells[folder])
        place = self._plan.path / cell.folder
        with writing(place), _locked(place):
            self._drop_other(cell, place)
        yield

    def _fetch(self, cell: Cell) -> None:
        """Fetch a cell that has ended; one that failed is not there."""
        found = self._storage.find(cell)
        if found is None or self._here.get(cell.folder) == found:
            return
        place = self._plan.path / cell.folder
        with writing(place), _locked(place):
            self._storage.fetch(self._plan.path, cell, found)
        self._here[cell.folder] = found

    def _drop_other(self, cell: Cell, place: Path) -> None:
        """Remove the beginning of a cell that had other settings, or measured another run."""
        run = self._plan.path / run_of(cell) / RESULTS
        is_measured = cell.kind == "evaluation" and run.is_file()
        measured = describe_file(run, RESULTS).sha256 if is_measured else ""
        wanted = fingerprint("begun", content=cell.content, run=measured).encode()
        note = self._plan.path / "begun" / f"{cell.folder}.txt"
        if place.exists() and not (note.is_file() and note.read_bytes() == wanted):
            shutil.rmtree(place)
        write_bytes(note, wanted)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Keep the other workers of this machine from changing a folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        yield


def _folder_of(parcel: Parcel) -> str:
    return fingerprint("study away", url=parcel.url, token=parcel.token)[:16]


def _told(error: DemurError) -> str:
    return f"{first_line(error).rstrip('.')} (on {socket.gethostname()})."
