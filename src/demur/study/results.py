"""A study that was done: its tables, figures and pages, made from its cells without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from demur.bars import default_progress
from demur.errors import DemurError
from demur.evaluation.captions import judged_text
from demur.files import write_bytes
from demur.notebook import data_frame
from demur.progress import Progress
from demur.records import WorkFolder
from demur.report import write_report
from demur.report.writing import REPORT
from demur.study import formats
from demur.study.alike import require_alike
from demur.study.export import EXTRA, PARQUET_FILE, Sink, has_parquet, sinks
from demur.study.grid import require_own_folders
from demur.study.record import FIGURES, KIND, Cell, Outcome, StudyRecord, StudyResults
from demur.study.rows import COLUMNS, Response, Row, added_by, arms_of, row_of
from demur.study.table import Counter, StudyTable

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class FinishedStudy:
    """A study all of whose cells were done or have failed.

    Attributes:
        path: folder of the study.
        record: the cells, and what they are about.
        outcomes: what came of each cell, in their order.

    Example:
        >>> study = FinishedStudy.load("demur-studies/small")  # doctest: +SKIP
        >>> print(study.table)  # doctest: +SKIP
        >>> study.to_pandas().groupby(["model", "prompt", "method"]).size()  # doctest: +SKIP
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
                end, or a cell was changed, exchanged or measured otherwise than the rest.
        """
        folder = WorkFolder.open(Path(path), StudyRecord, KIND)
        require_own_folders(folder.path, folder.settings)
        results = folder.results(StudyResults, KIND)
        if results is None:
            raise DemurError(
                f"The study in {path} is not finished: run its command again to go on."
            )
        found = cls(folder.path, folder.settings, results.outcomes)
        require_alike(found.path, {cell: found._by_folder[cell.folder] for cell in found.done})
        return found

    @property
    def failures(self) -> tuple[tuple[Cell, str], ...]:
        """Each cell that failed, with the reason."""
        return tuple(
            (cell, one.reason)
            for cell in self.record.cells
            if (one := self._by_folder.get(cell.folder)) is not None and one.status == "failed"
        )

    @property
    def done(self) -> tuple[Cell, ...]:
        """The cells that are done."""
        return tuple(
            cell
            for cell in self.record.cells
            if (one := self._by_folder.get(cell.folder)) is not None and one.status == "done"
        )

    @property
    def evaluations(self) -> tuple[Cell, ...]:
        """The evaluations that are done."""
        return tuple(cell for cell in self.done if cell.kind == "evaluation")

    @cached_property
    def table(self) -> StudyTable:
        """Means with intervals, paired tests and ranks, counted from the stored responses.

        Raises:
            DemurError: a cell is damaged.
        """
        counter = self._counter()
        for cell in self.evaluations:
            for one in self._responses(cell, counter):
                counter.add(cell.model, one.arm, cell.seed, one.judged)
        return counter.table()

    def rows(self) -> Iterator[Row]:
        """Every measured response with what it belongs to, one at a time.

        Raises:
            DemurError: a cell is damaged.
        """
        counter = self._counter()
        for cell in self.evaluations:
            yield from self._rows(cell, counter)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame.

        Raises:
            DemurError: pandas is not installed, or a cell is damaged.
        """
        values = ([getattr(row, name) for name in COLUMNS] for row in self.rows())
        return data_frame(COLUMNS, values, EXTRA)

    def write(self, progress: Progress | None = None, *, pages: bool = True) -> Path:
        """Write the rows, the tables, the figures and the pages again; no model is needed.

        Args:
            progress: reports progress.
            pages: whether the pages of the cells are written again as well; those that are missing
                always are.

        Returns:
            The study's own page.

        Raises:
            DemurError: a cell is damaged, or the folder cannot be written.
        """
        from demur.study.drawing import figures_of
        from demur.study.page import study_page

        progress = progress or default_progress()
        table = self.tabulate(progress)
        with progress.stage("Drawing the figures", 1) as stage:
            figures = figures_of(table, self.record.methods)
            stage.advance()
        for name, kinds in figures.items():
            for kind, data in kinds.items():
                write_bytes(self.path / FIGURES / f"{name}.{kind}", data)
        self._write_pages(progress, every=pages)
        page = study_page(self.path, self.record, self._by_folder, table, figures)
        write_bytes(self.path / REPORT, page)
        return self.path / REPORT

    def tabulate(self, progress: Progress | None = None) -> StudyTable:
        """Write the rows and the tables, in one pass over the stored responses.

        Args:
            progress: reports progress.

        Raises:
            DemurError: a cell is damaged, or the folder cannot be written.
        """
        progress = progress or default_progress()
        counter = self._counter()
        with (
            sinks(self.path) as found,
            progress.stage("Counting the responses", len(self.evaluations), "cells") as stage,
        ):
            for cell in self.evaluations:
                self._count(cell, counter, found)
                stage.advance()
        if not has_parquet():
            progress.message(f"{PARQUET_FILE} is left out, because it needs {EXTRA}.")
        table = self.__dict__["table"] = counter.table()
        texts = {
            "figures.csv": formats.figures_csv(table),
            "tests.csv": formats.tests_csv(table),
            "table.md": formats.markdown(table).encode("utf-8", "replace"),
            "table.tex": formats.latex(table).encode("utf-8", "replace"),
        }
        if table.costs:
            texts["costs.csv"] = formats.costs_csv(table)
        for name, data in texts.items():
            write_bytes(self.path / name, data)
        return table

    def __str__(self) -> str:
        return str(self.table)

    def _repr_markdown_(self) -> str:
        """The tables, as a notebook shows them."""
        return formats.markdown(self.table)

    @cached_property
    def _by_folder(self) -> Mapping[str, Outcome]:
        return {one.folder: one for one in self.outcomes}

    def _counter(self) -> Counter:
        chosen = self.record.evaluation
        judged = judged_text(chosen.judges.judge, chosen.most_tokens, chosen.sampling.samples)
        return Counter(self.record.models, tuple(arms_of(self.record)), judged)

    def _responses(self, cell: Cell, counter: Counter) -> Iterator[Response]:
        """The responses that an evaluation adds, after its costs are counted."""
        added = added_by(self.path, self.record, cell)
        for arm, cost in added.costs():
            counter.add_cost(cell.model, arm, cell.seed, cost)
        return added.responses()

    def _rows(self, cell: Cell, counter: Counter) -> Iterator[Row]:
        for one in self._responses(cell, counter):
            yield row_of(one, counter.add(cell.model, one.arm, cell.seed, one.judged))

    def _count(self, cell: Cell, counter: Counter, found: Sequence[Sink]) -> None:
        for row in self._rows(cell, counter):
            for sink in found:
                sink.add(row)

    def _write_pages(self, progress: Progress, *, every: bool) -> None:
        cells = [cell for cell in self.done if every or not self._has_page(cell)]
        if not cells:
            return
        with progress.stage("Writing the pages of the cells", len(cells), "pages") as stage:
            for cell in cells:
                write_report(self.path / cell.folder)
                stage.advance()

    def _has_page(self, cell: Cell) -> bool:
        return (self.path / cell.folder / REPORT).is_file()
