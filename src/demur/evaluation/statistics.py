"""Rates over queries, their confidence intervals, and whether two prompts differ."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist, fmean, stdev

from demur.errors import DemurError
from demur.records import Interval, Rate

_ROUNDING = 1e-9
"""How far above the number of trials a sum of rates may come out."""

_DRAWS = 100_000
"""Sign flips drawn where there are too many to count; the least p-value is one in so many."""


_MOST_PARTS = 10_000
_MOST_STEPS = 50_000
"""Largest denominator of a step, and largest sum in steps, that are computed exactly."""


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a rate, without continuity correction.

    The unit is the query. Where each query has several samples, `successes` is the mean over the
    samples times the number of queries, and may be fractional; the interval is then conservative,
    for it takes each query as a single draw.

    Args:
        successes: from 0 to `trials`.
        trials: at least 1.
        confidence: above 0 and below 1.

    Returns:
        The lower and the upper bound, `0 <= low <= successes / trials <= high <= 1`.

    Raises:
        DemurError: an argument is outside its range.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927).
    """
    if trials < 1:
        raise DemurError("A rate needs at least one query: give some queries.")
    if not 0 <= successes <= trials * (1 + _ROUNDING):
        raise DemurError(f"{successes} successes in {trials} trials: give between 0 and {trials}.")
    if not 0 < confidence < 1:
        raise DemurError(f"The confidence is {confidence}: give one above 0 and below 1, say 0.95.")

    rate = min(successes / trials, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z**2 / trials
    centre = (rate + z**2 / (2 * trials)) / scale
    half_width = z / scale * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    # At the ends the bound is the rate itself, which rounding would miss.
    low = 0.0 if rate == 0 else max(0.0, min(rate, centre - half_width))
    high = 1.0 if rate == 1 else min(1.0, max(rate, centre + half_width))
    return low, high


def rate_over_queries(per_query_rates: Sequence[float], confidence: float = 0.95) -> Rate:
    """The mean of each query's rate over its samples, with the Wilson interval over queries.

    Raises `DemurError` where there are no queries or a rate is outside [0, 1].
    """
    _check_rates(per_query_rates)
    queries = len(per_query_rates)
    count = math.fsum(per_query_rates)
    low, high = wilson_interval(count, queries, confidence)
    return Rate(count, queries, Interval(low, high, confidence))


def mean_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    *,
    least: float = 0.0,
    most: float = math.inf,
) -> Interval | None:
    """Student's interval of a mean, by default of one that cannot be below 0.

    Args:
        values: for each query, from `least` to `most`.
        confidence: above 0 and below 1.
        least: what the mean is at least.
        most: what the mean is at most.

    Returns:
        None where there are fewer than two values, which say nothing of how they vary.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    mean = fmean(values)
    half_width = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    half_width *= stdev(values) / math.sqrt(len(values))
    return Interval(max(least, mean - half_width), min(most, mean + half_width), confidence)


def mean_share(shares: Sequence[float]) -> Rate:
    """The mean of shares that were each counted over many things, with Student's interval.

    The Wilson interval takes each query as a single draw, which says far too little of a share of
    dozens of tokens.

    Args:
        shares: for each query, in [0, 1].

    Raises:
        DemurError: there are no queries or a share is outside [0, 1].
    """
    _check_rates(shares)
    rate = rate_over_queries(shares)
    interval = mean_interval(shares, most=1.0)
    return rate if interval is None else Rate(rate.count, rate.queries, interval)


def any_rate(per_query_rates: Sequence[float], confidence: float = 0.95) -> Rate:
    """The share of queries with a rate above 0: the paper's count, at least one of the samples.

    Raises `DemurError` where there are no queries or a rate is outside [0, 1].
    """
    _check_rates(per_query_rates)
    return rate_over_queries([float(rate > 0) for rate in per_query_rates], confidence)


def _check_rates(per_query_rates: Sequence[float]) -> None:
    for rate in per_query_rates:
        if not 0 <= rate <= 1:
            raise DemurError(f"A query's rate is {rate}: give rates between 0 and 1.")


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """The paired sign-flip permutation test: whether a mean difference is more than chance.

    If two prompts do the same, each query's difference is as likely to have the other sign. The
    p-value is the share of all sign assignments whose sum is at least as far from 0 as the sum
    observed (two-sided). Where all differences are of one size, as with single responses, this is
    McNemar's exact test. It is exact as well where they are whole multiples of one step, as with
    several responses to each query. Elsewhere 100,000 assignments are drawn with a fixed seed, the
    observed one counts as one more, and a p-value near 0.05 is accurate to about 0.0015.

    Args:
        differences: for each query that both prompts were measured on, in [-1, 1]. Zeros say
            nothing and change nothing.

    Returns:
        The p-value, above 0 and at most 1; 1 where nothing differs.

    Source: R. A. Fisher, The Design of Experiments (1935), chapter 3; Q. McNemar, Psychometrika 12
    (1947).
    """
    import numpy

    signed = numpy.round(numpy.asarray(differences, dtype=float), 9)
    signed = signed[signed != 0]
    if signed.size == 0:
        return 1.0
    sizes, counts = numpy.unique(numpy.abs(signed), return_counts=True)
    if sizes.size == 1:
        from scipy.stats import binomtest

        return float(binomtest(int((signed > 0).sum()), signed.size).pvalue)
    steps = _whole_steps(sizes.tolist())
    if steps is not None and sum(map(operator.mul, steps, counts.tolist())) <= _MOST_STEPS:
        share = abs(float(signed.sum())) / (float(sizes[0]) / steps[0])
        return _exact_p_value(steps, counts.tolist(), round(share))
    # Differences of one size can be flipped together: how many stay positive is binomial.
    draws = numpy.random.default_rng(0)
    sums = numpy.zeros(_DRAWS)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2 * draws.binomial(count, 0.5, _DRAWS) - count)
    as_far = numpy.abs(sums) >= abs(float(signed.sum())) - _ROUNDING * signed.size
    return float((1 + as_far.sum()) / (1 + _DRAWS))


def _whole_steps(sizes: Sequence[float]) -> list[int] | None:
    """Sizes as whole multiples of one step; None where there is no such step."""
    parts = [Fraction(size).limit_denominator(_MOST_PARTS) for size in sizes]
    if any(abs(float(part) - size) > _ROUNDING for part, size in zip(parts, sizes, strict=True)):
        return None
    denominator = math.lcm(*(part.denominator for part in parts))
    whole = [part.numerator * (denominator // part.denominator) for part in parts]
    common = math.gcd(*whole)
    return [one // common for one in whole]


def _exact_p_value(steps: Sequence[int], counts: Sequence[int], observed: int) -> float:
    """The share of sign assignments whose sum is at least as far from 0.

    Args:
        steps: sizes of the differences in whole steps.
        counts: number of differences of each size.
        observed: how far from 0 the sum is, in steps.
    """
    import numpy
    from scipy.stats import binom

    # How likely each sum is, from the lowest one on, two steps apart.
    likely = numpy.ones(1)
    for step, count in zip(steps, counts, strict=True):
        part = numpy.zeros(count * step + 1)
        part[::step] = binom.pmf(numpy.arange(count + 1), count, 0.5)
        likely = numpy.convolve(likely, part)
    sums = 2 * numpy.arange(likely.size) - (likely.size - 1)
    return min(1.0, float(likely[numpy.abs(sums) >= observed].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for there being several, in the same order.

    Among tests whose adjusted value is below 0.05, the chance of even one false alarm is below 5 %.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted
