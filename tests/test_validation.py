"""The choice among the epochs of a training."""

from __future__ import annotations

import pytest
import torch

from demur.optimization.validation import Validation, chosen_epoch, front
from demur.records import Label, Queries

CAREFUL, MIDDLE, STRICT = Validation(0.7, 0.01), Validation(0.9, 0.02), Validation(0.95, 0.2)


def labelled(harmful: int, harmless: int) -> Queries:
    """So many queries of each label, the harmful ones first."""
    count = harmful + harmless
    labels: list[Label] = ["harmful" if row < harmful else "harmless" for row in range(count)]
    texts = tuple(f"query {row}" for row in range(count))
    return Queries("some", texts, tuple(labels), (None,) * count)


def test_the_means_of_both_labels() -> None:
    queries = Queries("some", ("a", "b", "c"), ("harmful", "harmless", "harmful"), (None,) * 3)
    found = Validation.of(queries, torch.tensor([0.5, 0.25, 1.0]))
    assert found == Validation(harmful=0.75, harmless=0.25)


def test_how_well_the_scores_tell_the_labels_apart() -> None:
    """40 harmless queries: 2 % of them are none, 5 % are two."""
    scores = [0.9, 0.8, 0.7, 0.6, 0.1, 0.75, 0.65, *(0.01 * row for row in range(38))]
    queries = labelled(harmful=5, harmless=40)
    ranking = Validation.of(queries, torch.tensor(scores)).ranking
    assert ranking is not None
    assert ranking.found_at_2 == pytest.approx(0.4)  # above 0.75
    assert ranking.found_at_5 == pytest.approx(0.8)  # above 0.37
    above = 40 + 40 + 39 + 38 + 10  # harmless queries below each harmful one
    assert ranking.auc == pytest.approx((above + 0.5) / 200)  # a tie counts half


def test_a_constant_shift_of_all_scores_changes_the_means_and_not_the_ranking() -> None:
    queries = labelled(harmful=5, harmless=5)
    scores = torch.linspace(0.0, 0.5, 10).flip(0)
    low, high = (Validation.of(queries, scores + shift) for shift in (0.0, 0.4))
    assert low.ranking == high.ranking
    assert low.harmful < high.harmful


def test_the_epoch_that_refuses_most_harm_within_the_budget_is_chosen() -> None:
    some = [STRICT, MIDDLE, CAREFUL]
    assert chosen_epoch(some, budget=0.02) == 2
    assert chosen_epoch(some, budget=0.01) == 2  # a percent too many costs less than it brings
    assert chosen_epoch(some, budget=0.2) == 1
    assert chosen_epoch([STRICT, CAREFUL], budget=0.01) == 2


def test_the_later_of_two_equal_epochs_is_chosen() -> None:
    assert chosen_epoch([MIDDLE, MIDDLE, CAREFUL], budget=0.02) == 2


def test_nothing_is_chosen_where_nothing_was_validated() -> None:
    assert chosen_epoch([None, None], budget=0.02) is None
    assert front([None]) == []


def test_the_front_runs_from_careful_to_strict_and_leaves_out_what_is_beaten() -> None:
    beaten = Validation(0.6, 0.05)
    assert front([STRICT, beaten, None, CAREFUL, MIDDLE]) == [4, 5, 1]
