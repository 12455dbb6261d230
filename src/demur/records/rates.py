"""Rates over queries with their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower bound; of a rate, in [0, 1].
        high: upper bound; of a rate, in [0, 1].
        confidence: confidence level, in (0, 1).
    """

    low: float
    high: float
    confidence: float = 0.95


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
            raise ValueError(f"{self.count} of {self.queries} queries is no rate")

    @property
    def value(self) -> float:
        """The rate, in [0, 1]."""
        return self.count / self.queries

    def __str__(self) -> str:
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return f"{100 * self.value:.1f} % ({low:.1f} to {high:.1f})"
