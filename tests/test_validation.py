"""The choice among the epochs of a training."""

from __future__ import annotations

import torch

from demur.optimization.validation import Validation, chosen_epoch, front
from demur.records import Queries

CAREFUL, MIDDLE, STRICT = Validation(0.7, 0.01), Validation(0.9, 0.02), Validation(0.95, 0.2)


def test_the_means_of_both_labels() -> None:
    queries = Queries("some", ("a", "b", "c"), ("harmful", "harmless", "harmful"), (None,) * 3)
    found = Validation.of(queries, torch.tensor([0.5, 0.25, 1.0]))
    assert found == Validation(harmful=0.75, harmless=0.25)


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
