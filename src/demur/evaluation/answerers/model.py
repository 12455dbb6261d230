"""A model that runs here answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from demur.chat import ChatModel
from demur.chat.engine import NotFiniteError, SamplingSettings
from demur.chat.settings import WorkLoadSettings
from demur.evaluation.answerers.protocol import (
    MODEL_PROMPTS,
    Answer,
    Batch,
    Identity,
    Question,
    QuestionTask,
    Settled,
    Task,
)
from demur.evaluation.answerers.unprompted import read_once
from demur.evaluation.divergence import NextTokens, next_tokens
from demur.progress import Progress, Stage
from demur.prompts import Condition, SafetyPrompt
from demur.records import NO_PROMPT, ConditionRecord, ModelRecord, Query

RESPONSES_AT_ONCE = 256
"""Number of responses in a batch, after which they are stored."""


class ModelAnswerer:
    """Lets a model answer, and measures what prompts cost.

    Args:
        model: the model; its weights never change.
    """

    takes_queries = True
    default_prompts = MODEL_PROMPTS
    bare_name = NO_PROMPT

    def __init__(self, model: ChatModel) -> None:
        self.model = model

    @property
    def settings(self) -> WorkLoadSettings:
        """How the model was loaded."""
        return self.model.settings

    def describe(self, progress: Progress) -> ModelRecord:
        """What is recorded of the model."""
        return self.model.record

    def condition(self, condition: Condition, name: str) -> ConditionRecord:
        """What is recorded of a condition.

        Raises:
            DemurError: the prompt was trained for a model of another width.
        """
        if condition.safety_prompt is not None:
            condition.safety_prompt.require_width(self.model.width)
        return condition.record(name)

    def tasks(self, questions: Sequence[Question]) -> list[Task]:
        """One task for each question."""
        return [ModelTask(self.model, question) for question in questions]

    def check(self, tasks: Sequence[Task], progress: Progress) -> None:
        """Find prompts that do not fit and conversations that are too long.

        Raises:
            DemurError: there is one.
        """
        told: set[str] = set()
        for task in tasks:
            assert isinstance(task, ModelTask)
            condition = task.question.condition
            self.condition(condition, task.question.name)
            prompt = condition.safety_prompt
            if prompt is not None and prompt.is_trained and condition.fingerprint not in told:
                told.add(condition.fingerprint)
                self._compare_origin(prompt, progress)
            protocol = task.question.protocol
            self.model.require_room(
                task.question.queries.texts,
                condition,
                protocol.sampling.most_tokens,
                opening=protocol.opening,
            )

    def remarks(self) -> list[str]:
        """Nothing."""
        return []

    def represent(self, queries: Sequence[Query], condition: Condition, stage: Stage) -> Tensor:
        """Representations of queries, (N, d) float32 on the CPU."""
        return read_once(
            self.model,
            queries,
            condition,
            lambda: self.model.represent(queries, condition, stage),
        )

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model."""
        return self.model.record.fingerprint

    def likeliest_answers(
        self, queries: Sequence[Query], condition: Condition, most_tokens: int, stage: Stage
    ) -> list[str]:
        """The answer to each query that takes the likeliest token at every place."""
        settings = SamplingSettings(samples=1, most_tokens=most_tokens, temperature=0)
        read = self.model.read_and_sample(queries, condition, settings, stage=stage)
        return [answer.text for (answer,) in read.samples]

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as an answer of the model."""
        return self.model.target_ids(text)

    def answer_states(
        self,
        queries: Sequence[Query],
        answers: Sequence[Sequence[int]],
        condition: Condition,
        stage: Stage,
    ) -> Tensor:
        """What predicts each token of an answer to each query, (n, d) float32 on the CPU."""
        targets = [[answer] for answer in answers]
        return read_once(
            self.model,
            queries,
            condition,
            lambda: self.model.target_states(queries, targets, condition, stage),
            answers,
        )

    def next_tokens(self, first: Tensor, second: Tensor, *, exact: bool = True) -> NextTokens:
        """How far two next-token distributions lie apart."""
        return next_tokens(self.model, first, second, exact=exact)

    def _compare_origin(self, prompt: SafetyPrompt, progress: Progress) -> None:
        trained_on = prompt.provenance.model
        if trained_on is not None and trained_on.identity != self.model.identity:
            progress.message(
                f"{prompt.name} was trained on other weights than those of {self.model.name}: it "
                "may have little effect."
            )


@dataclass(frozen=True)
class ModelTask(QuestionTask):
    """A model answers queries under one condition.

    Attributes:
        model: the model.
        question: what it is asked, and how responses are sampled.
        action: what the stage's description begins with.
    """

    model: ChatModel
    question: Question
    action: str | None = None

    @property
    def identity(self) -> Identity:
        """What the answers depend on."""
        return Identity(
            self.question.condition.fingerprint,
            self.question.queries.fingerprint,
            self.model.record.fingerprint,
        )

    @property
    def condition(self) -> ConditionRecord:
        """What is recorded of the condition."""
        return self.question.condition.record(self.question.name)

    @property
    def per_query(self) -> int | None:
        """Number of answers to each query that count."""
        return min(self.question.protocol.kept, self.question.protocol.sampling.samples)

    @property
    def width(self) -> int:
        """d, the length of each representation."""
        return self.model.width

    @property
    def description(self) -> str:
        """What the stage is called."""
        return f"{self.action or f'Asking {self.set}'}: {self.question.name}"

    def batches(
        self, start: int, most: int | None, settled: Settled | None, stage: Stage
    ) -> Iterator[Batch]:
        """Representations of queries and sampled responses to them, from a query on."""
        queries, protocol = self.question.queries, self.question.protocol
        samples = protocol.sampling.samples
        at_once = max(1, min(RESPONSES_AT_ONCE, most or RESPONSES_AT_ONCE) // samples)
        stage.advance(start * samples)
        for first in range(start, len(queries), at_once):
            rows = range(first, min(first + at_once, len(queries)))
            try:
                reading = self.model.read_and_sample(
                    [queries.texts[row] for row in rows],
                    self.question.condition,
                    protocol.sampling,
                    limits=protocol.limits([queries.harmful[row] for row in rows]),
                    settled=None if protocol.reads_whole_responses else settled,
                    stage=stage,
                    opening=protocol.opening,
                )
            except NotFiniteError as error:
                raise error.under(self.question.name) from None
            answers = [
                self._answer(row, sample.text, sample.end)
                for row, drawn in zip(rows, reading.samples, strict=True)
                for sample in protocol.counted(drawn)
            ]
            yield Batch(answers, len(rows), reading.representations)

    def _answer(self, row: int, text: str, end: str) -> Answer:
        queries = self.question.queries
        return Answer(
            prompt=self.question.name,
            condition=self.question.condition.fingerprint,
            set=queries.name,
            label=queries.labels[row],
            category=queries.categories[row],
            query=queries.texts[row],
            text=text,
            end=end,
        )
