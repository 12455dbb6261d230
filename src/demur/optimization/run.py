"""A finished run: the optimized prompt with everything that was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from demur.errors import DemurError
from demur.evaluation.comparison import Comparison, PromptRates
from demur.evaluation.cost import FOLDER as COSTS
from demur.evaluation.record import JudgeRecord
from demur.evaluation.verdict import Verdict, verdict
from demur.notebook import html_table
from demur.optimization.checkpoints import Checkpoints
from demur.optimization.examples import Example
from demur.optimization.next_step import next_step
from demur.optimization.recorded import (
    EpochRecord,
    MethodRecord,
    QueriesRecord,
    ReadingRecord,
    RunRecord,
    RunResults,
    TermRecord,
)
from demur.optimization.remarks import remark_on_choice
from demur.optimization.validation import Pick, chosen_epoch, front
from demur.prompts import Condition, SafetyPrompt
from demur.prompts.storage import JSON_FILE, TENSOR_FILE
from demur.records import (
    Label,
    Measurement,
    MeasurementStore,
    Queries,
    Versions,
    WorkFolder,
    are_listed,
    damaged,
    read_record,
)

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from demur.evaluation.figures import RateName
    from demur.evaluation.plot import Plot

__all__ = [
    "KIND",
    "PROMPT",
    "RESULTS",
    "EpochRecord",
    "HeldOut",
    "JudgeRecord",
    "MethodRecord",
    "QueriesRecord",
    "Reading",
    "ReadingRecord",
    "Run",
    "RunRecord",
    "RunResults",
    "Step",
    "TermRecord",
]

KIND = "run"
RESULTS = "results.json"
RESULTS_FORMAT = "run results"
PROMPT = "safety_prompt"
BESIDE = (COSTS,)


class HeldOut(NamedTuple):
    """The measurements of the held-out queries.

    Attributes:
        none: measurement under no safety prompt.
        basic: measurement under the basic prompt.
        optimized: measurement under the optimized prompt.
    """

    none: Measurement
    basic: Measurement
    optimized: Measurement


@dataclass(frozen=True)
class Reading:
    """A measurement that the method asked for.

    Attributes:
        title: what was measured, for people.
        measurement: the measurement.
        epoch: the epoch after which the trained prompt was measured; None for other prompts.
    """

    title: str
    measurement: Measurement
    epoch: int | None


@dataclass(frozen=True)
class Step:
    """Where the anchor queries lay at one time of the training.

    Attributes:
        title: `after epoch 2` where they were measured then; `during epoch 2` where each query is
            as the training itself read it, when its batch came.
        epoch: number of the epoch, from 1.
        representations: (N, d) float32, in the order of the anchor queries.
        refusal_rates: rate at which each query was refused, in [0, 1], None of a query without a
            verdict; None where no responses were sampled.
    """

    title: str
    epoch: int
    representations: Tensor
    refusal_rates: tuple[float | None, ...] | None


@dataclass(frozen=True)
class Run:
    """What `optimize` returns: the optimized prompt with everything that was measured of it.

    Attributes:
        path: folder of the run.
        settings: what the run is: model, prompts, queries, method, judge and every setting.
        safety_prompt: the optimized prompt.
        results: everything that `results.json` holds.

    Example:
        >>> run = Run.load("demur-runs/qwen2.5-coder-0.5b-long-standard")
        >>> run.optimized("harmful").refused.value
        0.51
    """

    path: Path
    settings: RunRecord
    safety_prompt: SafetyPrompt
    results: RunResults

    @property
    def comparison(self) -> Comparison:
        """Figures on the held-out queries under no prompt, the basic and the optimized one."""
        return Comparison.of(self.results.figures, self.path)

    @property
    def third_turn(self) -> Comparison | None:
        """The same figures in the third turn of a conversation; None where not measured."""
        found = self.results.third_turn
        return None if found is None else Comparison.of(found, self.path)

    @property
    def examples(self) -> tuple[Example, ...]:
        """One harmful and one harmless query with responses before and after."""
        return self.results.examples

    @property
    def history(self) -> tuple[EpochRecord, ...]:
        """For each epoch the mean of the loss and of every term."""
        return self.results.history

    @property
    def versions(self) -> Versions:
        """Versions of the packages that the results were made with."""
        return self.results.figures.versions

    @property
    def names(self) -> tuple[str, str, str]:
        """What `comparison` calls no prompt, the basic prompt and the optimized prompt."""
        none, basic, optimized = (str(one.prompt) for one in self.results.figures.measured)
        return none, basic, optimized

    @property
    def verdict(self) -> Verdict:
        """Whether the optimized prompt is better than the basic one, in one sentence."""
        none, basic, optimized = self.names
        found = verdict(self.comparison, basic, optimized, bare=none, held_out=True)
        answered = self.optimized("harmful").answered
        return replace(found, advice=next_step(found, self.settings.settings.preset, answered))

    @property
    def remark(self) -> str:
        """What to know of the choice among the epochs; empty where the benign budget was kept."""
        epoch = self.results.epoch
        scored = None if epoch is None else self.history[epoch - 1].validation
        if epoch is None or scored is None:
            return ""
        settings = self.settings.settings
        return remark_on_choice(scored, epoch, settings.pick, settings.training.benign_budget)

    @property
    def judged(self) -> str:
        """The judge and the limit of tokens, for example `judge: paper, 16 tokens`."""
        return self.settings.settings.sampling.judged_by(self.settings.judge.name)

    @property
    def front(self) -> tuple[int, ...]:
        """Epochs whose prompts no other one beats on both labels, from careful to strict.

        They are numbered from 1. There are none where the method scores no refusals.
        """
        return tuple(front([one.validation for one in self.history]))

    def epoch_of(self, pick: Pick) -> int | None:
        """The epoch that a choice takes; None where the method scores no refusals.

        Args:
            pick: `careful`, `balanced` or `strict`.
        """
        budget = self.settings.settings.training.benign_budget
        return chosen_epoch([one.validation for one in self.history], budget, pick)

    def prompt_after(self, epoch: int) -> SafetyPrompt:
        """The prompt that the training had after an epoch.

        Args:
            epoch: number of the epoch, from 1.

        Raises:
            DemurError: there is no such epoch, or its file is missing or damaged.
        """
        if not 1 <= epoch <= len(self.history):
            raise DemurError(
                f"The run in {self.path} has no epoch {epoch}: give 1 to {len(self.history)}."
            )
        stored = checkpoints_of(self.path, self.settings).require(epoch)
        text = self.safety_prompt.text
        return SafetyPrompt(f"after epoch {epoch}", text, stored.prompt)

    def none(self, label: Label) -> PromptRates:
        """Rates without a safety prompt on the held-out queries with a label."""
        return self._rates(0, label)

    def basic(self, label: Label) -> PromptRates:
        """Rates under the basic prompt on the held-out queries with a label."""
        return self._rates(1, label)

    def optimized(self, label: Label) -> PromptRates:
        """Rates under the optimized prompt on the held-out queries with a label."""
        return self._rates(2, label)

    def held_out(self) -> HeldOut:
        """The measurements of the held-out queries.

        Raises:
            DemurError: one of them is missing or damaged.
        """
        return HeldOut(*self.comparison.measurements())

    def readings(self) -> tuple[Reading, ...]:
        """The measurements that the method asked for, in their order.

        Raises:
            DemurError: one of them is missing or damaged.
        """
        store = MeasurementStore(self.path)
        return tuple(
            Reading(one.title, store.require(one.key), one.epoch) for one in self.results.readings
        )

    def anchors(self) -> Queries | None:
        """The queries that the prompt was trained on; None where the method measured none of them.

        Raises:
            DemurError: a measurement is missing or damaged.
        """
        for one in self.results.readings:
            if one.key.queries == self.settings.anchors.fingerprint:
                return MeasurementStore(self.path).require(one.key).queries
        return None

    def steps(self) -> tuple[Step, ...]:
        """Where the anchor queries lay in the course of the training, epoch by epoch.

        There is a step for every epoch after which the method measured the anchors, and for up to
        six other epochs, whose representations the training read anyway.

        Raises:
            DemurError: a file is missing or damaged.
        """
        store, files = MeasurementStore(self.path), checkpoints_of(self.path, self.settings)
        anchors = self.settings.anchors.fingerprint
        measured = {
            one.epoch: one.key for one in self.results.readings if one.key.queries == anchors
        }
        steps: list[Step] = []
        for epoch in range(1, len(self.history) + 1):
            if epoch in measured:
                found = store.require(measured[epoch])
                rates = tuple(found.known_refusal_rates())
                steps.append(Step(f"after epoch {epoch}", epoch, found.states, rates))
                continue
            read = files.require(epoch).representations
            if read is not None:
                steps.append(Step(f"during epoch {epoch}", epoch, read, None))
        return tuple(steps)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a finished run.

        Args:
            path: folder of the run.

        Raises:
            DemurError: the folder holds no run, an unfinished one, or a damaged one.
        """
        folder = WorkFolder.open(Path(path), RunRecord, KIND)
        if not (folder.path / RESULTS).exists():
            raise DemurError(f"The run in {path} is not finished: run its command again to go on.")
        run = read_run(folder)
        if run is None:
            raise DemurError(
                f"The files in {path} are incomplete or belong to different runs: run the run's "
                "command again."
            )
        return run

    def __str__(self) -> str:
        return "\n".join(filter(None, (str(self.comparison), str(self.verdict), self.remark)))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        above = [str(self.verdict), *filter(None, [self.remark])]
        return f"{html_table((), above=above)}\n{self.comparison._repr_html_()}"

    def to_pandas(self) -> pandas.DataFrame:
        """The rates before and after as a data frame, as `Comparison.to_pandas` has them."""
        return self.comparison.to_pandas()

    def plot(self, rate: RateName = "refused") -> Plot:
        """The rates before and after, as `Comparison.plot` draws them."""
        return self.comparison.plot(rate)

    def _rates(self, place: int, label: Label) -> PromptRates:
        return self.results.figures.find(self.names[place], label=label)


def read_run(folder: WorkFolder[RunRecord]) -> Run | None:
    """The run whose results lie in a folder.

    Returns:
        None where the results or the prompt are missing, or belong to another run.

    Raises:
        DemurError: a file is damaged.
    """
    prompt_files = (folder.path / PROMPT / name for name in (JSON_FILE, TENSOR_FILE))
    if not all(file.exists() for file in (folder.path / RESULTS, *prompt_files)):
        return None
    results = read_record(folder.path / RESULTS, RunResults, RESULTS_FORMAT, in_work=True)
    try:
        prompt = SafetyPrompt.load(folder.path / PROMPT)
    except DemurError as error:
        raise damaged(folder.path / PROMPT) from error
    condition = Condition(prompt, folder.settings.basic_prompt.system_prompt)
    if results.run != folder.settings.fingerprint:
        return None
    measured = results.figures.measured
    if len(measured) != 3 or measured[-1].key.condition != condition.fingerprint:
        return None
    return Run(folder.path, folder.settings, prompt, results)


def finished_run(folder: WorkFolder[RunRecord]) -> Run | None:
    """The run in a folder, if every file of it is there; None where something is missing.

    Raises:
        DemurError: a file is damaged.
    """
    run = read_run(folder)
    if run is None:
        return None
    keys = [one.key for one in run.results.figures.measured]
    keys += [one.key for one in run.results.readings]
    if run.results.third_turn is not None:
        keys += [one.key for one in run.results.third_turn.measured]
    if not folder.measurements.has_all(keys):
        return None
    if not are_listed(run.path, BESIDE, run.results.files):
        return None
    return run if checkpoints_of(run.path, run.settings).finished == len(run.history) else None


def checkpoints_of(path: Path, record: RunRecord) -> Checkpoints:
    """The checkpoints of a run's training."""
    return Checkpoints(path, record.fingerprint)
