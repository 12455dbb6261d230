"""What a capability check found, and where it is stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from demur.capability.settings import CapabilitySettings
from demur.chat.settings import LoadSettings
from demur.errors import DemurError
from demur.evaluation.figures import SIGNIFICANCE
from demur.evaluation.statistics import mean_interval, sign_flip_p_value
from demur.notebook import html_table
from demur.records import (
    ConditionRecord,
    Interval,
    ListedFile,
    ModelRecord,
    Versions,
    WorkFolder,
    are_listed,
    fingerprint,
    to_plain,
    write_record,
)

KIND = "capability check"
RESULTS = "results.json"
SCORES = "scores"
_FORMAT = f"{KIND} results"
_Z = 1.959964
_ROUNDING = 1e-6


@dataclass(frozen=True)
class MetricValues:
    """A metric of a task under one condition.

    Attributes:
        metric: name of the metric, for example `acc`.
        filter: name of the filter that the answers went through; `none` for no filter.
        value: the metric over all samples, as lm-eval aggregates it.
        samples: value of each sample; empty where a sample has no number of its own.
    """

    metric: str
    filter: str
    value: float
    samples: tuple[float, ...]


@dataclass(frozen=True)
class TaskScores:
    """What a model scores on a task under one condition.

    Attributes:
        task: name of the task.
        version: version of the task.
        documents: hash of each sample's content, in their order.
        metrics: the metrics.
    """

    task: str
    version: str
    documents: tuple[str, ...]
    metrics: tuple[MetricValues, ...]


@dataclass(frozen=True)
class Change:
    """How a metric of a task changes with the prompt.

    Attributes:
        task: name of the task.
        metric: name of the metric, with its filter where it has one.
        samples: number of samples.
        before: the metric without the prompt.
        after: the metric with it.
        interval: 95 % interval of the difference, from the samples as pairs; None where a sample
            has no number of its own.
        p_value: two-sided p-value of the paired sign-flip test, likewise.
    """

    task: str
    metric: str
    samples: int
    before: float
    after: float
    interval: Interval | None
    p_value: float | None

    @property
    def difference(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def more_than_chance(self) -> bool:
        """Whether the paired test tells the difference from chance; not adjusted for tasks."""
        return self.p_value is not None and self.p_value < SIGNIFICANCE

    @property
    def is_worse(self) -> bool:
        """Whether a share fell by more than chance; other metrics may be better where they fall."""
        return self.more_than_chance and self.is_share and self.difference < 0

    @property
    def in_words(self) -> str:
        """What it came to, as a sentence.

        Example:
            `arc_easy (acc): 62.0 % before and 60.5 % after, -1.5 points (-4.6 to +1.6), within
            chance, on 200 samples.`
        """
        chance = "more than chance" if self.more_than_chance else "within chance"
        chance = "not tested" if self.p_value is None else chance
        before, after, difference, interval = self.cells
        unit, points = (" %", " points") if self.is_share else ("", "")
        return (
            f"{self.task} ({self.metric}): {before}{unit} before and {after}{unit} after, "
            f"{difference}{points}{interval}, {chance}, on {self.samples} samples."
        )

    @property
    def is_share(self) -> bool:
        """Whether the metric may be a share; one of another scale has no percent."""
        return 0 <= self.before <= 1 and 0 <= self.after <= 1

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Before, after, the difference and its interval, in percent where they are shares."""
        scale = 100 if self.is_share else 1
        interval = ""
        if self.interval is not None:
            low, high = scale * self.interval.low, scale * self.interval.high
            interval = f" ({low:+.1f} to {high:+.1f})"
        before, after, difference = (
            scale * one for one in (self.before, self.after, self.difference)
        )
        return f"{before:.1f}", f"{after:.1f}", f"{difference:+.1f}", interval


def changes_in_words(changes: Sequence[Change]) -> str:
    """Which tasks changed by more than chance, in a sentence.

    Example:
        `Worse: arc_easy (acc) -12.0 points, more than chance.`
    """
    kinds: dict[str, list[str]] = {"Worse": [], "Better": [], "Changed": []}
    for one in changes:
        if one.more_than_chance:
            kind = "Worse" if one.is_worse else "Better" if one.is_share else "Changed"
            points = " points" if one.is_share else ""
            kinds[kind].append(f"{one.task} ({one.metric}) {one.cells[2]}{points}")
    told = [f"{kind}: {', '.join(parts)}" for kind, parts in kinds.items() if parts]
    if not told:
        return "No task changed by more than chance."
    return f"{'; '.join(told)}, more than chance."


@dataclass(frozen=True)
class CapabilityIdentity:
    """What makes checks the same one: everything but names and wording."""

    model: ModelRecord
    conditions: tuple[str, ...]
    tasks: tuple[str, ...]
    limit: int
    fewshot: int | None
    lm_eval: str


@dataclass(frozen=True)
class CapabilityRecord:
    """What is checked, and how.

    Attributes:
        model: the model.
        conditions: no prompt, and the prompt.
        settings: settings as they were chosen.
        load: how the model was loaded.
        lm_eval: version of lm-eval.
    """

    model: ModelRecord
    conditions: tuple[ConditionRecord, ConditionRecord]
    settings: CapabilitySettings
    load: LoadSettings
    lm_eval: str

    def identity(self) -> CapabilityIdentity:
        """What must be the same for the check to go on."""
        return CapabilityIdentity(
            model=replace(self.model, name=""),
            conditions=tuple(one.fingerprint for one in self.conditions),
            tasks=self.settings.tasks,
            limit=self.settings.limit,
            fewshot=self.settings.fewshot,
            lm_eval=self.lm_eval,
        )

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the identity."""
        return fingerprint(KIND, identity=to_plain(self.identity()))


@dataclass(frozen=True)
class CapabilityResults:
    """The content of `results.json`, which marks the check as finished.

    Attributes:
        check: fingerprint of the check that the figures belong to.
        before: scores without the prompt.
        after: scores with it.
        versions: versions of the packages that they were made with.
        files: files of the scores.
    """

    check: str
    before: tuple[TaskScores, ...]
    after: tuple[TaskScores, ...]
    versions: Versions
    files: tuple[ListedFile, ...] = ()


@dataclass(frozen=True)
class Capability:
    """A finished check.

    Attributes:
        path: folder of the check.
        settings: what was checked, and how.
        results: scores before and after.

    Example:
        >>> Capability.load("demur-capability/my-run").changes[0].in_words  # doctest: +SKIP
    """

    path: Path
    settings: CapabilityRecord
    results: CapabilityResults

    @property
    def changes(self) -> tuple[Change, ...]:
        """How every metric of every task changes, in the order of the tasks."""
        return tuple(
            _change(before, one, other)
            for before, after in zip(self.results.before, self.results.after, strict=True)
            for one, other in zip(before.metrics, after.metrics, strict=True)
        )

    @property
    def sentence(self) -> str:
        """What came of it for a person; see `changes_in_words`."""
        return changes_in_words(self.changes)

    @property
    def is_worse(self) -> bool:
        """Whether a task got worse by more than chance."""
        return any(one.is_worse for one in self.changes)

    @property
    def has_all_files(self) -> bool:
        """Whether all scores are in the folder, unchanged."""
        return are_listed(self.path, (SCORES,), self.results.files)

    def save(self) -> None:
        """Write `results.json`, which marks the check as finished."""
        write_record(self.path / RESULTS, self.results, _FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> Capability:
        """Read the folder of a finished check.

        Raises:
            DemurError: the folder holds none, an unfinished one, or a damaged one.
        """
        folder = WorkFolder.open(Path(path), CapabilityRecord, KIND)
        found = cls.find_finished(folder)
        if found is None:
            raise DemurError(
                f"The capability check in {path} is not finished: run its command again to go on."
            )
        return found

    @classmethod
    def find_finished(cls, folder: WorkFolder[CapabilityRecord]) -> Capability | None:
        """The check in a folder; None where it is unfinished, or another one.

        Raises:
            DemurError: the file is damaged.
        """
        results = folder.results(CapabilityResults, KIND)
        if results is None or results.check != folder.settings.fingerprint:
            return None
        return cls(folder.path, folder.settings, results)

    def __str__(self) -> str:
        return "\n".join(one.in_words for one in self.changes)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_table((), [one.in_words for one in self.changes])


def _change(scores: TaskScores, before: MetricValues, after: MetricValues) -> Change:
    paired = _is_mean(before) and _is_mean(after) and len(before.samples) == len(after.samples)
    differences = [
        second - first for first, second in zip(before.samples, after.samples, strict=False)
    ]
    metric = before.metric if before.filter == "none" else f"{before.metric}, {before.filter}"
    return Change(
        task=scores.task,
        metric=metric,
        samples=len(scores.documents),
        before=before.value,
        after=after.value,
        interval=paired_interval(differences) if paired else None,
        p_value=sign_flip_p_value(differences) if paired else None,
    )


def _is_mean(values: MetricValues) -> bool:
    """Whether a metric is the mean of its samples, so that they can be compared as pairs."""
    return bool(values.samples) and abs(fmean(values.samples) - values.value) < _ROUNDING


def paired_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """The interval of a mean difference between pairs.

    Where the values of both are 0 or 1, half a pair is added to each of the four cases, so that
    the interval has a width where nothing differs. Elsewhere it is Student's.

    Args:
        differences: for each sample after less before.
        confidence: confidence level; of 0 and 1, only 0.95.

    Returns:
        None where there are fewer than two samples of other values than 0 and 1.

    Source: A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24 (2005).
    """
    if not all(one in (-1, 0, 1) for one in differences):
        return mean_interval(differences, confidence, least=-math.inf)
    number = len(differences) + 2
    gained, lost = differences.count(1) + 0.5, differences.count(-1) + 0.5
    mean = (gained - lost) / number
    spread = math.sqrt(max(0.0, gained + lost - number * mean**2)) / number
    return Interval(max(-1.0, mean - _Z * spread), min(1.0, mean + _Z * spread), confidence)
