"""The scatter of a report: points in the plane of two principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from demur.geometry import Directions, estimate_directions
from demur.runs import Measurement

MOST_QUERIES = 1000
"""Queries of a label in a view at most; more would be a blot, and slow."""

LEAST_READINGS = 10
"""Readings that must lean to refusing, and to complying, to draw a refusal boundary."""


def plane_of(anchors: Sequence[Measurement], folds: int, seed: int) -> Directions:
    """The first two components of the anchors, with boundaries fitted in their plane."""
    return estimate_directions(
        torch.cat([one.representations for one in anchors]),
        torch.cat([one.refusal_probabilities() for one in anchors]),
        anchors[0].queries.labels().repeat(len(anchors)),
        components=2,
        folds=folds,
        seed=seed,
    )


def frame_of(plane: Directions, anchors: Sequence[Measurement]) -> dict[str, Any]:
    """Axes and boundaries, as the page draws them."""
    rates = [rate for one in anchors for rate in one.refusal_rates()]
    leaning = min(sum(rate > 0 for rate in rates), sum(rate < 1 for rate in rates))
    return {
        "axes": [
            f"principal component {place} ({100 * share:.0f} % of the variance)"
            for place, share in enumerate(plane.explained_variance.tolist(), start=1)
        ],
        "harmfulness": _boundary(plane.harmfulness_weight, plane.harmfulness_bias),
        "refusal": _boundary(plane.refusal_weight, plane.refusal_bias)
        if leaning >= LEAST_READINGS
        else None,
    }


def view(
    title: str,
    plane: Directions,
    measurements: Sequence[Measurement],
    place_of: Mapping[str, int],
    arrows: Sequence[tuple[int, int, bool]],
) -> dict[str, Any]:
    """One view: the same queries under several conditions.

    Args:
        title: of the view.
        plane: to project on.
        measurements: of the same queries.
        place_of: the place of each query among the report's queries.
        arrows: for each the places of two series and whether the arrow is dashed.
    """
    rows = _rows(measurements[0])
    return {
        "title": title,
        "queries": [place_of[measurements[0].queries.texts[row]] for row in rows],
        "series": [
            {
                "name": one.condition,
                "points": _points(plane, one.representations[rows]),
                "refused": [round(one.refusal_rates()[row], 3) for row in rows],
            }
            for one in measurements
        ],
        "arrows": [list(arrow) for arrow in arrows],
        "steps": False,
    }


def training_view(
    plane: Directions,
    start: Measurement,
    steps: Sequence[tuple[str, Tensor, Sequence[float] | None]],
    place_of: Mapping[str, int],
) -> dict[str, Any]:
    """The anchors in the course of the training, one step at a time.

    Args:
        plane: to project on.
        start: the anchors under the basic prompt.
        steps: for each its name, representations (N, d) and refusal rates, where they are known.
        place_of: the place of each query among the report's queries.
    """
    rows = _rows(start)
    shown = [(start.condition, start.representations, start.refusal_rates()), *steps]
    return {
        "title": "Training",
        "queries": [place_of[start.queries.texts[row]] for row in rows],
        "series": [
            {
                "name": name,
                "points": _points(plane, representations[rows]),
                "refused": None if rates is None else [round(rates[row], 3) for row in rows],
            }
            for name, representations, rates in shown
        ],
        "arrows": [],
        "steps": True,
    }


def _rows(measurement: Measurement) -> list[int]:
    queries = measurement.queries
    return queries.rows(harmful=True)[:MOST_QUERIES] + queries.rows(harmful=False)[:MOST_QUERIES]


def _points(plane: Directions, representations: Tensor) -> list[list[float]]:
    return [[round(x, 2), round(y, 2)] for x, y in plane.project(representations).tolist()]


def _boundary(weight: Tensor, bias: Tensor) -> dict[str, Any]:
    return {"weight": weight.tolist(), "bias": float(bias)}
