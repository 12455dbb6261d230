"""Measurements: what a model makes of queries under one condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from demur.errors import DemurError
from demur.records.codec import to_plain
from demur.records.conversations import Query, transcript_of
from demur.records.fingerprint import fingerprint
from demur.records.responses import NO_ANSWER, REASONING, JudgedResponse, Label

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")

NO_PROMPT = "none"
"""Name of the condition without a safety prompt."""


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """`most` of some items at most, evenly spread, in their order."""
    size = min(len(items), most)
    return [items[place * len(items) // size] for place in range(size)]


@dataclass(frozen=True)
class Queries:
    """Labelled queries in a fixed order.

    Attributes:
        name: name of the set; for people.
        texts: the N queries: each is a text, or a `Conversation` whose last message is the query.
        labels: label of each query.
        categories: category of each query, or None.
        remarks: what was left out when they were read, a sentence each; for people.
    """

    name: str
    texts: tuple[Query, ...]
    labels: tuple[Label, ...]
    categories: tuple[str | None, ...]
    remarks: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def harmful(self) -> tuple[bool, ...]:
        """For each query whether it is harmful."""
        return tuple(label == "harmful" for label in self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of queries, labels and categories; the name is left out."""
        return fingerprint(
            "queries",
            texts=[query if isinstance(query, str) else to_plain(query) for query in self.texts],
            labels=self.labels,
            categories=self.categories,
        )

    def rows(self, *, harmful: bool) -> list[int]:
        """Indices of the queries with a label."""
        return [row for row, label in enumerate(self.harmful) if label == harmful]

    def label_tensor(self) -> Tensor:
        """(N,) float32: 1 for harmful queries, 0 for harmless ones."""
        import torch

        return torch.tensor([float(harmful) for harmful in self.harmful])

    def spread(self, most: int) -> list[int]:
        """Indices of `most` queries of each label at most, evenly spread, in their order."""
        return sorted(
            row for harmful in (True, False) for row in evenly(self.rows(harmful=harmful), most)
        )

    def select(self, rows: Sequence[int]) -> Queries:
        """Some of the queries, in the order given."""
        return Queries(
            self.name,
            tuple(self.texts[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            tuple(self.categories[row] for row in rows),
        )


@dataclass(frozen=True)
class ConditionRecord:
    """What is recorded of a condition.

    Attributes:
        name: name of the safety prompt, or `none`; for people.
        fingerprint: fingerprint of the safety prompt's text and embeddings and of the
            application's system text.
        text: text of the safety prompt, or None where it has none.
        trained: whether the safety prompt is trained embeddings.
        system_prompt: the application's own system text, or None.
    """

    name: str
    fingerprint: str
    text: str | None
    trained: bool
    system_prompt: str | None = None

    @property
    def is_bare(self) -> bool:
        """Whether there is no safety prompt."""
        return self.text is None and not self.trained


@dataclass(frozen=True)
class MeasurementKey:
    """Identity of a measurement. Two measurements with equal keys are the same measurement.

    Attributes:
        condition: fingerprint of the condition.
        queries: fingerprint of the queries.
        model: fingerprint of the model or server.
        protocol: fingerprint of how responses are sampled, cut and judged.
    """

    condition: str
    queries: str
    model: str
    protocol: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the four together (64 hex digits)."""
        return fingerprint(
            "measurement",
            condition=self.condition,
            queries=self.queries,
            model=self.model,
            protocol=self.protocol,
        )


@dataclass(frozen=True)
class Measurement:
    """What a model makes of N queries under one condition.

    Attributes:
        key: identity of the measurement.
        condition: what stood before the queries.
        queries: the N queries.
        responses: for each query its judged responses, at least one.
        representations: (N, d) float32 on the CPU, or None where they were not read.
    """

    key: MeasurementKey
    condition: ConditionRecord
    queries: Queries
    responses: tuple[tuple[JudgedResponse, ...], ...]
    representations: Tensor | None

    @property
    def name(self) -> str:
        """Name of the safety prompt, or `none`; for people."""
        return self.condition.name

    @property
    def states(self) -> Tensor:
        """The representations, (N, d) float32.

        Raises:
            ValueError: they were not read.
        """
        if self.representations is None:
            raise ValueError("this measurement has no representations")
        return self.representations

    def refusal_rates(self) -> list[float]:
        """For each query the share of its answers that refuse, in [0, 1].

        What deflects counts as refusing, as in people's labels. A query all of whose responses are
        blank was not refused.

        Raises:
            DemurError: the judge had no verdict on any response to a query, or none of them left
                its reasoning; `with_verdicts` leaves such queries out.
        """
        rates: list[float] = []
        for row, rate in enumerate(self.known_refusal_rates()):
            if rate is None:
                raise self.without_verdict(row)
            rates.append(rate)
        return rates

    def known_refusal_rates(self) -> list[float | None]:
        """The refusal rates, None where there is no verdict on any response to a query."""
        return [_refusal_rate(responses) for responses in self.responses]

    def without_verdict(self, row: int) -> DemurError:
        """The error for a query that has no verdict."""
        responses = self.responses[row]
        asked = transcript_of(responses[0].query or "")
        if any(one.end == REASONING for one in responses):
            return DemurError(
                f"No response to the query {asked!r:.60} under {self.name} left its "
                "reasoning, so there is no answer to judge: give more tokens, some "
                "thousands for a model that reasons."
            )
        return DemurError(
            "The refusal judge had no verdict on any response to the query "
            f"{asked!r:.60} under {self.name}: use a judge that decides, or "
            "leave the query out."
        )

    def refusal_probabilities(self) -> Tensor:
        """The refusal rates as a tensor: r, (N,) float32."""
        import torch

        return torch.tensor(self.refusal_rates())

    def select(self, rows: Sequence[int]) -> Measurement:
        """The same of some of the queries, in the order given; the key stays that of the whole."""
        states = self.representations
        return replace(
            self,
            queries=self.queries.select(rows),
            responses=tuple(self.responses[row] for row in rows),
            representations=None if states is None else states[list(rows)],
        )


def _refusal_rate(responses: Sequence[JudgedResponse]) -> float | None:
    if all(one.end == NO_ANSWER for one in responses):
        return 0.0
    verdicts = [not one.answered for one in responses if one.answered is not None]
    return sum(verdicts) / len(verdicts) if verdicts else None


def rows_with_verdicts(measurements: Sequence[Measurement]) -> list[int]:
    """Indices of the queries that have a verdict under every condition.

    Args:
        measurements: measurements of the same queries, one for each condition.

    Raises:
        DemurError: fewer than half of the queries of a label have verdicts.
    """
    rates = [one.known_refusal_rates() for one in measurements]
    queries = measurements[0].queries
    missing = {
        row: one
        for one, found in zip(measurements, rates, strict=True)
        for row, rate in enumerate(found)
        if rate is None
    }
    for harmful in (True, False):
        rows = queries.rows(harmful=harmful)
        lost = [row for row in rows if row in missing]
        if 2 * len(lost) > len(rows):
            raise missing[lost[0]].without_verdict(lost[0])
    return [row for row in range(len(queries)) if row not in missing]


def with_verdicts(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The same measurements without the queries that lack a verdict under one of the conditions.

    Args:
        measurements: measurements of the same queries, one for each condition; may be empty.

    Raises:
        DemurError: fewer than half of the queries of a label have verdicts.
    """
    if not measurements:
        return ()
    rows = rows_with_verdicts(measurements)
    if len(rows) == len(measurements[0].queries):
        return tuple(measurements)
    return tuple(one.select(rows) for one in measurements)


def left_out_remarks(*measured: Sequence[Measurement]) -> tuple[str, ...]:
    """How many queries `with_verdicts` leaves out, a sentence for people about each set.

    Args:
        *measured: measurements of the same queries, one for each condition; may be empty.
    """
    remarks = []
    for each in measured:
        kept = with_verdicts(each)
        lost = len(each[0].queries) - len(kept[0].queries) if each else 0
        if lost:
            remarks.append(
                f"Left out: {lost} of {len(each[0].queries)} queries of the set "
                f"{each[0].queries.name}, because the judge had no verdict on any response "
                "to them under one of the prompts."
            )
    return tuple(remarks)
