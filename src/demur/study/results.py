"""A study that was done: what came of its cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.errors import DemurError
from demur.records import WorkFolder
from demur.study.record import KIND, Cell, Outcome, StudyRecord, StudyResults


@dataclass(frozen=True)
class FinishedStudy:
    """A study all of whose cells were done or have failed.

    Attributes:
        path: folder of the study.
        record: the cells, and what they are about.
        outcomes: what came of each cell, in their order.
    """

    path: Path
    record: StudyRecord
    outcomes: tuple[Outcome, ...]

    @classmethod
    def load(cls, path: str | Path) -> FinishedStudy:
        """Read the folder of a study.

        Args:
            path: the folder.

        Raises:
            DemurError: it is no folder of a study, a damaged one, or one that was not done to its
                end.
        """
        folder = WorkFolder.open(Path(path), StudyRecord, KIND)
        results = folder.results(StudyResults, KIND)
        if results is None:
            raise DemurError(
                f"The study in {path} is not finished: run its command again to go on."
            )
        return cls(folder.path, folder.settings, results.outcomes)

    @property
    def failures(self) -> tuple[tuple[Cell, str], ...]:
        """Each cell that failed, with the reason."""
        cells = {cell.folder: cell for cell in self.record.cells}
        return tuple(
            (cells[one.folder], one.reason)
            for one in self.outcomes
            if one.status == "failed" and one.folder in cells
        )
