"""What is recorded of a run: `settings.json` and `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from demur.chat.settings import WorkLoadSettings
from demur.evaluation.figures import Figures
from demur.evaluation.record import JudgeRecord
from demur.optimization.examples import Example
from demur.optimization.groups import ResponseSettings, TrainingSettings
from demur.optimization.settings import StoredMethodSettings, StoredSettings
from demur.optimization.validation import Validation
from demur.records import (
    ConditionRecord,
    ListedFile,
    MeasurementKey,
    ModelRecord,
    fingerprint,
    to_plain,
)


@dataclass(frozen=True)
class QueriesRecord:
    """What is recorded of queries of both labels.

    Attributes:
        harmful: name of the harmful set; for people.
        harmless: name of the harmless set; for people.
        fingerprint: fingerprint of texts, labels and categories.
    """

    harmful: str
    harmless: str
    fingerprint: str


@dataclass(frozen=True)
class TermRecord:
    """A term of a method's loss.

    Attributes:
        name: name of the term, as in `EpochRecord.terms`.
        description: what it is, in one line.
    """

    name: str
    description: str


@dataclass(frozen=True)
class MethodRecord:
    """What is recorded of a method.

    Attributes:
        name: name of the method on the command line.
        title: full name of the method.
        paper: address of the paper that describes it, or None.
        source: fingerprint of the code of a method of the user's own; None for a built-in one.
        content: fingerprints of what the method's settings name, for example files.
        terms: the terms of its loss.
    """

    name: str
    title: str
    paper: str | None
    source: str | None
    content: tuple[str, ...]
    terms: tuple[TermRecord, ...]


@dataclass(frozen=True)
class RunIdentity:
    """What makes a run the same one: everything but names and wording.

    Attributes:
        model: the model, without its name.
        basic_prompt: fingerprint of the basic prompt with the application's own system text.
        anchors: fingerprint of the queries to train on.
        validation: fingerprint of the queries that choose among the epochs; None for none.
        held_out: fingerprint of the queries of the final measurement.
        judge: fingerprint of the judge of refusal.
        method: name of the method.
        method_source: fingerprint of the code of a method of the user's own, or None.
        method_content: fingerprints of what the method's settings name.
        seed: seed of everything that is random.
        sampling: how responses are sampled.
        training: how the prompt is trained.
        method_settings: the method's own settings.
    """

    model: ModelRecord
    basic_prompt: str
    anchors: str
    validation: str | None
    held_out: str
    judge: str
    method: str
    method_source: str | None
    method_content: tuple[str, ...]
    seed: int
    sampling: ResponseSettings
    training: TrainingSettings
    method_settings: StoredMethodSettings


@dataclass(frozen=True)
class RunRecord:
    """What a run is: the content of `settings.json`.

    Attributes:
        model: the model.
        load: how the model was loaded, so that it can be loaded again.
        basic_prompt: the basic prompt, and the application's own system text.
        anchors: queries to train on.
        validation: queries that choose among the epochs; None where the method scores no refusals.
        held_out: queries of the final measurement.
        method: how the prompt is trained.
        judge: judge of refusal.
        settings: every setting, with names where prompts, sets and judges were chosen by name.
        objects: names of the settings that were given as objects in Python, which no command can
            name; what `settings` has for them is only a description.
    """

    model: ModelRecord
    load: WorkLoadSettings
    basic_prompt: ConditionRecord
    anchors: QueriesRecord
    validation: QueriesRecord | None
    held_out: QueriesRecord
    method: MethodRecord
    judge: JudgeRecord
    settings: StoredSettings
    objects: tuple[str, ...] = ()

    def identity(self) -> RunIdentity:
        """What must be the same for the run to go on."""
        return RunIdentity(
            model=replace(self.model, name=""),
            basic_prompt=self.basic_prompt.fingerprint,
            anchors=self.anchors.fingerprint,
            validation=None if self.validation is None else self.validation.fingerprint,
            held_out=self.held_out.fingerprint,
            judge=self.judge.fingerprint,
            method=self.method.name,
            method_source=self.method.source,
            method_content=self.method.content,
            seed=self.settings.seed,
            sampling=self.settings.sampling,
            training=self.settings.training,
            method_settings=self.settings.method_settings,
        )

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the identity: what the run's files must belong to."""
        return fingerprint("run", identity=to_plain(self.identity()))


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of the training came to.

    Attributes:
        loss: mean loss of the examples, as it was when each batch was read. Epochs are comparable
            only as long as the method kept its loss the same between them.
        terms: mean of each term, unweighted.
        validation: how the prompt after the epoch does on the validation queries; None where that
            was not scored.
        skipped: steps that were left out because their gradients were not finite.
    """

    loss: float
    terms: Mapping[str, float]
    validation: Validation | None = None
    skipped: int = 0


@dataclass(frozen=True)
class ReadingRecord:
    """A measurement that the method asked for.

    Attributes:
        title: what was measured, for people, for example `none` or `after epoch 2`.
        key: identity of the measurement.
        epoch: the epoch after which the trained prompt was measured; None for other prompts.
    """

    title: str
    key: MeasurementKey
    epoch: int | None


@dataclass(frozen=True)
class RunResults:
    """What a run came to: the content of `results.json`, which marks the run as finished.

    Attributes:
        run: fingerprint of the `RunRecord` that the results belong to.
        figures: what was measured on the held-out queries under no prompt, the basic prompt and
            the optimized prompt, in that order.
        third_turn: the same on some of the queries in the third turn of a conversation; None where
            that was not measured.
        readings: measurements that the method asked for, in their order.
        history: the epochs.
        examples: responses before and after.
        epoch: the epoch whose prompt is the result; None where it is not that of one epoch.
        files: files of the costs.

    Raises:
        ValueError: the figures are not those of three prompts on queries of both labels, or there
            is no such epoch.
    """

    run: str
    figures: Figures
    third_turn: Figures | None
    readings: tuple[ReadingRecord, ...]
    history: tuple[EpochRecord, ...]
    examples: tuple[Example, ...]
    epoch: int | None = None
    files: tuple[ListedFile, ...] = ()

    def __post_init__(self) -> None:
        for figures in (self.figures, self.third_turn):
            if figures is not None:
                _require_three_prompts(figures)
        if self.epoch is not None and not 1 <= self.epoch <= len(self.history):
            raise ValueError(f"there is no epoch {self.epoch}")


def _require_three_prompts(figures: Figures) -> None:
    names = [one.prompt for one in figures.measured]
    wanted = sorted((str(name), label) for name in names for label in ("harmful", "harmless"))
    found = sorted((one.prompt, str(one.label)) for one in figures.rates if one.category is None)
    if len({*names} - {None}) != 3 or len(names) != 3 or found != wanted:
        raise ValueError("the figures are not those of three prompts")
