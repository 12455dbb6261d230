"""Rates over queries with their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower bound; of a rate, in [0, 1].
        high: upper bound; of a rate, in [0, 1].
        confidence: confidence level, in (0, 1).

    Raises:
        ValueError: a bound is not a finite number.
    """

    low: float
    high: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not isfinite(self.low) or not isfinite(self.high):
            raise ValueError("the bounds of an interval must be finite")


@dataclass(frozen=True)
class Rate:
    """A rate over queries.

    Attributes:
        count: number of queries that count, from 0 to `queries`; a fraction where a query counts
            in part.
        queries: number of queries that the rate is over, at least 1.
        interval: confidence interval of the rate.

    Raises:
        ValueError: there are no queries, or the count is out of its range.
    """

    count: float
    queries: int
    interval: Interval

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 <= self.count <= self.queries:
            raise ValueError(
                f"a rate must lie between 0 and 1, not be {self.count} of {self.queries} queries"
            )

    @property
    def value(self) -> float:
        """The rate, in [0, 1]."""
        return self.count / self.queries

    def __str__(self) -> str:
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return f"{100 * self.value:.1f} % ({low:.1f} to {high:.1f})"
