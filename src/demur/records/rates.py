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
    """

    count: float
    queries: int
    interval: Interval

    @property
    def value(self) -> float:
        """The rate, in [0, 1]."""
        return self.count / self.queries

    def __str__(self) -> str:
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return f"{100 * self.value:.1f} % ({low:.1f} to {high:.1f})"
