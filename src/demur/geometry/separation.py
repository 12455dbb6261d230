"""How well a linear boundary separates two groups of representations, by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from torch import Tensor

from demur.geometry.directions import logistic_regression

LEAST_OF_EACH = 5
"""Fewest points on each side for which a separation is computed."""

ALLOWED = (0.02, 0.05)
"""Shares of the points of the other side at which `found_at` is reported."""

FloatArray = NDArray[numpy.float64]


@dataclass(frozen=True)
class Separation:
    """How well a linear boundary separates points that it was not fitted to.

    Attributes:
        accuracy: share of the points on their own side of the boundary, in [0, 1].
        auc: chance that a point of the one side lies further toward it than a point of the other,
            in [0, 1]; 0.5 is chance.
        points: number of points.
    """

    accuracy: float
    auc: float
    points: int


def principal_components(representations: Tensor, components: int) -> FloatArray:
    """Project representations on their first principal components.

    The result is scaled so that the first component has variance 1. A penalty on weights then means
    the same for every layer of a model.

    Args:
        representations: (N, d), representations.
        components: number of components m, at least 1.

    Returns:
        (N, m).
    """
    points = representations.double().numpy()
    centred = points - points.mean(axis=0)
    left, sizes, _ = numpy.linalg.svd(centred, full_matrices=False)
    projected: FloatArray = left[:, :components] * sizes[:components]
    deviation = float(projected[:, 0].std())
    return projected / deviation if deviation > 0 else projected


def separation(
    points: FloatArray, targets: Tensor, folds: NDArray[numpy.int64]
) -> Separation | None:
    """Cross-validated separation of points by a logistic regression.

    Args:
        points: (N, m), points.
        targets: (N,), targets in [0, 1]; a point's side is whether its target is above one half.
        folds: (N,), number of the fold of each point. Points that belong together share a fold.

    Returns:
        None where a side has fewer than five points.
    """
    wanted = targets.double().numpy()
    sides = wanted > 0.5
    if min(int(sides.sum()), int((~sides).sum())) < LEAST_OF_EACH:
        return None
    scores = numpy.empty(len(points))
    for fold in numpy.unique(folds):
        tested = folds == fold
        fitted = logistic_regression(points[~tested], wanted[~tested])
        scores[tested] = points[tested] @ fitted[:-1] + fitted[-1]
    return Separation(
        accuracy=float(((scores > 0) == sides).mean()),
        auc=area_under_curve(scores, sides),
        points=len(points),
    )


def area_under_curve(scores: FloatArray, sides: NDArray[numpy.bool_]) -> float:
    """The area under the ROC curve, ties counting half (Mann and Whitney, 1947).

    Args:
        scores: (N,), scores.
        sides: (N,), sides of the points; both True and False must occur.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    positive = int(sides.sum())
    above = float(ranks[sides].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(scores) - positive))


def found_at(scores: FloatArray, sides: NDArray[numpy.bool_], share: float) -> NDArray[numpy.bool_]:
    """Which points of the one side lie above the threshold that a share of the other side passes.

    Args:
        scores: (N,), scores; higher ones lie further toward the side that is looked for.
        sides: (N,), True for the P points that are looked for; both sides must occur.
        share: share of the other points that may lie above the threshold, in [0, 1].

    Returns:
        (P,), in the order of the points. A point at the threshold does not lie above it.

    Example:
        >>> sides = numpy.array([True, True, False, False])
        >>> found_at(numpy.array([3.0, 1.0, 2.0, 0.0]), sides, 0.0).tolist()
        [True, False]
    """
    others = numpy.sort(scores[~sides])[::-1]
    passing = int(numpy.floor(share * len(others) + 1e-9))
    threshold = others[passing] if passing < len(others) else -numpy.inf
    found: NDArray[numpy.bool_] = scores[sides] > threshold
    return found


def paired_folds(harmful: tuple[bool, ...], folds: int) -> NDArray[numpy.int64]:
    """Folds with equal shares of both labels; the n-th queries of both labels share a fold.

    The built-in queries come in pairs that share their wording. A regression that was trained on
    one query of a pair must not be tested on the other.

    Args:
        harmful: for each of N queries whether it is harmful.
        folds: number of folds, at least 1.

    Returns:
        (N,), the fold of each query, from 0 to `folds` - 1.
    """
    counts = {True: 0, False: 0}
    places = []
    for label in harmful:
        places.append(counts[label] % folds)
        counts[label] += 1
    return numpy.array(places)
