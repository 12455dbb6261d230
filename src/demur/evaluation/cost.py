"""Measuring what prompts cost on harmless queries, and keeping it in the folder of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.evaluation.answerers.protocol import MeasuresCost
from demur.evaluation.costs import ANSWER_TOKENS, AnswerCost, Cost
from demur.evaluation.drift import AnswersByQuery, counted_answers, length_of, other_language_of
from demur.judges.default import DefaultRefusalJudge
from demur.progress import Progress
from demur.prompts import Condition
from demur.records import (
    JudgedResponse,
    Measurement,
    MeasurementKey,
    Queries,
    Query,
    StoredMeasurement,
    damaged,
    evenly,
    fingerprint,
    read_record,
    to_plain,
    write_record,
)

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "costs"
STAGE = "Measuring the cost"
MOST_ANSWERS = 25
"""Number of answers, spread over the harmless queries of a set, along which a cost is measured.

Each has dozens of tokens, and the whole vocabulary is read at every one of them."""

_FORMAT = "KL divergences"
_ANSWERS_FORMAT = "likeliest answers"
_VERSION = 1


@dataclass(frozen=True)
class LikeliestAnswers:
    """The model's own answers to some harmless queries without a safety prompt.

    Attributes:
        unprompted: fingerprint of the condition without a safety prompt.
        model: fingerprint of the model.
        queries: the queries.
        texts: the answer to each that takes the likeliest token at every place, cut at a limit of
            tokens; blank where the model says nothing.
    """

    unprompted: str
    model: str
    queries: tuple[Query, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Divergences:
    """The divergences of single queries, as they are stored.

    Attributes:
        prompted: identity of the measurement under the prompt.
        unprompted: fingerprint of the condition without a safety prompt.
        queries: the harmless queries.
        values: divergence of each query, in nats.
        changed: for each query, whether its likeliest first token is another than without a prompt.
        tokens: number of tokens of each answer that was read.
        answers: mean divergence a token along each of them, in nats.
        agreements: share of the tokens of each at which the likeliest token is the same.
    """

    prompted: MeasurementKey
    unprompted: str
    queries: tuple[Query, ...]
    values: tuple[float, ...]
    changed: tuple[bool, ...]
    tokens: tuple[int, ...]
    answers: tuple[float, ...]
    agreements: tuple[float, ...]

    @property
    def is_sound(self) -> bool:
        """Whether the numbers are those of the queries, and finite."""
        several = {len(self.tokens), len(self.answers), len(self.agreements)}
        return (
            {len(self.values), len(self.changed)} == {len(self.queries)}
            and len(several) == 1
            and all(map(isfinite, (*self.values, *self.answers)))
            and all(0 <= share <= 1 for share in self.agreements)
        )


@dataclass(frozen=True)
class Costed:
    """A measurement of a set under a condition, whose cost is wanted.

    Attributes:
        name: name of the prompt; for people.
        condition: what stood before the queries.
        key: identity of the measurement.
        states: reads the representations of all queries, (N, d).
        responses: reads the responses.
    """

    name: str
    condition: Condition
    key: MeasurementKey
    states: Callable[[], Tensor | None]
    responses: Callable[[], Iterable[JudgedResponse]]

    @classmethod
    def of_stored(cls, name: str, condition: Condition, stored: StoredMeasurement) -> Costed:
        """A measurement on disk."""
        return cls(name, condition, stored.key, stored.states, stored.rows)

    @classmethod
    def of(cls, condition: Condition, measurement: Measurement) -> Costed:
        """A measurement in memory."""
        return cls(
            measurement.name,
            condition,
            measurement.key,
            lambda: measurement.representations,
            lambda: (one for several in measurement.responses for one in several),
        )


@dataclass
class CostMeter:
    """Measures what prompts cost, and keeps each query's divergence in the folder of the work.

    Attributes:
        model: what has the model.
        path: folder of an evaluation or a run; divergences are kept in its subfolder `costs`.
        unprompted: condition without a safety prompt.
        progress: reports progress.
        used: files that the costs so far are kept in, by their names in the folder.
        lenders: folders of other work, one of which may have the very same file.
    """

    model: MeasuresCost
    path: Path
    unprompted: Condition
    progress: Progress
    used: set[str] = field(default_factory=set)
    lenders: Sequence[Path] = ()

    def borrow(self, file: Path, kind: type[object], format: str) -> None:
        """Copy a file of costs from another folder, where one has it and it is not here.

        Args:
            file: the file here, whose name follows from what it holds.
            kind: type of the record in it.
            format: what it must hold.
        """
        if file.exists():
            return
        for lender in self.lenders:
            other = lender / FOLDER / file.name
            try:
                if other.is_file():
                    write_record(file, read_record(other, kind, format, in_work=True), format)
                    return
            except DemurError:  # another folder may hold anything
                continue

    def costs(self, queries: Queries, measured: Sequence[Costed]) -> list[Cost]:
        """What each prompt costs on the harmless queries of a set.

        Args:
            queries: the queries of the set, harmful ones as well.
            measured: their measurements under each condition.

        Returns:
            A cost for each condition; none where the set has no harmless queries.

        Raises:
            DemurError: a stored file is damaged, or a divergence is not a finite number.
        """
        if not queries.rows(harmful=False):
            return []
        work = _SetCosts(self, queries, measured)
        return [work.cost(one) for one in measured]


@dataclass
class _SetCosts:
    """The costs on one set, with what its conditions share."""

    meter: CostMeter
    queries: Queries
    measured: Sequence[Costed]
    rows: list[int] = field(init=False)
    harmless: tuple[Query, ...] = field(init=False)
    counted: AnswersByQuery | None = field(init=False)
    _first: Tensor | None = None
    _along: Tensor | None = None
    _answers: list[tuple[Query, tuple[int, ...]]] | None = None

    def __post_init__(self) -> None:
        self.rows = self.queries.rows(harmful=False)
        self.harmless = tuple(self.queries.texts[row] for row in self.rows)
        bare = self._bare
        self.counted = None if bare is None else self._counted(bare)

    def cost(self, one: Costed) -> Cost:
        """The cost under one condition."""
        if one.condition.safety_prompt is not None:
            self._likeliest()  # so that their file is there, and sound, whatever is stored already
            self._use(self._answers_file)
        found, file = self._stored(one), self._file(one)
        self._use(file)
        if found is None:
            found = self._measure(one)
        name, condition = one.name, one.condition.fingerprint
        cost = Cost.of(name, condition, self.queries.name, found.values, found.changed)
        if not file.exists():
            write_record(file, found, _FORMAT)
        counted = self._counted(one) if one is not self._bare else self.counted or {}
        bare = one.condition.safety_prompt is None
        return replace(
            cost,
            answers=AnswerCost.of(sum(found.tokens), found.answers, found.agreements)
            if found.answers
            else None,
            length=length_of(counted, None if bare else self.counted),
            other_language=other_language_of(counted),
        )

    @property
    def _bare(self) -> Costed | None:
        """The measurement without a safety prompt, where there is one."""
        return next((one for one in self.measured if one.condition.safety_prompt is None), None)

    def _use(self, file: Path) -> None:
        self.meter.used.add(file.relative_to(self.meter.path).as_posix())

    def _counted(self, one: Costed) -> AnswersByQuery:
        return counted_answers(one.responses(), self.meter.model.answer_ids)

    def _file(self, one: Costed) -> Path:
        name = fingerprint(
            "divergences",
            version=_VERSION,
            prompted=to_plain(one.key),
            unprompted=self.meter.unprompted.fingerprint,
        )
        return self.meter.path / FOLDER / f"{name[:16]}.json"

    @property
    def _answers_file(self) -> Path:
        name = fingerprint(
            "likeliest answers",
            queries=self.queries.fingerprint,
            unprompted=self.meter.unprompted.fingerprint,
            model=self.meter.model.fingerprint,
        )
        return self.meter.path / FOLDER / f"answers{name[:16]}.json"

    def _stored(self, one: Costed) -> Divergences | None:
        """What is kept of a condition; None where nothing is.

        Raises:
            DemurError: the file is damaged, or of other queries.
        """
        file = self._file(one)
        self.meter.borrow(file, Divergences, _FORMAT)
        if not file.exists():
            return None
        kept = read_record(file, Divergences, _FORMAT, in_work=True)
        wanted = (one.key, self.meter.unprompted.fingerprint, self.harmless)
        if (kept.prompted, kept.unprompted, kept.queries) != wanted or not kept.is_sound:
            raise damaged(file)
        return kept

    def _measure(self, one: Costed) -> Divergences:
        made = partial(Divergences, one.key, self.meter.unprompted.fingerprint, self.harmless)
        count = len(self.harmless)
        if one.condition.safety_prompt is None:
            some = min(count, MOST_ANSWERS)
            return made((0.0,) * count, (False,) * count, (0,) * some, (0.0,) * some, (1.0,) * some)
        if self._first is None:
            self._first = self._states(self._bare, self.meter.unprompted)
        states = self._states(one, one.condition)
        first = self.meter.model.next_tokens(states, self._first)
        return made(
            tuple(first.divergences.tolist()),
            tuple(first.changed.tolist()),
            *self._along_answers(one),
        )

    def _states(self, one: Costed | None, condition: Condition) -> Tensor:
        """Representations of the harmless queries, from the measurement where there is one."""
        states = None if one is None else one.states()
        if states is not None:
            return states[self.rows]
        name = condition.name if one is None else one.name
        description = f"Reading {self.queries.name}: {name}"
        with self.meter.progress.stage(description, len(self.rows), "queries") as stage:
            return self.meter.model.represent(self.harmless, condition, stage)

    def _along_answers(
        self, one: Costed
    ) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
        """For each answer its tokens, the mean divergence, and the share that agrees."""
        import torch

        answers = self._likeliest()
        if not answers:
            return (), (), ()
        if self._along is None:
            self._along = self._answer_states(self.meter.unprompted, self.meter.unprompted.name)
        prompted = self._answer_states(one.condition, one.name)
        found = self.meter.model.next_tokens(self._along, prompted, exact=False)
        lengths = [len(ids) for _, ids in answers]
        return (
            tuple(lengths),
            tuple(float(some.mean()) for some in torch.split(found.divergences, lengths)),
            tuple(1 - float(some.double().mean()) for some in torch.split(found.changed, lengths)),
        )

    def _answer_states(self, condition: Condition, name: str) -> Tensor:
        answers = self._likeliest()
        queries, ids = [query for query, _ in answers], [ids for _, ids in answers]
        with self.meter.progress.stage(f"{STAGE}: {name}", len(answers), "answers") as stage:
            return self.meter.model.answer_states(queries, ids, condition, stage)

    def _likeliest(self) -> list[tuple[Query, tuple[int, ...]]]:
        """The model's own answers without a prompt, tokenized; refusals and silence left out."""
        if self._answers is None:
            self.meter.borrow(self._answers_file, LikeliestAnswers, _ANSWERS_FORMAT)
            kept = self._read_answers() if self._answers_file.exists() else self._answer()
            self._answers, judge = [], DefaultRefusalJudge()
            for query, text in zip(kept.queries, kept.texts, strict=True):
                ids = () if judge.refuses(text) else self._ids(text)
                self._answers += [(query, ids)] if ids else []
        return self._answers

    def _ids(self, text: str) -> tuple[int, ...]:
        """The first tokens of an answer; none where there is none, or only tokens can write it."""
        if not text.strip():
            return ()
        try:
            return self.meter.model.answer_ids(text)[:ANSWER_TOKENS]
        except DemurError:
            return ()

    def _read_answers(self) -> LikeliestAnswers:
        file, meter = self._answers_file, self.meter
        kept = read_record(file, LikeliestAnswers, _ANSWERS_FORMAT, in_work=True)
        wanted = (meter.unprompted.fingerprint, meter.model.fingerprint, self._chosen)
        if (kept.unprompted, kept.model, kept.queries) != wanted:
            raise damaged(file)
        if len(kept.texts) != len(kept.queries):
            raise damaged(file)
        return kept

    def _answer(self) -> LikeliestAnswers:
        meter, queries = self.meter, self._chosen
        with meter.progress.stage(f"{STAGE}: answers", len(queries), "answers") as stage:
            texts = meter.model.likeliest_answers(queries, meter.unprompted, ANSWER_TOKENS, stage)
        made = LikeliestAnswers(
            meter.unprompted.fingerprint, meter.model.fingerprint, queries, tuple(texts)
        )
        write_record(self._answers_file, made, _ANSWERS_FORMAT)
        return made

    @property
    def _chosen(self) -> tuple[Query, ...]:
        """Harmless queries spread evenly over the set, which may lie in groups."""
        return tuple(evenly(self.harmless, MOST_ANSWERS))
