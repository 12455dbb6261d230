"""What came of a study's cells, kept one by one as they end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from demur.records import ListedFile, are_listed, list_files
from demur.records.folder import RESULTS
from demur.records.kept import KeptRecords
from demur.study.grid import run_of
from demur.study.record import OUTCOMES, Cell, Outcome


def read_outcomes(path: Path) -> Mapping[str, Outcome]:
    """The last outcome of each cell of a study, by the cell's folder.

    Args:
        path: folder of the study; need not exist.

    Raises:
        DemurError: the files are damaged.
    """
    if not (path / f"{OUTCOMES}.journal").exists():
        return {}
    return {one.folder: one for one in KeptRecords(path, OUTCOMES, Outcome).found}


def files_of(path: Path, cell: Cell) -> tuple[ListedFile, ...]:
    """The results that a finished cell ended with, with their checksums.

    Args:
        path: folder of the study.
        cell: the cell.
    """
    return list_files(path, results_of(cell))


def is_as_left(path: Path, cell: Cell, outcome: Outcome) -> bool:
    """Whether the results of a cell are those that it ended with.

    A folder that was exchanged for that of another cell, or changed since then, has other ones.

    Args:
        path: folder of the study.
        cell: the cell.
        outcome: what came of it.
    """
    wanted = results_of(cell)
    named = {one.name for one in outcome.files}
    same = outcome.content == cell.content and named == set(wanted)
    return same and are_listed(path, wanted, outcome.files)


def results_of(cell: Cell) -> list[str]:
    """Results that a cell writes, and those of the run whose prompt it measures.

    Args:
        cell: the cell.

    Returns:
        Paths in the folder of the study.
    """
    measures_run = cell.kind == "evaluation" and cell.prompt is not None
    return [f"{one}/{RESULTS}" for one in (cell.folder, *([run_of(cell)] if measures_run else []))]
