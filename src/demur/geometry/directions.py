"""The refusal and harmfulness directions (DRO paper, sections 3 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.errors import DemurError

REGULARIZATION = 1.0
"""Strength of the L2 penalty on the weights of the regressions (scikit-learn's `1 / C`). Without a
penalty the harmfulness regression often has no finite solution: the labels are separable."""

_SAME = 1e-15
"""Share of the mean square that a variance has where points are the same but for rounding."""


@dataclass(frozen=True)
class Directions:
    """The directions of a model, all float32 on the CPU; d is the size of a representation.

    Attributes:
        mean: (d,), mean of the representations, mu.
        components: (d, m), first m principal components as orthonormal columns, V.
        explained_variance: (m,), share of the variance along each component, in [0, 1].
        refusal_weight: (m,), refusal direction within the components, w_r.
        refusal_bias: (), bias of the refusal regression, b_r.
        harmfulness_weight: (m,), harmfulness direction within the components, w_h.
        harmfulness_bias: (), bias of the harmfulness regression, b_h.
    """

    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    refusal_weight: Tensor
    refusal_bias: Tensor
    harmfulness_weight: Tensor
    harmfulness_bias: Tensor

    def project(self, representations: Tensor) -> Tensor:
        """Project representations (..., d) on the components: g(x) = V^T (x - mu), (..., m)."""
        return (representations - self.mean) @ self.components

    def refusal(self, representations: Tensor) -> Tensor:
        """Logits of the refusal probability at representations (..., d): f_r(x), (...)."""
        return self.project(representations) @ self.refusal_weight + self.refusal_bias

    def harmfulness(self, representations: Tensor) -> Tensor:
        """Logits of being harmful at representations (..., d): f_h(x), (...)."""
        return self.project(representations) @ self.harmfulness_weight + self.harmfulness_bias

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def require_readings(queries: int, conditions: int, *, components: int, folds: int) -> None:
    """Check that there are enough readings to estimate directions from.

    Args:
        queries: number of anchor queries.
        conditions: number of conditions, under each of which every query is read once.
        components: number of principal components, m.
        folds: number of folds.

    Raises:
        DemurError: there are too many components or folds.
    """
    readings = queries * conditions
    there_are = f"for the {readings} readings of {queries} queries under {conditions} conditions"
    if components >= readings:
        raise DemurError(
            f"--components {components} is too many {there_are}: give less than {readings}."
        )
    if folds > readings:
        raise DemurError(f"--folds {folds} is too many {there_are}: give at most {readings}.")


def estimate_directions(
    representations: Tensor,
    refusal_probabilities: Tensor,
    labels: Tensor,
    *,
    components: int = 4,
    folds: int = 10,
    seed: int = 0,
    basis: Tensor | None = None,
) -> Directions:
    """Fit the principal components and both regressions (section 4.1).

    Args:
        representations: (N, d), representations of all anchor queries under all conditions.
        refusal_probabilities: (N,), refusal probabilities r, in [0, 1].
        labels: (N,), labels l: 1 for harmful, 0 for harmless.
        components: number of principal components m, at least 1 and at most min(N, d); 4 in the
            paper.
        folds: number of folds, from 2 to N. The regressions are fitted without each fold in turn,
            and their weights are averaged.
        seed: seed of the assignment to folds, from 0 to 2**32 - 1.
        basis: (d, m), orthonormal columns that take the place of the principal components.

    Raises:
        ValueError: there are more components or folds than N or d allows.
        DemurError: all representations are the same.
    """
    from sklearn.decomposition import PCA
    from sklearn.model_selection import KFold

    points = representations.double().numpy()
    if points.var(axis=0).sum() <= _SAME * (points**2).mean(axis=0).sum():
        raise DemurError(
            "The model has the same representation of every query, so there is no direction to "
            "estimate: use another model, or other queries."
        )
    if basis is None:
        pca = PCA(n_components=components, svd_solver="full").fit(points)
        axes, shares = pca.components_.T, pca.explained_variance_ratio_
    else:
        axes = basis.double().numpy()
        shares = (points @ axes).var(axis=0) / points.var(axis=0).sum()
    mean = points.mean(axis=0)
    projected = (points - mean) @ axes
    splits = [train for train, _ in KFold(folds, shuffle=True, random_state=seed).split(projected)]
    refusal = _averaged(projected, refusal_probabilities.double().numpy(), splits)
    harmfulness = _averaged(projected, labels.double().numpy(), splits)

    def tensor(values: NDArray[numpy.float64]) -> Tensor:
        return torch.from_numpy(numpy.ascontiguousarray(values)).float()

    return Directions(
        mean=tensor(mean),
        components=tensor(axes),
        explained_variance=tensor(shares),
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
    """The weights and, last, the bias of logistic regressions, averaged over the splits."""
    fits = [logistic_regression(points[rows], targets[rows]) for rows in splits]
    averaged: NDArray[numpy.float64] = numpy.stack(fits).mean(axis=0)
    return averaged


def logistic_regression(
    points: NDArray[numpy.float64], targets: NDArray[numpy.float64]
) -> NDArray[numpy.float64]:
    """Fit a logistic regression to soft targets.

    Each point counts as both classes: with its target as one of them, and with the rest to 1 as the
    other. That is the cross-entropy of the soft target.

    Args:
        points: (N, m), points.
        targets: (N,), targets in [0, 1].

    Returns:
        (m + 1,), the weights and, last, the bias.
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
