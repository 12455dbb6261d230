"""What several prompts do on the same query sets, side by side, and where it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.captions import judged_text
from demur.evaluation.changed_options import kept_changes
from demur.evaluation.costs import Cost
from demur.evaluation.figures import Difference, Figures, Measure, Measured, PromptRates
from demur.evaluation.record import KIND, EvaluationRecord
from demur.evaluation.tally import Tally
from demur.evaluation.verdict import Verdict, verdicts
from demur.notebook import html_table
from demur.records import (
    JudgedResponse,
    ListedFile,
    Measurement,
    MeasurementStore,
    StoredMeasurement,
    WorkFolder,
    are_listed,
    fingerprint,
    list_files,
    to_plain,
    write_record,
)

RESULTS = "results.json"
BESIDE = ("costs", "outputs", "preferences", "verdicts")
"""Subfolders of what an evaluation computes from its measurements."""

_FORMAT = f"{KIND} results"
_SETTINGS = f"{KIND} settings"

__all__ = [
    "RESULTS",
    "Comparison",
    "Difference",
    "Figures",
    "Measure",
    "Measured",
    "PromptRates",
    "compare",
]


@dataclass(frozen=True)
class Results:
    """The content of `results.json`, which marks an evaluation as finished.

    Attributes:
        settings: fingerprint of the settings that the figures belong to.
        figures: the figures.
        files: costs, outputs and preferences in the folder.
    """

    settings: str
    figures: Figures
    files: tuple[ListedFile, ...]


@dataclass(frozen=True)
class Comparison(Figures):
    """Figures with the folder that holds what was counted.

    Attributes:
        path: folder with every judged response; None where there is none.
        settings: what was measured and how, of an evaluation; None for another kind of work.
        files: costs, outputs and preferences that lie in the folder of a finished evaluation.
    """

    path: Path | None = None
    settings: EvaluationRecord | None = field(default=None, repr=False)
    files: tuple[ListedFile, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls,
        figures: Figures,
        path: Path | None = None,
        settings: EvaluationRecord | None = None,
        files: tuple[ListedFile, ...] = (),
    ) -> Comparison:
        """Figures that were read or counted, with their folder."""
        plain = {each.name: getattr(figures, each.name) for each in fields(Figures)}
        return cls(**plain, path=path, settings=settings, files=files)

    @property
    def figures(self) -> Figures:
        """The figures alone, a record that can be stored."""
        return Figures(**{each.name: getattr(self, each.name) for each in fields(Figures)})

    @property
    def folder(self) -> Path:
        """The folder.

        Raises:
            DemurError: there is none.
        """
        if self.path is None:
            raise DemurError("This comparison has no folder: load it from one.")
        return self.path

    def save(self) -> None:
        """Write `results.json`, which marks the evaluation in the folder as finished.

        Raises:
            DemurError: there is no folder, or it cannot be written.
        """
        if self.settings is None:
            raise DemurError("This comparison is not that of an evaluation: save its own folder.")
        files = list_files(self.folder, BESIDE)
        results = Results(_fingerprint_of(self.settings), self.figures, files)
        write_record(self.folder / RESULTS, results, _FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read the folder of a finished evaluation.

        Raises:
            DemurError: the folder holds none, an unfinished one, or a damaged one.
        """
        folder = WorkFolder.open(Path(path), EvaluationRecord, KIND)
        found = cls.find_finished(folder, folder.stored_fingerprint(KIND))
        if found is None:
            raise DemurError(
                f"The evaluation in {path} is not finished: run its command again to go on."
            )
        return found

    @classmethod
    def find_finished(
        cls, folder: WorkFolder[EvaluationRecord], settings: str | None = None
    ) -> Comparison | None:
        """The figures in a folder of work; None where they are missing or of other settings.

        Args:
            folder: the folder.
            settings: fingerprint of the settings; by default of those that the folder has now.

        Raises:
            DemurError: the file is damaged.
        """
        results = folder.results(Results, KIND)
        if results is None or results.settings != (settings or _fingerprint_of(folder.settings)):
            return None
        return cls.of(results.figures, folder.path, folder.settings, results.files)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        said = [] if self.settings is None else [str(one) for one in self.verdicts]
        return html_table(self._rows(), self._unread(), above=said, folded=self._counted())

    @property
    def verdicts(self) -> list[Verdict]:
        """Whether each prompt is better than none, or than the first; see `verdicts`."""
        conditions = () if self.settings is None else self.settings.conditions
        bare = next((one.name for one in conditions if one.is_bare), None)
        return verdicts(self, bare, (one.name for one in conditions if one.trained))

    @property
    def judged(self) -> str:
        """The judge and the limit of tokens, for example `judge: default, 64 tokens`.

        Empty for figures of other work than an evaluation, and without the limit for responses
        that existed already. A judge of harm that read none of these, or not all, is named.
        """
        record = self.settings
        if record is None:
            return ""
        if not record.conditions:
            text, harm = f"judge: {record.judge.name}", record.harm_judge
            labels = {rates.label for rates in self.rates}
            if harm is not None and None in labels:
                read = (
                    "read only the responses with the label harmful"
                    if "harmful" in labels
                    else "read nothing, because no response has the label harmful"
                )
                text += f"; the judge of harm, {harm.name}, {read}"
            return text
        return judged_text(record.judge.name, record.most_tokens, record.settings.sampling.samples)

    @property
    def has_all_files(self) -> bool:
        """Whether all costs, outputs and preferences are in the folder, unchanged."""
        return are_listed(self.folder, BESIDE, self.files)

    def stored(self) -> Iterator[tuple[Measured, StoredMeasurement]]:
        """Every measurement that was counted, checked.

        Raises:
            DemurError: one is missing, unfinished or damaged.
        """
        store = MeasurementStore(self.folder)
        for measured in self.measured:
            yield measured, store.require_stored(measured.key)

    def measurements(self) -> list[Measurement]:
        """The measurements that were counted, with their responses and representations.

        Raises:
            DemurError: one is missing, unfinished or damaged, or the responses are from files.
        """
        found: list[Measurement] = []
        for measured, stored in self.stored():
            condition = stored.header.condition if stored.header is not None else None
            measurement = stored.measurement(stored.queries())
            if condition is not None and measured.prompt is not None:
                condition = replace(condition, name=measured.prompt)
                measurement = replace(measurement, condition=condition)
            found.append(measurement)
        return found

    def responses(self) -> Iterator[JudgedResponse]:
        """Every judged response that was counted, one at a time.

        Raises:
            DemurError: a measurement is missing, unfinished or damaged.
        """
        for measured, stored in self.stored():
            for row in stored.rows():
                yield measured.labelled(row)


def compare(
    measurements: Sequence[Measurement],
    costs: Iterable[Cost] = (),
    *,
    harm_judged: bool = False,
    path: Path | None = None,
) -> Comparison:
    """Count what several conditions do on the same queries.

    Args:
        measurements: measurements of the conditions, told apart by their fingerprints.
        costs: what the prompts cost on harmless queries.
        harm_judged: whether a judge of harm was asked.
        path: folder whose store holds the measurements, or None.

    Example:
        >>> comparison = compare([measurement_of_none, measurement_of_long])  # doctest: +SKIP
        >>> comparison.find("long", label="harmful").refused.value  # doctest: +SKIP
    """
    tally = Tally(
        harm_judged=harm_judged,
        names={each.condition.fingerprint: each.condition.name for each in measurements},
    )
    for each in measurements:
        tally.add((row for rows in each.responses for row in rows), each.queries.name)
    return Comparison(
        rates=tally.rates(),
        differences=tally.differences(),
        costs=tuple(costs),
        measured=tuple(Measured(each.key, each.name, each.queries.name) for each in measurements),
        changed_options=() if path is None else kept_changes(MeasurementStore(path)),
        path=path,
    )


def _fingerprint_of(settings: EvaluationRecord) -> str:
    return fingerprint(_SETTINGS, settings=to_plain(settings))
