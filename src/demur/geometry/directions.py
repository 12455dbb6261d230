"""The refusal and harmfulness directions (DRO paper, sections 3 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

REGULARIZATION = 1.0
"""Strength of the L2 penalty on the regressions' weights (scikit-learn's `1 / C`). Without one the
harmfulness regression has no finite solution, as the labels are often separable."""


@dataclass(frozen=True)
class Directions:
    """What the anchor queries say about a model.

    Attributes:
        mean: (d,), mu.
        components: (d, m), V: the first principal components, orthonormal columns.
        explained_variance: (m,), share of the variance along each, in [0, 1].
        refusal_weight: (m,), w_r: the refusal direction among the components.
        refusal_bias: (), b_r.
        harmfulness_weight: (m,), w_h.
        harmfulness_bias: (), b_h.
    """

    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    refusal_weight: Tensor
    refusal_bias: Tensor
    harmfulness_weight: Tensor
    harmfulness_bias: Tensor

    def project(self, representations: Tensor) -> Tensor:
        """g(x) = V^T (x - mu): (..., d) to (..., m)."""
        return (representations - self.mean) @ self.components

    def refusal(self, representations: Tensor) -> Tensor:
        """f_r(x), the logit of the refusal probability: (..., d) to (...)."""
        return self.project(representations) @ self.refusal_weight + self.refusal_bias

    def harmfulness(self, representations: Tensor) -> Tensor:
        """f_h(x), the logit of being harmful: (..., d) to (...)."""
        return self.project(representations) @ self.harmfulness_weight + self.harmfulness_bias

    def tensors(self) -> dict[str, Tensor]:
        """All fields by name, to be stored."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def estimate_directions(
    representations: Tensor,
    refusal_probabilities: Tensor,
    labels: Tensor,
    *,
    components: int = 4,
    folds: int = 10,
    seed: int = 0,
) -> Directions:
    """Fit the principal components and both regressions.

    Args:
        representations: (N, d) of all anchor queries under all conditions.
        refusal_probabilities: (N,), r in [0, 1].
        labels: (N,), 1 harmful, 0 harmless.
        components: m.
        folds: the regressions are fitted without each fold in turn and averaged.
        seed: of the assignment to folds.

    Raises:
        ValueError: `components` exceeds what N or d allows.
    """
    from sklearn.decomposition import PCA
    from sklearn.model_selection import KFold

    points = representations.double().numpy()
    pca = PCA(n_components=components, svd_solver="full").fit(points)
    projected = pca.transform(points)
    splits = [train for train, _ in KFold(folds, shuffle=True, random_state=seed).split(projected)]
    refusal = _averaged(projected, refusal_probabilities.double().numpy(), splits)
    harmfulness = _averaged(projected, labels.double().numpy(), splits)

    def tensor(values: NDArray[numpy.float64]) -> Tensor:
        return torch.from_numpy(numpy.ascontiguousarray(values)).float()

    return Directions(
        mean=tensor(pca.mean_),
        components=tensor(pca.components_.T),
        explained_variance=tensor(pca.explained_variance_ratio_),
        refusal_weight=tensor(refusal[:-1]),
        refusal_bias=tensor(refusal[-1:]).squeeze(0),
        harmfulness_weight=tensor(harmfulness[:-1]),
        harmfulness_bias=tensor(harmfulness[-1:]).squeeze(0),
    )


def _averaged(
    points: NDArray[numpy.float64],
    targets: NDArray[numpy.float64],
    splits: list[NDArray[numpy.int64]],
) -> NDArray[numpy.float64]:
    """Weights and, last, the bias of logistic regressions, averaged over the splits."""
    fits = [logistic_regression(points[rows], targets[rows]) for rows in splits]
    averaged: NDArray[numpy.float64] = numpy.stack(fits).mean(axis=0)
    return averaged


def logistic_regression(
    points: NDArray[numpy.float64], targets: NDArray[numpy.float64]
) -> NDArray[numpy.float64]:
    """Fit to soft targets in [0, 1]: each point counts as both classes, by its target.

    Args:
        points: (N, m).
        targets: (N,).

    Returns:
        (m + 1,): the weights and, last, the bias.
    """
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=1 / REGULARIZATION, max_iter=10_000, tol=1e-8)
    regression.fit(
        numpy.concatenate([points, points]),
        numpy.concatenate([numpy.ones(len(points)), numpy.zeros(len(points))]),
        sample_weight=numpy.concatenate([targets, 1 - targets]),
    )
    fitted: NDArray[numpy.float64] = numpy.append(regression.coef_[0], regression.intercept_[0])
    return fitted
