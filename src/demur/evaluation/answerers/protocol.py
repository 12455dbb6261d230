"""What an answerer is: it yields responses, batch by batch, and knows nothing of judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from demur.evaluation.answerers.records import AnswererRecord
from demur.evaluation.divergence import NextTokens
from demur.evaluation.protocol import Protocol as Sampling
from demur.evaluation.settings import FileSettings, ServerSettings
from demur.progress import Progress, Stage
from demur.prompts import Condition
from demur.records import NO_PROMPT, ConditionRecord, Label, Queries, Query

if TYPE_CHECKING:
    from torch import Tensor

    from demur.chat.settings import WorkLoadSettings

MODEL_PROMPTS = (NO_PROMPT, "long")
"""The prompts that are compared on a model that runs here, where none is chosen."""

Settled: TypeAlias = Callable[[str], bool]
"""Whether no continuation of a partial response can change its verdict."""


@dataclass(frozen=True)
class Answer:
    """One response that has not been judged yet.

    Attributes:
        prompt: name of the safety prompt; for people.
        condition: fingerprint of what stood before the query, or None where it is not known.
        set: name of the query set; for people.
        label: label of the query, or None where it is not known.
        category: category of the query, or None.
        query: the query, or None where it is not known.
        text: text of the response; None where what came back holds none.
        end: why the response ended: `content_filter` where a filter withheld it, `refusal` where
            the server itself marked it as a refusal; None where it is not known.
    """

    prompt: str
    condition: str | None
    set: str
    label: Label | None
    category: str | None
    query: Query | None
    text: str | None
    end: str | None


@dataclass(frozen=True)
class Batch:
    """Answers that are stored together.

    Attributes:
        answers: responses, those to one query next to each other.
        items: number of queries (or rows of a file) that they answer.
        representations: (items, d) representations of the queries, or None.
    """

    answers: Sequence[Answer]
    items: int
    representations: Tensor | None = None


@dataclass(frozen=True)
class Question:
    """Queries to be answered under one condition.

    Attributes:
        condition: what stands before the queries.
        name: name of the condition in results; for people.
        queries: the queries.
        protocol: how responses are sampled.
    """

    condition: Condition
    name: str
    queries: Queries
    protocol: Sampling


@dataclass(frozen=True)
class Identity:
    """What a task's answers depend on, judges aside; see `MeasurementKey`.

    Attributes:
        condition: fingerprint of the condition.
        queries: fingerprint of the queries.
        model: fingerprint of the model, server or file.
    """

    condition: str
    queries: str
    model: str


class Task(Protocol):
    """Answers that belong into one measurement."""

    @property
    def identity(self) -> Identity:
        """What the answers depend on."""

    @property
    def condition(self) -> ConditionRecord:
        """What is recorded of the condition."""

    @property
    def set(self) -> str:
        """Name of the query set; for people."""

    @property
    def per_query(self) -> int | None:
        """Number of answers to each query, or None where it varies."""

    @property
    def width(self) -> int:
        """d, the length of each representation; 0 where none are read."""

    @property
    def description(self) -> str:
        """What the stage is called."""

    @property
    def total(self) -> float:
        """Size of the whole task in `unit`."""

    @property
    def unit(self) -> str:
        """Unit of the stage."""

    def batches(
        self, start: int, most: int | None, settled: Settled | None, stage: Stage
    ) -> Iterator[Batch]:
        """Answers from the item `start` on; the stage is advanced over all items.

        Args:
            start: number of items that are stored already.
            most: largest number of answers in a batch, where fewer than usual are wanted.
            settled: whether a partial response needs no more tokens; may be left unused.
            stage: advanced as answers come.
        """


class QuestionTask:
    """What all tasks have in common that put a question to something.

    Attributes:
        question: what is asked, and how responses are sampled.
    """

    question: Question

    @property
    def set(self) -> str:
        """Name of the query set; for people."""
        return self.question.queries.name

    @property
    def total(self) -> float:
        """Number of responses."""
        return len(self.question.queries) * self.question.protocol.sampling.samples

    @property
    def unit(self) -> str:
        """Unit of the stage."""
        return "responses"


@runtime_checkable
class Answerer(Protocol):
    """Anything that answers: it says what it is, finds mistakes early, and makes tasks."""

    @property
    def takes_queries(self) -> bool:
        """Whether the answerer is asked queries; one that is not has its own responses."""

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """The prompts that are compared where none is chosen."""

    @property
    def bare_name(self) -> str:
        """Name of the condition without a safety prompt."""

    @property
    def settings(self) -> WorkLoadSettings | ServerSettings | FileSettings:
        """The settings by which a command names the answerer."""

    def describe(self, progress: Progress) -> AnswererRecord:
        """What is recorded of the answerer. Costs little, and finds what is missing.

        Raises:
            DemurError: it cannot be used, with the reason and how to fix it.
        """

    def condition(self, condition: Condition, name: str) -> ConditionRecord:
        """What is recorded of a condition.

        Raises:
            DemurError: the answerer cannot take it.
        """

    def tasks(self, questions: Sequence[Question]) -> list[Task]:
        """One task for each question, in their order; without questions its own."""

    def check(self, tasks: Sequence[Task], progress: Progress) -> None:
        """Find what cannot be answered before anything is.

        Raises:
            DemurError: a prompt does not fit, a conversation is too long, or a file is malformed.
        """

    def remarks(self) -> list[str]:
        """What is worth saying about the answers once all are there."""


@runtime_checkable
class MeasuresCost(Protocol):
    """An extra of answerers with a model: what a prompt costs on harmless queries."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model."""

    def represent(self, queries: Sequence[Query], condition: Condition, stage: Stage) -> Tensor:
        """Representations of queries, (N, d) float32 on the CPU."""

    def likeliest_answers(
        self, queries: Sequence[Query], condition: Condition, most_tokens: int, stage: Stage
    ) -> list[str]:
        """The answer to each query that takes the likeliest token at every place."""

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as an answer of the model.

        Raises:
            DemurError: the text is blank or cannot be tokenized.
        """

    def answer_states(
        self,
        queries: Sequence[Query],
        answers: Sequence[Sequence[int]],
        condition: Condition,
        stage: Stage,
    ) -> Tensor:
        """What predicts each token of an answer to each query; see `ChatModel.target_states`."""

    def next_tokens(self, first: Tensor, second: Tensor, *, exact: bool = True) -> NextTokens:
        """How far two next-token distributions lie apart; see `divergence.next_tokens`."""
