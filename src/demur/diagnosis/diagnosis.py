"""A finished diagnosis, and what is recorded of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from demur.chat.settings import WorkLoadSettings
from demur.diagnosis.settings import DiagnoseSettings, NumberSettings
from demur.diagnosis.sheet import Sheet
from demur.endpoint import ChangedOptions
from demur.errors import DemurError
from demur.evaluation.changed_options import kept_changes
from demur.evaluation.record import JudgeRecord
from demur.notebook import html_table
from demur.optimization.groups import ResponseSettings
from demur.optimization.recorded import QueriesRecord
from demur.records import (
    ConditionRecord,
    ListedFile,
    Measurement,
    MeasurementKey,
    MeasurementStore,
    ModelRecord,
    Versions,
    WorkFolder,
    are_listed,
    fingerprint,
    to_plain,
    write_record,
)

KIND = "diagnosis"
RESULTS = "results.json"
DIRECTIONS = "directions.safetensors"
FIGURES = "figures"
BESIDE = (DIRECTIONS, FIGURES)
"""What a diagnosis computes from its measurements."""


@dataclass(frozen=True)
class DiagnosisIdentity:
    """What makes a diagnosis the same one: everything but names and wording.

    Attributes:
        model: the model, without its name.
        conditions: fingerprints of what stood before the anchor queries.
        anchors: fingerprint of the anchor queries.
        judge: fingerprint of the judge of refusal.
        held_out: fingerprints of a run's held-out measurements.
        seed: seed of everything that is random.
        sampling: how responses are sampled.
        numbers: how the numbers are computed.
        fitting: fingerprint of the queries that the probe is fitted to, or None.
    """

    model: ModelRecord
    conditions: tuple[str, ...]
    anchors: str
    judge: str
    held_out: tuple[str, ...]
    seed: int
    sampling: ResponseSettings
    numbers: NumberSettings
    fitting: str | None


@dataclass(frozen=True)
class DiagnosisRecord:
    """What a diagnosis is: the content of `settings.json`.

    Attributes:
        model: the model.
        load: how the model was loaded, so that it can be loaded again.
        conditions: what stood before the anchor queries, no prompt first; no two names are alike.
        anchors: the anchor queries.
        judge: judge of refusal.
        held_out: identities of a run's held-out measurements under no prompt, the basic prompt and
            the optimized one; empty without a run.
        fitting: queries that the probe is fitted to, or None where there is no probe.
        settings: every setting, with names where prompts, sets and judges were chosen by name.
        objects: names of the settings that were given as objects in Python, so that no command
            line can say them.

    Raises:
        ValueError: there is no condition.
    """

    model: ModelRecord
    load: WorkLoadSettings
    conditions: tuple[ConditionRecord, ...]
    anchors: QueriesRecord
    judge: JudgeRecord
    held_out: tuple[MeasurementKey, ...]
    fitting: QueriesRecord | None
    settings: DiagnoseSettings
    objects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ValueError("there is no condition")

    @property
    def fingerprint(self) -> str:
        """Identity of the diagnosis: what its results must belong to."""
        return fingerprint(KIND, record=to_plain(self))

    def identity(self) -> DiagnosisIdentity:
        """What must be the same for the diagnosis to go on."""
        return DiagnosisIdentity(
            model=replace(self.model, name=""),
            conditions=tuple(one.fingerprint for one in self.conditions),
            anchors=self.anchors.fingerprint,
            judge=self.judge.fingerprint,
            held_out=tuple(key.fingerprint for key in self.held_out),
            seed=self.settings.seed,
            sampling=self.settings.sampling,
            numbers=self.settings.numbers,
            fitting=None if self.fitting is None else self.fitting.fingerprint,
        )


@dataclass(frozen=True)
class DiagnosisResults:
    """What a diagnosis came to: the content of `results.json`, which marks it as finished.

    Attributes:
        diagnosis: fingerprint of the `DiagnosisRecord` that the results belong to.
        verdict: what the numbers say, one statement each.
        sheet: the numbers.
        anchors: identities of the measurements of the anchor queries, no prompt first.
        versions: versions of the packages that computed the numbers.
        files: figures and directions in the folder.

    Raises:
        ValueError: there is not one measurement for each condition.
    """

    diagnosis: str
    verdict: tuple[str, ...]
    sheet: Sheet
    anchors: tuple[MeasurementKey, ...]
    versions: Versions
    files: tuple[ListedFile, ...]

    def __post_init__(self) -> None:
        if len(self.anchors) != len(self.sheet.conditions):
            raise ValueError("there is not one measurement for each condition")


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` returns.

    Attributes:
        path: folder of the diagnosis, with the figures and every judged response.
        settings: what was read, how, and of which model.
        results: everything that `results.json` holds.

    Example:
        `Diagnosis.load("demur-diagnoses/mine").sheet.moved("none", "long", "harmful")`
    """

    path: Path
    settings: DiagnosisRecord
    results: DiagnosisResults

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the numbers say, one statement each."""
        return self.results.verdict

    @property
    def sheet(self) -> Sheet:
        """The numbers."""
        return self.results.sheet

    @property
    def versions(self) -> Versions:
        """Versions of the packages that computed the numbers."""
        return self.results.versions

    @classmethod
    def load(cls, path: str | Path) -> Diagnosis:
        """Read the folder of a finished diagnosis.

        Raises:
            DemurError: it is none, or it is unfinished or damaged.
        """
        folder = WorkFolder.open(Path(path), DiagnosisRecord, KIND)
        found = cls.find(folder)
        if found is None:
            raise DemurError(
                f"The diagnosis in {path} is not finished: run its command again to go on."
            )
        return found

    @classmethod
    def find(cls, folder: WorkFolder[DiagnosisRecord]) -> Diagnosis | None:
        """The diagnosis in a folder, or None where it is not finished.

        Raises:
            DemurError: its results are damaged.
        """
        results = folder.results(DiagnosisResults, KIND)
        if results is None or results.diagnosis != folder.settings.fingerprint:
            return None
        return cls(folder.path, folder.settings, results)

    def save(self) -> None:
        """Write `results.json`, which marks the diagnosis as finished."""
        write_record(self.path / RESULTS, self.results, f"{KIND} results")

    @property
    def has_all_files(self) -> bool:
        """Whether all figures and the directions are in the folder, unchanged."""
        return are_listed(self.path, BESIDE, self.results.files)

    def anchors(self) -> tuple[Measurement, ...]:
        """The measurements of the anchor queries, no prompt first.

        Raises:
            DemurError: one is missing or damaged.
        """
        store = MeasurementStore(self.path)
        found = map(store.require, self.results.anchors)
        # A prompt may have got another name since it was measured.
        known = {one.fingerprint: one for one in self.settings.conditions}
        return tuple(
            replace(one, condition=known.get(one.condition.fingerprint, one.condition))
            for one in found
        )

    def held_out(self) -> tuple[Measurement, ...]:
        """A run's held-out queries under no prompt, the basic prompt and the optimized one.

        Raises:
            DemurError: one is missing or damaged.
        """
        store = MeasurementStore(self.path)
        return tuple(map(store.require, self.settings.held_out))

    @property
    def judged(self) -> str:
        """The judge and the limit of tokens, for example `judge: paper, 16 tokens`."""
        return self.settings.settings.sampling.judged_by(self.settings.judge.name)

    @property
    def changed_options(self) -> tuple[ChangedOptions, ...]:
        """How requests to judges behind endpoints were changed, because of what those do not take.

        Raises:
            DemurError: the file of them is damaged.
        """
        return kept_changes(MeasurementStore(self.path))

    def __str__(self) -> str:
        return "\n".join(self.verdict)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_table((), self.verdict)
