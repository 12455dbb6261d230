from __future__ import annotations

import math

import pytest

from demur.errors import DemurError
from demur.evaluation.statistics import any_rate, rate_over_queries, wilson_interval


# The first four: R. G. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 10, 0.2366, 0.7634),
        (8, 10, 0.4902, 0.9433),
    ],
)
def test_wilson_interval_equals_published_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_bounds_solve_the_score_equation() -> None:
    # Wilson's bounds are the rates p at which the observed rate is exactly z standard errors away.
    for successes, trials, confidence, z in [(7.25, 100, 0.95, 1.959964), (3, 40, 0.99, 2.575829)]:
        for bound in wilson_interval(successes, trials, confidence):
            standard_error = math.sqrt(bound * (1 - bound) / trials)
            assert abs(successes / trials - bound) == pytest.approx(z * standard_error, rel=1e-5)


def test_wilson_interval_is_mirrored_and_stays_in_range() -> None:
    for trials in (1, 2, 3, 7, 100, 100_000):
        for successes in (0, 0.3, trials / 3, trials / 2, trials - 0.3, trials):
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
            mirrored = wilson_interval(trials - successes, trials)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert wilson_interval(0, 5)[0] == 0
    assert wilson_interval(5, 5)[1] == 1


@pytest.mark.parametrize(
    ("successes", "trials", "confidence"),
    [
        (0, 0, 0.95),
        (0, -1, 0.95),
        (-0.1, 10, 0.95),
        (10.1, 10, 0.95),
        (math.nan, 10, 0.95),
        (1, 10, 0.0),
        (1, 10, 1.0),
        (1, 10, math.nan),
    ],
)
def test_wilson_interval_refuses_what_is_out_of_range(
    successes: float, trials: int, confidence: float
) -> None:
    with pytest.raises(DemurError):
        wilson_interval(successes, trials, confidence)


def test_rate_over_queries_is_the_mean_with_the_query_as_the_unit() -> None:
    rate = rate_over_queries([0.0, 0.05, 1.0, 0.95])
    assert rate.value == pytest.approx(0.5)
    assert rate.count == pytest.approx(2)
    assert rate.queries == 4
    assert (rate.interval.low, rate.interval.high) == pytest.approx(wilson_interval(2, 4))
    assert rate.interval.confidence == 0.95


def test_rate_takes_the_confidence_it_is_given() -> None:
    narrow = rate_over_queries([0.0, 1.0], confidence=0.5).interval
    wide = rate_over_queries([0.0, 1.0], confidence=0.99).interval
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high


def test_any_rate_counts_queries_with_at_least_one_sample() -> None:
    rate = any_rate([0.0, 0.05, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert rate.count == 2
    assert rate.value == 0.2
    assert (rate.interval.low, rate.interval.high) == wilson_interval(2, 10)


def test_rounding_in_the_rates_is_no_error() -> None:
    assert rate_over_queries([0.1 * 3 + 0.7] * 50).value == 1
    assert wilson_interval(10 * (1 + 1e-12), 10)[1] == 1


@pytest.mark.parametrize("rates", [[], [0.5, 1.5], [-0.1], [math.nan]])
def test_rates_refuse_no_queries_and_rates_out_of_range(rates: list[float]) -> None:
    for function in (rate_over_queries, any_rate):
        with pytest.raises(DemurError):
            function(rates)


def test_a_rate_prints_as_percent_with_its_interval() -> None:
    assert str(any_rate([1.0] * 5 + [0.0] * 5)) == "50.0 % (23.7 to 76.3)"
