"""The plane of the figures: two principal components, boundaries and arrows in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from demur.diagnosis.readings import Readings, directions_of
from demur.geometry import Directions
from demur.records import Label, Measurement, transcript_of
from demur.spreadsheets import Cell, csv_text, rounded

FloatArray = NDArray[numpy.float64]


@dataclass(frozen=True)
class Group:
    """The queries of one label under one condition.

    Attributes:
        condition: name of the safety prompt, or `none`.
        label: label of the queries.
        texts: N queries.
        points: (N, 2), places in the plane.
        refusal: (N,), refusal probabilities.
    """

    condition: str
    label: Label
    texts: tuple[str, ...]
    points: FloatArray
    refusal: FloatArray

    @property
    def centre(self) -> FloatArray:
        """(2,), the mean of the points."""
        mean: FloatArray = self.points.mean(axis=0)
        return mean


@dataclass(frozen=True)
class Boundary:
    """Where a regression is undecided: `weight . g + bias = 0` in the plane.

    Attributes:
        weight: (2,), normal of the boundary, which points to where the probability grows.
        bias: constant term.
    """

    weight: FloatArray
    bias: float


@dataclass(frozen=True)
class Plane:
    """Everything that a figure shows.

    Attributes:
        anchors: groups of the anchor queries, condition by condition, harmful before harmless.
        held_out: groups of a run's held-out queries, likewise; empty without a run.
        harmfulness: boundary between harmful and harmless.
        refusal: boundary between refused and answered, or None where it means nothing.
        explained_variance: share of the variance along each of the two components.
    """

    anchors: tuple[Group, ...]
    held_out: tuple[Group, ...]
    harmfulness: Boundary
    refusal: Boundary | None
    explained_variance: tuple[float, float]


def make_plane(readings: Readings, folds: int, seed: int) -> Plane:
    """Project the readings on their first two principal components.

    The boundaries are fitted in the plane itself: those of four components have no exact trace in
    it.
    """
    directions = directions_of(readings.anchors, 2, folds, seed)
    first, second = directions.explained_variance.tolist()
    return Plane(
        anchors=_groups(readings.anchors, directions),
        held_out=_groups(readings.held_out, directions),
        harmfulness=Boundary(
            directions.harmfulness_weight.double().numpy(), float(directions.harmfulness_bias)
        ),
        refusal=Boundary(directions.refusal_weight.double().numpy(), float(directions.refusal_bias))
        if readings.refusal_is_readable
        else None,
        explained_variance=(first, second),
    )


def _groups(measurements: Sequence[Measurement], directions: Directions) -> tuple[Group, ...]:
    groups = []
    for measurement in measurements:
        points = directions.project(measurement.states).double().numpy()
        refusal = numpy.array(measurement.refusal_rates())
        labels: tuple[Label, ...] = ("harmful", "harmless")
        for label in labels:
            rows = measurement.queries.rows(harmful=label == "harmful")
            texts = tuple(transcript_of(measurement.queries.texts[row]) for row in rows)
            groups.append(Group(measurement.name, label, texts, points[rows], refusal[rows]))
    return tuple(groups)


def groups_csv(groups: Sequence[Group]) -> bytes:
    """The points of a figure, one a row, as UTF-8 CSV.

    A cell that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    columns = ("condition", "label", "query", "component_1", "component_2", "refused")
    rows: list[tuple[Cell, ...]] = [
        (group.condition, group.label, text, *(rounded(float(one)) for one in (*point, refused)))
        for group in groups
        for text, point, refused in zip(group.texts, group.points, group.refusal, strict=True)
    ]
    return csv_text(columns, rows).encode()
