"""The scatter of a report: points in a plane in which the movement can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from demur.diagnosis.plane import plane_directions
from demur.diagnosis.readings import Readings
from demur.geometry import Directions
from demur.optimization.run import Step
from demur.records import Measurement, with_verdicts
from demur.report.collecting import Collection
from demur.report.subject import Arrow, Frame, Line, Series, View

MOST_QUERIES = 1000
"""Number of queries of a label in a view; more would be a blot, and slow."""


MOST_LEFT_OUT = 0.2
"""Share of the variance, in [0, 1], below which it is said how little the plane shows."""


class Scatter:
    """The plane of some measurements, and the views on it.

    Args:
        anchors: measurements whose first two principal components are the plane's axes.
        folds: number of folds that the boundaries are averaged over.
        seed: seed of the folds.
        collection: queries and conditions of the report.
        moved: the same queries before and after, where there is a movement to see; see
            `demur.diagnosis.plane.plane_directions`.

    Raises:
        DemurError: fewer than half of the queries of a label have verdicts, or there is no plane.
    """

    def __init__(
        self,
        anchors: Sequence[Measurement],
        folds: int,
        seed: int,
        collection: Collection,
        moved: tuple[Measurement, Measurement] | None = None,
    ) -> None:
        self._readings = Readings.of(anchors, 2, folds, seed)
        self._directions, self._axes = plane_directions(self._readings, folds, seed, moved)
        self._collection = collection

    @property
    def frame(self) -> Frame:
        """Axes and boundaries. They are fitted in the plane itself."""
        plane = self._directions
        first, second = (
            f"{name} ({100 * share:.0f} % of the variance)"
            for name, share in zip(self._axes, plane.explained_variance.tolist(), strict=True)
        )
        readable = self._readings.refusal_is_readable
        return Frame(
            axes=(first, second),
            harmfulness=_line(plane.harmfulness_weight, plane.harmfulness_bias),
            refusal=_line(plane.refusal_weight, plane.refusal_bias) if readable else None,
        )

    @property
    def remark(self) -> str:
        """That the plane leaves out most of how the queries differ; empty where it does not."""
        share = float(self._directions.explained_variance.sum())
        if share >= MOST_LEFT_OUT:
            return ""
        return (
            f"The plane shows {100 * share:.0f} % of how the queries differ, and was chosen to "
            "show the movement: marks that lie near each other in it may be far apart otherwise."
        )

    def view(
        self, title: str, use: str, measurements: Sequence[Measurement], arrows: Sequence[Arrow]
    ) -> View:
        """The same queries under several conditions.

        Args:
            title: title of the view.
            use: what the queries were used for.
            measurements: measurements of the same queries; those without a verdict are left out.
            arrows: arrows between them.
        """
        measurements = with_verdicts(measurements)
        rows = _rows(measurements[0])
        places = self._collection.places(use, measurements[0])
        return View(
            title=title,
            queries=[places[row] for row in rows],
            series=[
                self._series(self._collection.name_of(one), one.states, one.refusal_rates(), rows)
                for one in measurements
            ],
            arrows=arrows,
        )

    def training(self, use: str, start: Measurement, steps: Sequence[Step]) -> View:
        """The training queries in the course of the training, one step at a time.

        Args:
            use: what the queries were used for.
            start: measurement under the basic prompt.
            steps: steps of the training.
        """
        known = [start.known_refusal_rates(), *(one.refusal_rates for one in steps)]
        rows = [
            row for row in _rows(start) if all(one is None or one[row] is not None for one in known)
        ]
        places = self._collection.places(use, start)
        name = self._collection.name_of(start)
        return View(
            title="Epoch by epoch",
            queries=[places[row] for row in rows],
            series=[
                self._series(name, start.states, known[0], rows),
                *(
                    self._series(one.title, one.representations, one.refusal_rates, rows)
                    for one in steps
                ),
            ],
            steps=True,
        )

    def _series(
        self, name: str, states: Tensor, rates: Sequence[float | None] | None, rows: Sequence[int]
    ) -> Series:
        return Series(
            name=name,
            points=_points(self._directions, states[list(rows)]),
            refused=None if rates is None else [round(rates[row] or 0.0, 3) for row in rows],
        )


def _rows(measurement: Measurement) -> list[int]:
    queries = measurement.queries
    return queries.rows(harmful=True)[:MOST_QUERIES] + queries.rows(harmful=False)[:MOST_QUERIES]


def _points(plane: Directions, states: Tensor) -> list[tuple[float, float]]:
    return [(round(x, 2), round(y, 2)) for x, y in plane.project(states).tolist()]


def _line(weight: Tensor, bias: Tensor) -> Line:
    first, second = weight.tolist()
    return Line((first, second), float(bias))
