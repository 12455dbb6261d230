"""What is recorded of a run: `settings.json` and `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from demur.evaluation.figures import Figures
from demur.optimization.examples import Example
from demur.optimization.settings import StoredSettings
from demur.records import ConditionRecord, MeasurementKey, ModelRecord, fingerprint, to_plain


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
        terms: the terms of its loss.
    """

    name: str
    title: str
    paper: str | None
    source: str | None
    terms: tuple[TermRecord, ...]


@dataclass(frozen=True)
class JudgeRecord:
    """What is recorded of a judge.

    Attributes:
        name: name of the judge.
        fingerprint: text that changes when its verdicts may change.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True)
class RunRecord:
    """What a run is: the content of `settings.json`.

    Attributes:
        model: the model.
        basic_prompt: the basic prompt, and the application's own system text.
        anchors: queries to train on.
        held_out: queries of the final measurement.
        method: how the prompt is trained.
        judge: judge of refusal.
        settings: every setting, with names where sets, prompts and judges were chosen by name.
        objects: names of the settings that were given as objects in Python, so that no command
            line and no TOML file can say them; empty for a run from the command line.
    """

    model: ModelRecord
    basic_prompt: ConditionRecord
    anchors: QueriesRecord
    held_out: QueriesRecord
    method: MethodRecord
    judge: JudgeRecord
    settings: StoredSettings
    objects: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identity of the run: what its files must belong to."""
        return fingerprint("run", record=to_plain(self))


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of the training came to.

    Attributes:
        loss: mean loss of the examples, as it was when each batch was read. Epochs are comparable
            only as long as the method kept its loss the same between them.
        terms: mean of each term, unweighted.
    """

    loss: float
    terms: Mapping[str, float]


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
            the optimized prompt.
        held_out: identities of these three measurements, in that order.
        readings: measurements that the method asked for, in their order.
        history: the epochs.
        examples: responses before and after.
    """

    run: str
    figures: Figures
    held_out: tuple[MeasurementKey, MeasurementKey, MeasurementKey]
    readings: tuple[ReadingRecord, ...]
    history: tuple[EpochRecord, ...]
    examples: tuple[Example, ...]
