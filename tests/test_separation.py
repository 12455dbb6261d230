"""Separations, movements and layers against independent computations."""

from __future__ import annotations

import numpy
import pytest
import torch

from demur.chat.engine import Engine, Inputs
from demur.chat.engine.architecture import decoder_layers
from demur.geometry import (
    Directions,
    movement,
    paired_folds,
    principal_components,
    separation,
)
from demur.geometry.separation import area_under_curve
from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

HARMFUL = (True,) * 40 + (False,) * 40


def test_area_under_curve_counts_pairs() -> None:
    generator = numpy.random.default_rng(0)
    scores = generator.integers(0, 6, 50).astype(float)  # with ties
    sides = generator.random(50) < 0.4
    above = [
        1.0 if positive > negative else 0.5 if positive == negative else 0.0
        for positive in scores[sides]
        for negative in scores[~sides]
    ]
    assert area_under_curve(scores, sides) == pytest.approx(sum(above) / len(above))


def test_separation_is_of_points_that_were_not_trained_on() -> None:
    """Random labels part nowhere, though a regression fits forty of them well."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor(HARMFUL).float()
    noise = torch.randn(80, 30, generator=generator)
    folds = paired_folds(HARMFUL, 10)
    chance = separation(principal_components(noise, 20), labels, folds)
    apart = separation(principal_components(noise + 4 * labels[:, None], 4), labels, folds)
    assert chance is not None
    assert apart is not None
    assert chance.auc < 0.7
    assert apart.auc > 0.99
    assert apart.accuracy > 0.95
    assert apart.points == 80


def test_too_few_of_a_side_give_no_score() -> None:
    points = torch.randn(80, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    refusal = torch.zeros(80)
    refusal[:4] = 1.0
    folds = paired_folds(HARMFUL, 10)
    assert separation(points, refusal, folds) is None
    refusal[4] = 1.0
    assert separation(points, refusal, folds) is not None


def test_twins_stay_together() -> None:
    folds = paired_folds(HARMFUL, 10)
    assert (folds[:40] == folds[40:]).all()
    assert sorted(set(folds.tolist())) == list(range(10))


def test_principal_components_are_those_of_the_covariance() -> None:
    points = torch.randn(60, 8, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 9)
    found = principal_components(points, 3)
    covariance = numpy.cov(found.T)
    values = numpy.linalg.eigvalsh(numpy.cov(points.double().numpy().T))[::-1][:3]
    numpy.testing.assert_allclose(covariance, numpy.diag(numpy.diag(covariance)), atol=1e-9)
    numpy.testing.assert_allclose(
        numpy.diag(covariance) / covariance[0, 0], values / values[0], rtol=1e-6
    )
    assert found[:, 0].std() == pytest.approx(1)


def test_a_movement_along_the_refusal_direction() -> None:
    directions = Directions(
        mean=torch.zeros(6),
        components=torch.eye(6)[:, :2],
        explained_variance=torch.tensor([0.5, 0.2]),
        refusal_weight=torch.tensor([2.0, 0.0]),
        refusal_bias=torch.tensor(0.3),
        harmfulness_weight=torch.tensor([0.0, 1.0]),
        harmfulness_bias=torch.tensor(0.0),
    )
    before = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    after = before + torch.tensor([3.0, 0.0, 0.0, 4.0, 0.0, 0.0])
    found = movement(directions, before, after)
    assert found.length == pytest.approx(5)
    assert found.agreement == pytest.approx(1)
    assert found.refusal == pytest.approx(6, rel=1e-5)
    assert found.refusal_error == pytest.approx(0, abs=1e-5)
    assert found.harmfulness == pytest.approx(0, abs=1e-6)
    assert found.along_refusal == pytest.approx(1)
    assert found.along_refusal_whole == pytest.approx(0.6)
    assert found.within_components == pytest.approx(9 / 25)
    nowhere = movement(directions, before, before)
    assert (nowhere.length, nowhere.along_refusal, nowhere.within_components) == (0, 0, 0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_are_those_of_the_model(name: str) -> None:
    """On the shared and on the plain path, against the model's own hidden states."""
    model = tiny_model(name)
    prefix, suffixes = (5, 9, 23, 40), ((12, 7), (33, 8, 60, 11), (51,))
    expected = []
    for suffix in suffixes:
        with torch.inference_mode():
            output = model(torch.tensor([prefix + suffix]), output_hidden_states=True)
        states = output.hidden_states[0 if name.startswith("mamba") else 1 :]
        expected.append(torch.stack([state[0, -1] for state in states]))
    engine = Engine(model, tiny_tokenizer())
    for inputs in (
        Inputs(prefix, suffixes, None),
        Inputs((), tuple(prefix + suffix for suffix in suffixes), None),
    ):
        found = engine.represent_layers(inputs)
        assert found is not None
        layers = decoder_layers(model)
        assert layers is not None
        assert found.shape == (3, len(layers), expected[0].shape[1])
        # transformers puts the last layer's output through the final norm.
        torch.testing.assert_close(
            found[:, :-1],
            torch.stack(expected)[:, : len(layers) - 1],
            rtol=2e-3,
            atol=2e-3,
        )
