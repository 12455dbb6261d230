"""Directions and losses against independent computations."""

from __future__ import annotations

import numpy
import numpy.typing
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from demur.geometry import Directions, LossWeights, dro_terms, estimate_directions

Array = numpy.typing.NDArray[numpy.float64]
WIDTH, COMPONENTS, COUNT = 24, 4, 120


@pytest.fixture(scope="module")
def anchors() -> tuple[Tensor, Tensor, Tensor]:
    """Representations whose refusal and harm grow along known directions."""
    generator = torch.Generator().manual_seed(0)
    scales = 6 * 0.7 ** torch.arange(WIDTH)
    points = torch.randn(COUNT, WIDTH, generator=generator) * scales + 3.0
    centred = points - points.mean(0)
    refusal = torch.sigmoid(centred[:, 0] - 0.5 * centred[:, 1])
    labels = (centred[:, 1] + centred[:, 2] > 0).float()
    return points, (refusal * 5).round() / 5, labels


@pytest.fixture(scope="module")
def directions(anchors: tuple[Tensor, Tensor, Tensor]) -> Directions:
    return estimate_directions(*anchors, components=COMPONENTS)


def test_components_are_the_leading_eigenvectors(
    anchors: tuple[Tensor, Tensor, Tensor], directions: Directions
) -> None:
    points = anchors[0].double().numpy()
    centred = points - points.mean(0)
    values, vectors = numpy.linalg.eigh(centred.T @ centred)
    leading = vectors[:, ::-1][:, :COMPONENTS]
    overlap = numpy.abs(leading.T @ directions.components.double().numpy())
    numpy.testing.assert_allclose(overlap, numpy.eye(COMPONENTS), atol=1e-4)
    share = values[::-1][:COMPONENTS] / values.sum()
    numpy.testing.assert_allclose(directions.explained_variance, share, rtol=1e-4)
    numpy.testing.assert_allclose(directions.mean, points.mean(0), rtol=1e-5)


def test_regressions_minimize_the_soft_cross_entropy(
    anchors: tuple[Tensor, Tensor, Tensor],
) -> None:
    """With two folds each fit can be redone by a general optimizer and averaged by hand."""
    from sklearn.model_selection import KFold

    points, refusal, labels = anchors
    found = estimate_directions(points, refusal, labels, components=2, folds=2, seed=7)
    projected = found.project(points).double().numpy()

    def fit(targets: Tensor) -> Array:
        wanted = targets.double().numpy()

        def penalized_loss(theta: Array, rows: Array) -> float:
            logits = projected[rows] @ theta[:2] + theta[2]
            cross_entropy = numpy.logaddexp(0, logits) - wanted[rows] * logits
            return float(cross_entropy.sum() + 0.5 * (theta[:2] ** 2).sum())

        folds = KFold(2, shuffle=True, random_state=7).split(projected)
        fits = numpy.stack(
            [
                minimize(penalized_loss, numpy.zeros(3), args=(rows,), options={"gtol": 1e-8}).x
                for rows, _ in folds
            ]
        )
        averaged: Array = fits.mean(axis=0)
        return averaged

    expected = fit(refusal)
    numpy.testing.assert_allclose(found.refusal_weight, expected[:2], rtol=1e-3, atol=1e-4)
    numpy.testing.assert_allclose(found.refusal_bias, expected[2], rtol=1e-3, atol=1e-4)
    expected = fit(labels)
    numpy.testing.assert_allclose(found.harmfulness_weight, expected[:2], rtol=1e-3, atol=1e-4)


def test_loss_terms_match_the_formulas(directions: Directions) -> None:
    """Written out with the complement U built in full, in float64."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(10, WIDTH, generator=generator)
    moved = start + torch.randn(10, WIDTH, generator=generator)
    labels = torch.tensor([1.0, 0.0] * 5)
    terms = dro_terms(directions, moved, start, labels)

    basis = directions.components.double().numpy()
    complement = numpy.linalg.svd(basis)[0][:, COMPONENTS:]
    assert complement.shape == (WIDTH, WIDTH - COMPONENTS)
    x_t, x_0 = moved.double().numpy(), start.double().numpy()
    mean = directions.mean.double().numpy()
    target = labels.double().numpy()

    def cross_entropy(weight: Tensor, bias: Tensor) -> Array:
        def f(x: Array) -> Array:
            logits: Array = (x - mean) @ basis @ weight.double().numpy() + float(bias)
            return logits

        probability = 1 / (1 + numpy.exp(-(f(x_t) - f(x_0))))
        entropy: Array = target * numpy.log(probability) + (1 - target) * numpy.log(1 - probability)
        return -entropy

    refusal = cross_entropy(directions.refusal_weight, directions.refusal_bias)
    harmfulness = cross_entropy(directions.harmfulness_weight, directions.harmfulness_bias)
    outside = (((x_t - x_0) @ complement) ** 2).sum(1) / (WIDTH - COMPONENTS)
    numpy.testing.assert_allclose(terms.refusal, refusal, rtol=1e-4)
    numpy.testing.assert_allclose(terms.harmfulness, harmfulness, rtol=1e-4)
    numpy.testing.assert_allclose(terms.complement, outside, rtol=1e-4)
    total = terms.total(LossWeights())
    numpy.testing.assert_allclose(total, refusal + 0.01 * harmfulness + 0.001 * outside, rtol=1e-4)
    without = terms.total(LossWeights(refusal=0))
    numpy.testing.assert_allclose(without, 0.01 * harmfulness + 0.001 * outside, rtol=1e-4)


def test_refusal_and_harmfulness_are_logits(
    anchors: tuple[Tensor, Tensor, Tensor], directions: Directions
) -> None:
    points, refusal, labels = anchors
    assert ((directions.harmfulness(points) > 0) == labels.bool()).float().mean() > 0.9
    predicted = directions.refusal(points).sigmoid()
    assert torch.corrcoef(torch.stack([predicted, refusal]))[0, 1] > 0.8


def test_nothing_moved_costs_log_two(directions: Directions) -> None:
    still = torch.ones(3, WIDTH)
    terms = dro_terms(directions, still, still, torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(terms.refusal, torch.full((3,), 0.6931472))
    torch.testing.assert_close(terms.complement, torch.zeros(3))
