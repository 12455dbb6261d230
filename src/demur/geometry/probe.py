"""A linear probe: how well the hidden states of one layer tell harmful from harmless queries.

Linear probes are those of Alain and Bengio, "Understanding intermediate layers using linear
classifier probes" (arXiv 1610.01644).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from torch import Tensor

from demur.geometry.separation import area_under_curve
from demur.progress import SilentStage, Stage

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Strengths of the L2 penalty that are tried, the strongest first."""

LEAST_FITTED = 20
"""Fewest points of each side that a probe is fitted to."""

FloatArray = NDArray[numpy.float64]


@dataclass(frozen=True)
class Probe:
    """A logistic regression on the states of one layer.

    Attributes:
        layer: number of the layer that is read, from 1.
        layers: number of layers that it was chosen from.
        penalty: strength of the L2 penalty on the weights of the standardised features, divided by
            their number.
        auc: area under the ROC curve on the points that it was fitted to, cross-validated.
        mean: (d,), mean of the states, which is subtracted.
        scale: (d,), what each feature is divided by.
        weight: (d,), weights of the standardised features.
        bias: bias of the regression.
    """

    layer: int
    layers: int
    penalty: float
    auc: float
    mean: FloatArray
    scale: FloatArray
    weight: FloatArray
    bias: float

    def scores(self, states: Tensor) -> FloatArray:
        """Logits of being harmful.

        Args:
            states: (N, layers, d), states of all layers.

        Returns:
            (N,); a query is taken for harmful where its logit is above 0.

        Raises:
            ValueError: the states have another number of layers.
        """
        if states.shape[1] != self.layers:
            raise ValueError(f"the probe reads {self.layers} layers, not {states.shape[1]}")
        points = (states[:, self.layer - 1].double().numpy() - self.mean) / self.scale
        scores: FloatArray = points @ self.weight + self.bias
        return scores


def fit_probe(
    states: Tensor,
    harmful: Sequence[bool],
    folds: NDArray[numpy.int64],
    *,
    penalties: Sequence[float] = PENALTIES,
    stage: Stage | None = None,
) -> Probe:
    """Fit a probe; its layer and its penalty are chosen by cross-validation.

    For each layer and penalty the regression is fitted without each fold in turn. The pair with the
    least cross-entropy on the folds left out is then fitted to all points. The penalties of a layer
    are tried from the first on until the cross-entropy rises, because the weakest ones take most of
    the time. Of equal pairs the lower layer and the earlier penalty are taken. Both labels weigh
    the same, whatever their numbers, so that the threshold does not depend on these.

    Args:
        states: (N, layers, d), states of all layers at the last input token.
        harmful: for each of N queries whether it is harmful.
        folds: (N,), fold of each query, at least two different ones. Queries that belong together
            share a fold.
        penalties: strengths of the L2 penalty to choose from, each above 0, the strongest first.
        stage: advanced by one for each layer.

    Raises:
        ValueError: there are fewer than 20 queries of a label, or fewer than two folds.
    """
    stage = stage or SilentStage()
    sides = numpy.array(harmful, dtype=bool)
    _require_enough(sides, folds)
    best: tuple[float, int, float, FloatArray] | None = None
    for layer in range(states.shape[1]):
        points, _, _ = _standardised(states, layer)
        before = numpy.inf
        for penalty in penalties:
            scores = _left_out(points, sides, folds, penalty)
            losses = numpy.logaddexp(0, numpy.where(sides, -scores, scores))
            loss = float(losses[sides].mean() + losses[~sides].mean()) / 2
            if loss > before:
                break
            before = loss
            if best is None or loss < best[0]:
                best = (loss, layer, penalty, scores)
        stage.advance()
    if best is None:
        raise ValueError("there is no layer or no penalty to choose from")
    _, layer, penalty, scores = best
    points, mean, scale = _standardised(states, layer)
    weight, bias = _fitted(points, sides, penalty)
    return Probe(
        layer=layer + 1,
        layers=states.shape[1],
        penalty=penalty,
        auc=area_under_curve(scores, sides),
        mean=mean,
        scale=scale,
        weight=weight,
        bias=bias,
    )


def _require_enough(sides: NDArray[numpy.bool_], folds: NDArray[numpy.int64]) -> None:
    if min(int(sides.sum()), int((~sides).sum())) < LEAST_FITTED:
        raise ValueError(f"a probe needs at least {LEAST_FITTED} queries of each label")
    if len(numpy.unique(folds)) < 2:
        raise ValueError("a probe needs at least two folds")


def _standardised(states: Tensor, layer: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The points of a layer with mean 0 and variance 1 / d, the mean and the divisor.

    With variance 1 / d a penalty means the same for states of any size.
    """
    points = states[:, layer].double().numpy()
    mean = points.mean(axis=0)
    deviation = points.std(axis=0)
    scale = numpy.where(deviation > 0, deviation, 1.0) * numpy.sqrt(points.shape[1])
    return (points - mean) / scale, mean, scale


def _left_out(
    points: FloatArray, sides: NDArray[numpy.bool_], folds: NDArray[numpy.int64], penalty: float
) -> FloatArray:
    """The logits of every point by a regression that was fitted without its fold."""
    scores = numpy.empty(len(points))
    for fold in numpy.unique(folds):
        tested = folds == fold
        weight, bias = _fitted(points[~tested], sides[~tested], penalty)
        scores[tested] = points[tested] @ weight + bias
    return scores


def _fitted(
    points: FloatArray, sides: NDArray[numpy.bool_], penalty: float
) -> tuple[FloatArray, float]:
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(
        C=1 / penalty, class_weight="balanced", max_iter=10_000, tol=1e-6
    )
    regression.fit(points, sides)
    return regression.coef_[0], float(regression.intercept_[0])
