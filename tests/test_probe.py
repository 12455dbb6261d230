"""The linear probe and its thresholds against independent computations."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor

from demur.geometry import fit_probe, found_at, paired_folds
from demur.progress import SilentStage

COUNT, LAYERS, WIDTH = 120, 3, 30
HARMFUL = (True,) * 60 + (False,) * 60
FOLDS = paired_folds(HARMFUL, 5)


def states_of(harmful: tuple[bool, ...], seed: int, layer: int = 1, shift: float = 3.0) -> Tensor:
    """Noise in every layer, and the label along two features of one of them."""
    noise = torch.randn(len(harmful), LAYERS, WIDTH, generator=torch.Generator().manual_seed(seed))
    noise[:, layer, :2] += shift * (torch.tensor(harmful).float()[:, None] - 0.5)
    return noise


def test_the_probe_reads_the_layer_that_tells() -> None:
    for layer in range(LAYERS):
        probe = fit_probe(states_of(HARMFUL, 0, layer), HARMFUL, FOLDS)
        assert (probe.layer, probe.layers) == (layer + 1, LAYERS)
        others = probe.scores(states_of(HARMFUL, 1, layer))
        right = (others > 0) == numpy.array(HARMFUL)
        assert right.mean() > 0.85
        assert probe.auc > 0.85


def test_the_weights_are_those_of_least_loss() -> None:
    """At the minimum of the penalised cross-entropy its gradient is zero."""
    states = states_of(HARMFUL, 0)
    probe = fit_probe(states, HARMFUL, FOLDS, penalties=[0.3])
    points = states[:, 1].double().numpy()
    deviation = points.std(axis=0) * numpy.sqrt(WIDTH)
    standardised = (points - points.mean(axis=0)) / deviation
    numpy.testing.assert_allclose(probe.scale, deviation)
    scores = standardised @ probe.weight + probe.bias
    numpy.testing.assert_allclose(probe.scores(states), scores)
    error = 1 / (1 + numpy.exp(-scores)) - numpy.array(HARMFUL)
    numpy.testing.assert_allclose(standardised.T @ error + 0.3 * probe.weight, 0, atol=1e-4)
    assert error.sum() == pytest.approx(0, abs=1e-3)


def test_both_labels_weigh_the_same() -> None:
    """With few harmful queries the probe does not take nearly all for harmless."""
    few = (True,) * 25 + (False,) * 275
    noisy = states_of(few, 0, shift=1.0)
    probe = fit_probe(noisy, few, paired_folds(few, 5), penalties=[10.0])
    assert 0.35 < (probe.scores(states_of(HARMFUL, 3, shift=1.0)) > 0).mean() < 0.65
    states = states_of(few, 0)[:, 1].double().numpy()
    probe = fit_probe(states_of(few, 0), few, paired_folds(few, 5), penalties=[0.3])
    points = (states - states.mean(axis=0)) / probe.scale
    scores = points @ probe.weight + probe.bias
    weights = numpy.where(few, 300 / (2 * 25), 300 / (2 * 275))
    error = weights * (1 / (1 + numpy.exp(-scores)) - numpy.array(few))
    numpy.testing.assert_allclose(points.T @ error + 0.3 * probe.weight, 0, atol=1e-3)


def test_the_scale_of_a_feature_changes_nothing() -> None:
    states, others = states_of(HARMFUL, 0), states_of(HARMFUL, 1)
    scale = torch.logspace(-2, 2, WIDTH)
    expected = fit_probe(states, HARMFUL, FOLDS).scores(others)
    found = fit_probe(states * scale + 7, HARMFUL, FOLDS).scores(others * scale + 7)
    numpy.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_a_feature_that_never_varies_is_harmless() -> None:
    states = states_of(HARMFUL, 0)
    states[:, :, 5] = 3.0
    assert numpy.isfinite(fit_probe(states, HARMFUL, FOLDS).scores(states)).all()


def test_nothing_is_learnt_from_noise() -> None:
    """Thirty weights fit random labels well; the cross-validated AUC says that it means nothing."""
    probe = fit_probe(states_of(HARMFUL, 2, shift=0.0), HARMFUL, FOLDS)
    assert probe.auc < 0.68
    chosen = fit_probe(states_of(HARMFUL, 2, shift=0.0), HARMFUL, FOLDS, penalties=[10.0, 1e-3])
    assert chosen.penalty == 10.0


def test_every_layer_is_reported() -> None:
    class Counting(SilentStage):
        done = 0.0

        def advance(self, amount: float = 1) -> None:
            self.done += amount

    counting = Counting()
    fit_probe(states_of(HARMFUL, 0), HARMFUL, FOLDS, stage=counting)
    assert counting.done == LAYERS


def test_what_cannot_be_fitted_is_refused() -> None:
    states = states_of(HARMFUL, 0)
    few = (True,) * 19 + (False,) * 101
    with pytest.raises(ValueError, match="at least 20 queries of each label"):
        fit_probe(states, few, paired_folds(few, 5))
    with pytest.raises(ValueError, match="at least two folds"):
        fit_probe(states, HARMFUL, numpy.zeros(COUNT, dtype=numpy.int64))
    with pytest.raises(ValueError, match="no penalty"):
        fit_probe(states, HARMFUL, FOLDS, penalties=[])
    probe = fit_probe(states, HARMFUL, FOLDS)
    with pytest.raises(ValueError, match="reads 3 layers, not 2"):
        probe.scores(states[:, :2])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.3, 0.999, 1.0])
def test_no_more_than_the_share_passes_the_threshold(share: float) -> None:
    """Against every threshold that there could be."""
    generator = numpy.random.default_rng(0)
    scores = generator.integers(0, 40, 90).astype(float)  # with ties
    sides = generator.random(90) < 0.4
    best = 0.0
    for threshold in (-1.0, *numpy.unique(scores)):
        if (scores[~sides] > threshold).mean() <= share:
            best = max(best, float((scores[sides] > threshold).mean()))
    found = found_at(scores, sides, share)
    assert found.shape == (sides.sum(),)
    assert found.mean() == pytest.approx(best)
