"""The sheet of numbers: what the representations say about a model and its safety prompts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy
import torch
from torch import Tensor

from demur.diagnosis.layers import LayerSeparation, layer_separations
from demur.diagnosis.readings import Readings
from demur.evaluation.statistics import Rate, rate_over_queries, sign_flip_p_value
from demur.geometry import (
    Movement,
    Separation,
    cosine,
    movement,
    paired_folds,
    principal_components,
    separation,
)
from demur.queries import Label
from demur.runs import Measurement

MOST_MISPLACED = 10
LABELS: tuple[Label, ...] = ("harmful", "harmless")


@dataclass(frozen=True)
class ConditionSheet:
    """The anchor queries under one condition.

    Attributes:
        condition: the name of the safety prompt, or `none`.
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
        queries: `anchors` or `held-out`.
        before: the condition that the movement starts from.
        after: the one where it ends.
        label: of the queries.
        moved: the movement.
        refused_change: change of the rate of refusal, in [-1, 1].
        p_value: of that change, by the paired sign-flip permutation test.
    """

    queries: str
    before: str
    after: str
    label: Label
    moved: Movement
    refused_change: float
    p_value: float


@dataclass(frozen=True)
class Angle:
    """The cosine between two mean movements away from no prompt."""

    first: str
    first_label: Label
    second: str
    second_label: Label
    cosine: float


@dataclass(frozen=True)
class Misplaced:
    """An anchor query on the wrong side of the harmfulness boundary, under no prompt.

    Attributes:
        query: its text.
        label: what it is.
        depth: |f_h|, how deep it lies on the wrong side, in logits.
        refused: for each condition the share of its responses that refuse.
    """

    query: str
    label: Label
    depth: float
    refused: dict[str, float]


@dataclass(frozen=True)
class Sheet:
    """All numbers of a diagnosis.

    Attributes:
        conditions: of the anchor queries, `none` first.
        explained_variance: share of the variance along each principal component.
        refusal_is_readable: whether enough readings refuse, and enough comply, for a refusal
            direction; where not, numbers along it say nothing.
        refusal: how well refusal can be read over all conditions, cross-validated over queries.
        movements: of the anchors from no prompt to each prompt, then those of the held-out queries.
        angles: between the mean movements of the anchors.
        layers: the same separations layer by layer; empty where layers could not be read.
        misplaced: at most ten, the deepest first.
    """

    conditions: tuple[ConditionSheet, ...]
    explained_variance: tuple[float, ...]
    refusal_is_readable: bool
    refusal: Separation | None
    movements: tuple[PromptMovement, ...]
    angles: tuple[Angle, ...]
    layers: tuple[LayerSeparation, ...]
    misplaced: tuple[Misplaced, ...]

    def moved(self, before: str, after: str, label: Label, queries: str = "anchors") -> Movement:
        """A movement by its name.

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


def make_sheet(readings: Readings, folds: int) -> Sheet:
    """Compute all numbers.

    Args:
        readings: of the anchors, and of the held-out queries where there is a run.
        folds: of the cross-validation.
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
    )


def _condition(
    measurement: Measurement,
    points: numpy.typing.NDArray[numpy.float64],
    folds: numpy.typing.NDArray[numpy.int64],
) -> ConditionSheet:
    queries = measurement.queries
    rates = measurement.refusal_rates()
    found = separation(points, queries.labels(), folds)
    return ConditionSheet(
        condition=measurement.condition,
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
    steps = [("anchors", anchors[0], after) for after in anchors[1:]]
    if held_out:
        none, basic, optimized = held_out
        steps += [("held-out", none, basic), ("held-out", basic, optimized)]
    return tuple(
        _movement(readings, name, before, after, label)
        for name, before, after in steps
        for label in LABELS
    )


def _movement(
    readings: Readings, name: str, before: Measurement, after: Measurement, label: Label
) -> PromptMovement:
    rows = before.queries.rows(harmful=label == "harmful")
    was, now = before.refusal_rates(), after.refusal_rates()
    changes = [now[row] - was[row] for row in rows]
    return PromptMovement(
        queries=name,
        before=before.condition,
        after=after.condition,
        label=label,
        moved=movement(
            readings.directions, before.representations[rows], after.representations[rows]
        ),
        refused_change=sum(changes) / len(changes),
        p_value=sign_flip_p_value(changes),
    )


def _angles(anchors: tuple[Measurement, ...]) -> tuple[Angle, ...]:
    none = anchors[0]
    means: list[tuple[str, Label, Tensor]] = []
    for after in anchors[1:]:
        for label in LABELS:
            rows = none.queries.rows(harmful=label == "harmful")
            moved = (after.representations[rows] - none.representations[rows]).double()
            means.append((after.condition, label, moved.mean(dim=0)))
    return tuple(
        Angle(first, first_label, second, second_label, cosine(one, other))
        for (first, first_label, one), (second, second_label, other) in combinations(means, 2)
        if first == second or first_label == second_label
    )


def _misplaced(readings: Readings) -> tuple[Misplaced, ...]:
    none = readings.anchors[0]
    logits = readings.directions.harmfulness(none.representations).tolist()
    rates = {one.condition: one.refusal_rates() for one in readings.anchors}
    depths = [
        -logit if harmful else logit
        for logit, harmful in zip(logits, none.queries.harmful, strict=True)
    ]
    wrong = sorted(
        (row for row, depth in enumerate(depths) if depth > 0), key=lambda row: -depths[row]
    )
    return tuple(
        Misplaced(
            query=none.queries.texts[row],
            label="harmful" if none.queries.harmful[row] else "harmless",
            depth=depths[row],
            refused={name: found[row] for name, found in rates.items()},
        )
        for row in wrong[:MOST_MISPLACED]
    )


def _all(measurements: tuple[Measurement, ...]) -> Tensor:
    return torch.cat([measurement.representations for measurement in measurements])
