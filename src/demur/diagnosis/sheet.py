"""The sheet of numbers: what the representations say about a model and its safety prompts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy
import torch
from torch import Tensor

from demur.diagnosis.headroom import Headroom
from demur.diagnosis.layers import LayerSeparation, layer_separations
from demur.diagnosis.readings import Readings
from demur.evaluation.statistics import rate_over_queries, sign_flip_p_value
from demur.geometry import (
    Movement,
    Separation,
    cosine,
    movement,
    paired_folds,
    principal_components,
    separation,
)
from demur.records import Label, Measurement, Rate, transcript_of

MOST_MISPLACED = 10
Moved = Literal["anchors", "held-out"]
LABELS: tuple[Label, ...] = ("harmful", "harmless")


@dataclass(frozen=True)
class ConditionSheet:
    """The anchor queries under one condition.

    Attributes:
        condition: name of the safety prompt, or `none`.
        harmfulness: how well harmful and harmless queries part, cross-validated.
        accuracy: `harmfulness.accuracy` with its interval.
        refusal: how well refused and answered queries part; None where there are too few of one.
        harmful_refused: mean rate at which harmful queries are refused.
        harmless_refused: the same for harmless ones.
    """

    condition: str
    harmfulness: Separation | None
    accuracy: Rate | None
    refusal: Separation | None
    harmful_refused: Rate
    harmless_refused: Rate


@dataclass(frozen=True)
class PromptMovement:
    """How a prompt moves the queries of one label.

    Attributes:
        queries: queries that move, `anchors` or `held-out`.
        before: name of the condition where the movement starts.
        after: name of the condition where it ends.
        label: label of the queries.
        moved: the movement.
        refused_change: change of the rate of refusal, in [-1, 1].
        p_value: p-value of that change by the paired sign-flip permutation test.
    """

    queries: Moved
    before: str
    after: str
    label: Label
    moved: Movement
    refused_change: float
    p_value: float


@dataclass(frozen=True)
class Angle:
    """The cosine between two mean movements away from no prompt.

    Attributes:
        first: name of the condition where the first movement ends.
        first_label: label of the queries of the first movement.
        second: name of the condition where the second movement ends.
        second_label: label of the queries of the second movement.
        cosine: cosine of the angle between them, in [-1, 1].
    """

    first: str
    first_label: Label
    second: str
    second_label: Label
    cosine: float


@dataclass(frozen=True)
class Misplaced:
    """An anchor query on the wrong side of the harmfulness boundary, under no prompt.

    Attributes:
        query: text of the query.
        label: label of the query.
        depth: distance |f_h| from the boundary, in logits.
        refused: share of its responses that refuse under each condition, in their order.
    """

    query: str
    label: Label
    depth: float
    refused: tuple[float, ...]


@dataclass(frozen=True)
class Sheet:
    """All numbers of a diagnosis.

    Attributes:
        conditions: numbers of the anchor queries under each condition, `none` first.
        explained_variance: share of the variance along each principal component.
        refusal_is_readable: whether enough readings refuse, and enough comply, for a refusal
            direction; where not, numbers along it say nothing.
        refusal: how well refusal can be read over all conditions, cross-validated over queries.
        movements: movements of the anchors from no prompt to each prompt, then those of the
            held-out queries.
        angles: angles between the mean movements of the anchors.
        layers: the same separations layer by layer; empty where layers could not be read.
        misplaced: at most ten queries on the wrong side, the deepest first.
        headroom: how well the states tell the queries apart beside how well the prompts do; None
            where that was not wanted, or there are no other queries to fit a probe to.

    Raises:
        ValueError: there is no condition, or a layer or query has not one number for each.
    """

    conditions: tuple[ConditionSheet, ...]
    explained_variance: tuple[float, ...]
    refusal_is_readable: bool
    refusal: Separation | None
    movements: tuple[PromptMovement, ...]
    angles: tuple[Angle, ...]
    layers: tuple[LayerSeparation, ...]
    misplaced: tuple[Misplaced, ...]
    headroom: Headroom | None = None

    def __post_init__(self) -> None:
        widths = {len(self.conditions)}
        widths |= {len(one.harmfulness) for one in self.layers}
        widths |= {len(one.refused) for one in self.misplaced}
        if widths != {len(self.conditions)} or not self.conditions:
            raise ValueError("the numbers are not those of one set of conditions")

    def moved(self, before: str, after: str, label: Label, queries: Moved = "anchors") -> Movement:
        """The movement of the queries of one label from one condition to another.

        Raises:
            KeyError: there is none.
        """
        for found in self.movements:
            if (found.before, found.after, found.label, found.queries) == (
                before,
                after,
                label,
                queries,
            ):
                return found.moved
        raise KeyError((before, after, label, queries))


def make_sheet(readings: Readings, folds: int, headroom: Headroom | None = None) -> Sheet:
    """Compute all numbers.

    Args:
        readings: anchors, and held-out queries where there is a run.
        folds: number of folds of the cross-validation.
        headroom: what a probe tells, if there is one.

    Raises:
        DemurError: a query has no verdict.
    """
    components = readings.directions.components.shape[1]
    places = paired_folds(readings.queries.harmful, folds)
    count = len(readings.queries)
    points = principal_components(_all(readings.anchors), components)
    refusal = torch.cat([one.refusal_probabilities() for one in readings.anchors])
    conditions = tuple(
        _condition(measurement, points[row * count : (row + 1) * count], places)
        for row, measurement in enumerate(readings.anchors)
    )
    return Sheet(
        conditions=conditions,
        explained_variance=tuple(readings.directions.explained_variance.tolist()),
        refusal_is_readable=readings.refusal_is_readable,
        refusal=separation(points, refusal, numpy.tile(places, len(conditions))),
        movements=_movements(readings),
        angles=_angles(readings.anchors),
        layers=layer_separations(readings, components, places),
        misplaced=_misplaced(readings),
        headroom=headroom,
    )


def _condition(
    measurement: Measurement,
    points: numpy.typing.NDArray[numpy.float64],
    folds: numpy.typing.NDArray[numpy.int64],
) -> ConditionSheet:
    queries = measurement.queries
    rates = measurement.refusal_rates()
    found = separation(points, queries.label_tensor(), folds)
    return ConditionSheet(
        condition=measurement.name,
        harmfulness=found,
        accuracy=None if found is None else _rate(found),
        refusal=separation(points, measurement.refusal_probabilities(), folds),
        harmful_refused=rate_over_queries([rates[row] for row in queries.rows(harmful=True)]),
        harmless_refused=rate_over_queries([rates[row] for row in queries.rows(harmful=False)]),
    )


def _rate(found: Separation) -> Rate:
    right = round(found.accuracy * found.points)
    return rate_over_queries([1.0] * right + [0.0] * (found.points - right))


def _movements(readings: Readings) -> tuple[PromptMovement, ...]:
    anchors, held_out = readings.anchors, readings.held_out
    steps: list[tuple[Moved, Measurement, Measurement]] = [
        ("anchors", anchors[0], after) for after in anchors[1:]
    ]
    if held_out:
        none, basic, optimized = held_out
        steps += [("held-out", none, basic), ("held-out", basic, optimized)]
    return tuple(
        _movement(readings, name, before, after, label)
        for name, before, after in steps
        for label in LABELS
    )


def _movement(
    readings: Readings, name: Moved, before: Measurement, after: Measurement, label: Label
) -> PromptMovement:
    rows = before.queries.rows(harmful=label == "harmful")
    was, now = before.refusal_rates(), after.refusal_rates()
    changes = [now[row] - was[row] for row in rows]
    return PromptMovement(
        queries=name,
        before=before.name,
        after=after.name,
        label=label,
        moved=movement(readings.directions, before.states[rows], after.states[rows]),
        refused_change=sum(changes) / len(changes),
        p_value=sign_flip_p_value(changes),
    )


def _angles(anchors: tuple[Measurement, ...]) -> tuple[Angle, ...]:
    none = anchors[0]
    means: list[tuple[str, Label, Tensor]] = []
    for after in anchors[1:]:
        for label in LABELS:
            rows = none.queries.rows(harmful=label == "harmful")
            moved = (after.states[rows] - none.states[rows]).double()
            means.append((after.name, label, moved.mean(dim=0)))
    return tuple(
        Angle(first, first_label, second, second_label, cosine(one, other))
        for (first, first_label, one), (second, second_label, other) in combinations(means, 2)
        if first == second or first_label == second_label
    )


def _misplaced(readings: Readings) -> tuple[Misplaced, ...]:
    none = readings.anchors[0]
    logits = readings.directions.harmfulness(none.states).tolist()
    rates = [one.refusal_rates() for one in readings.anchors]
    depths = [
        -logit if harmful else logit
        for logit, harmful in zip(logits, none.queries.harmful, strict=True)
    ]
    wrong = sorted(
        (row for row, depth in enumerate(depths) if depth > 0), key=lambda row: -depths[row]
    )
    return tuple(
        Misplaced(
            query=transcript_of(none.queries.texts[row]),
            label="harmful" if none.queries.harmful[row] else "harmless",
            depth=depths[row],
            refused=tuple(found[row] for found in rates),
        )
        for row in wrong[:MOST_MISPLACED]
    )


def _all(measurements: tuple[Measurement, ...]) -> Tensor:
    return torch.cat([measurement.states for measurement in measurements])
