"""What came of a study's cells, kept one by one as they end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from demur.records.kept import KeptRecords
from demur.study.record import OUTCOMES, Outcome


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
