"""What a method is, and the small objects that it works with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

    from demur.chat import ChatModel, Read
    from demur.chat.engine import TokenReader
    from demur.evaluation.protocol import Protocol as SamplingProtocol
    from demur.judges import Judge
    from demur.optimization.validation import Validation
    from demur.progress import Progress
    from demur.prompts import Condition
    from demur.records import Label, Measurement, Queries, Query


class MethodSettings(BaseModel):
    """Settings of the method."""

    # The first line above is the title of the group in `--help`: a subclass has its own.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


OwnSettings = TypeVar("OwnSettings", bound=MethodSettings)


@dataclass(frozen=True)
class TrainingExample:
    """One example that a prompt is trained on.

    Attributes:
        query: the query, a text or a `Conversation`.
        label: label of the query.
        targets: continuations of the query as token ids, whose log-probabilities the method reads;
            none by default. `ChatModel.target_ids` turns text into ids.
    """

    query: Query
    label: Label
    targets: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Losses:
    """Losses of b training examples.

    Attributes:
        total: (b,), the loss of each example. A step minimizes the mean over its examples.
        terms: for each name in `Method.terms` the (b,) values of that term, unweighted.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class MeasureFunction(Protocol):
    """Measures queries: representations, sampled responses and the judge's verdicts."""

    def __call__(
        self,
        queries: Queries,
        condition: Condition,
        *,
        description: str,
        protocol: SamplingProtocol | None = None,
        epoch: int | None = None,
    ) -> Measurement:
        """Measure queries under a condition, or read the measurement where it is stored already.

        Args:
            queries: N queries.
            condition: what stands before them.
            description: what is being done, for people, for example `Reading queries`.
            protocol: how responses are sampled; by default as the run's settings say.
            epoch: the epoch after which `condition` is the prompt so far; None for a prompt that
                is not trained. The report shows such a measurement as a step of the training.
        """


@dataclass(frozen=True)
class Context:
    """What a method works with. It has nothing to do with files.

    Attributes:
        model: model that the prompt is trained for.
        anchors: the labelled queries to train on.
        basic: the basic prompt, and the application's own system text. Its text is what the
            trained rows take the place of.
        judge: judge of refusal.
        protocol: how responses are sampled and counted.
        seed: seed of everything that is random.
        measure: measures queries and keeps the result.
        progress: reports progress.
        validation: labelled queries that choose among the epochs; None for none.
        benign_budget: share of the harmless validation queries that may be refused, in (0, 1).
    """

    model: ChatModel
    anchors: Queries
    basic: Condition
    judge: Judge
    protocol: SamplingProtocol
    seed: int
    measure: MeasureFunction
    progress: Progress
    validation: Queries | None = None
    benign_budget: float = 0.05

    @property
    def unprompted(self) -> Condition:
        """No safety prompt, and the application's own system text."""
        from demur.prompts import Condition

        return Condition(None, self.basic.system_prompt)


class Method(ABC, Generic[OwnSettings]):
    """How a prompt is trained: what is read of the model, and the loss.

    A method is a subclass in one file. Batches, their order, the optimizer, averaging, checkpoints
    and resuming belong to the loop, which knows no method.

    Whatever a method remembers is rebuilt after an interruption by repeating its calls: `prepare`,
    and then `after_epoch` for each epoch that is finished, with the prompt and the validation of
    that time. So what these do may depend on their arguments, the settings and `Context.measure`
    alone.

    Attributes:
        name: name on the command line.
        title: full name, for people.
        paper: address of the paper that describes the method, or None.
        terms: the terms of the loss, by name. Each is described in one line: a title in lower case,
            a colon, and what it is. Reports and tables take both from here.
        Settings: type of the method's own settings, a `MethodSettings` whose every field has a
            description and a range. Their defaults are those of the preset `standard`. Their names
            must differ from those of the common settings.
        validated: whether it scores refusals, so that validation queries choose among the epochs.
        stages: descriptions of the stages that `prepare` reports, in order; None where they are not
            known, and then no stage of the run is numbered.
        presets: by the name of a preset the settings, common or own, that differ from the common
            ones of that preset. Those of `standard` hold in every preset that does not change them.
            The method has the preset `paper` only if it is named here.
        settings: the method's own settings.

    Example:
        A complete method, in a file `mine.py`. `demur optimize --method mine.py:Openings` trains a
        prompt with it, and with `--help` lists its settings:

            from collections.abc import Sequence

            import torch
            from pydantic import Field

            from demur.chat import Read
            from demur.optimization.methods import (
                Context,
                Losses,
                Method,
                MethodSettings,
                TrainingExample,
            )


            class OpeningSettings(MethodSettings):
                \"\"\"Method: refusal opening.\"\"\"

                opening: str = Field(default="I'm sorry, but", description="opening of a refusal")


            class Openings(Method[OpeningSettings]):
                name = "openings"
                title = "Likelihood of a refusal opening"
                terms = {"opening": "opening loss: cross-entropy of the opening, wanted or not"}
                Settings = OpeningSettings

                def prepare(self, context: Context) -> list[TrainingExample]:
                    opening = tuple(context.model.target_ids(self.settings.opening))
                    self.labels = context.anchors.label_tensor()  # 1 harmful, 0 harmless
                    return [
                        TrainingExample(query, label, targets=(opening,))
                        for query, label in zip(context.anchors.texts, context.anchors.labels)
                    ]

                def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
                    likely = torch.stack([target.sum() for (target,) in read.by_target()])
                    wanted = self.labels[list(rows)]
                    unlikely = torch.log1p(-likely.exp().clamp(max=1 - 1e-6))
                    loss = -(wanted * likely + (1 - wanted) * unlikely)
                    return Losses(loss, {"opening": loss})
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str | None] = None
    terms: ClassVar[Mapping[str, str]]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    validated: ClassVar[bool] = False
    stages: ClassVar[Sequence[str] | None] = None
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}

    def __init__(self, settings: OwnSettings) -> None:
        """Check the settings, before any model is loaded.

        Args:
            settings: an object of the class's `Settings`.

        Raises:
            DemurError: a setting names something that cannot be read.
        """
        self.settings = settings

    def content(self) -> tuple[str, ...]:
        """Fingerprints of what the settings name, for example of files; none by default.

        A run goes on only where they are the same as before.
        """
        return ()

    def check_queries(self, anchors: Queries, basic: Condition) -> None:
        """Check the anchor queries before the model is loaded; does nothing here.

        Args:
            anchors: the labelled queries to train on.
            basic: the basic prompt, and the application's own system text.

        Raises:
            DemurError: they do not suit the settings; the message says how to fix it.
        """

    def check(self, context: Context) -> None:
        """Check that the method can train such a prompt, before anything slow; does nothing here.

        Raises:
            DemurError: it cannot; the message says how to fix it.
        """

    @abstractmethod
    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        """Measure what is needed, and give the examples to train on.

        Returns:
            At least one example. An epoch is one pass over all of them; in balanced batches the
            n-th harmful example stays with the n-th harmless one, where there are as many of each.

        Raises:
            DemurError: the measurements show that the model cannot be trained by this method.
        """

    @abstractmethod
    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        """The losses of a part of a batch.

        A batch is read in one part or several, as memory allows; the losses of an example must not
        depend on the part it is in.

        Args:
            read: what the model makes of the b examples of the part under the prompt that is
                trained, with gradients, all on the CPU: `read.representations` (b, d) float32, and
                `read.by_target()` with the log-probabilities of each example's targets.
            rows: indices of the b examples, in the order in which `prepare` gave them.
            batch: indices of all examples of the step.
        """

    def reader(self, batch: Sequence[int]) -> TokenReader | None:
        """What to read of the logits at target tokens, if not their log-probabilities.

        Args:
            batch: indices of all examples of the step.

        Returns:
            None for the log-probabilities.
        """
        return None

    def refusal_probabilities(
        self, context: Context, queries: Queries, prompt: Condition
    ) -> Tensor | None:
        """Score, without sampling, how likely each query is refused; None by default.

        A method that can do so sets `validated`, and the loop chooses among the prompts of its
        epochs. It is called after every epoch, before `after_epoch`.

        Args:
            context: as for `prepare`.
            queries: N validation queries.
            prompt: the prompt so far, and the application's own system text.

        Returns:
            (N,), in [0, 1]; None, which is an error where `validated` is set, where it cannot.
        """
        return None

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition, validation: Validation | None
    ) -> Sequence[TrainingExample] | None:
        """Do what is to be done between two epochs; nothing by default.

        Called after every epoch but the last.

        Args:
            context: as for `prepare`.
            epoch: number of finished epochs, at least 1.
            prompt: the prompt so far, and the application's own system text.
            validation: how the prompt does on the validation queries; None where the method does
                not score refusals or the run has no validation queries.

        Returns:
            The examples to train on from here, with the queries of `prepare` in the same order
            and other targets; None where they stay as they are.
        """
        return None
