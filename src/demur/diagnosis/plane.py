"""The plane of the figures: two directions to draw on, boundaries and arrows in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from torch import Tensor, stack

from demur.diagnosis.readings import Readings, directions_of
from demur.geometry import Directions
from demur.records import Label, Measurement, transcript_of
from demur.spreadsheets import Cell, csv_text, rounded

FloatArray = NDArray[numpy.float64]
COMPONENTS = ("principal component 1", "principal component 2")
MOVEMENTS = ("what the prompt moves apart", "what it moves together")
"""Titles of the axes of the two kinds of plane."""


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
        explained_variance: share of the variance along each of the two axes.
        axes: what the two axes are.
    """

    anchors: tuple[Group, ...]
    held_out: tuple[Group, ...]
    harmfulness: Boundary
    refusal: Boundary | None
    explained_variance: tuple[float, float]
    axes: tuple[str, str] = COMPONENTS


def make_plane(
    readings: Readings,
    folds: int,
    seed: int,
    moved: tuple[Measurement, Measurement] | None = None,
) -> Plane:
    """Project the readings on a plane.

    The boundaries are fitted in the plane itself: those of four components have no exact trace in
    it.

    Args:
        readings: the readings.
        folds: number of folds that the boundaries are averaged over.
        seed: seed of the folds.
        moved: the same queries before and after, where their movement is to be seen; see
            `plane_directions`.
    """
    directions, axes = plane_directions(readings, folds, seed, moved)
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
        axes=axes,
    )


def plane_directions(
    readings: Readings,
    folds: int,
    seed: int,
    moved: tuple[Measurement, Measurement] | None,
) -> tuple[Directions, tuple[str, str]]:
    """The directions of a plane, and the titles of its axes.

    Args:
        readings: the readings, whose first two principal components are the plane's axes.
        folds: number of folds that the boundaries are averaged over, as in the readings.
        seed: seed of the folds, as in the readings.
        moved: the same queries before and after, where there is a movement to see. Where the two
            principal components hold less than half of it, the plane is that of the mean movements
            of the harmful and of the harmless queries, and holds both whole.
    """
    directions = readings.directions
    if directions.components.shape[1] != len(COMPONENTS):
        directions = directions_of(readings.anchors, len(COMPONENTS), folds, seed)
    basis = None if moved is None else _plane_of_movement(*moved, directions)
    if basis is None:
        return directions, COMPONENTS
    return directions_of(readings.anchors, 2, folds, seed, basis), MOVEMENTS


def _plane_of_movement(
    before: Measurement, after: Measurement, components: Directions
) -> Tensor | None:
    """(d, 2), the plane of both mean movements; None where the components show enough of them.

    Its first axis is how much further the harmful queries go than the harmless ones.
    """
    moved = after.states - before.states
    harmful, harmless = (
        moved[before.queries.rows(harmful=one)].mean(dim=0) for one in (True, False)
    )
    means = stack([harmful, harmless])
    whole = means.square().sum()
    if not whole.isfinite() or (means @ components.components).square().sum() >= whole / 2:
        return None
    apart = harmful - harmless
    first = apart / apart.norm()
    rest = harmful + harmless - ((harmful + harmless) @ first) * first
    basis = stack([first, rest / rest.norm()], dim=1)
    # Movements that are the same, or opposite ones, span no plane.
    small = 1e-3 * whole.sqrt()
    return basis if min(apart.norm(), rest.norm()) > small else None


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
