"""Intervals over seeds and queries together: a bootstrap of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.evaluation.statistics import wilson_interval
from demur.records import Interval

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

DRAWS = 2000
CONFIDENCE = 0.95


class Bootstrap:
    """Draws seeds and queries with replacement, the same queries for all seeds.

    Every seed is measured on the same queries, so a query that is drawn twice counts twice under
    every seed. What varies over the draws is then what would vary with other seeds and with other
    queries. With a single seed only the queries vary, and nothing is said of other seeds.

    Args:
        draws: number of draws.
        seed: seed of the draws; the same numbers give the same intervals.

    Source: A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), section
    3.8; A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).
    """

    def __init__(self, draws: int = DRAWS, seed: int = 0) -> None:
        self._draws, self._seed = draws, seed
        self._known: dict[tuple[int, int], NDArray[numpy.float64]] = {}

    def interval(
        self, values: NDArray[numpy.float64], *, confidence: float = CONFIDENCE
    ) -> Interval:
        """The interval of a mean over seeds and queries.

        Args:
            values: (seeds, queries), NaN where a query has no value under a seed; at least one has.
            confidence: above 0 and below 1.
        """
        import numpy

        known = ~numpy.isnan(values)
        seeds, queries = values.shape
        by_seed, by_query = self._weights(seeds, 1), self._weights(queries, 2)
        sums = numpy.einsum("bq,bq->b", by_seed @ numpy.where(known, values, 0.0), by_query)
        counts = numpy.einsum("bq,bq->b", by_seed @ known.astype(float), by_query)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
        tail = (1 - confidence) / 2
        low, high = numpy.nanquantile(means, [tail, 1 - tail])
        return Interval(float(low), float(high), confidence)

    def of_rates(
        self, values: NDArray[numpy.float64], *, confidence: float = CONFIDENCE
    ) -> Interval:
        """The interval of a mean rate.

        Where all rates are 0, or all are 1, no draw differs, which says nothing of other queries:
        the Wilson interval over the queries stands in.

        Args:
            values: (seeds, queries), each in [0, 1], or NaN.
            confidence: above 0 and below 1.
        """
        import numpy

        found = values[~numpy.isnan(values)]
        if found.min() != found.max() or found.min() not in (0.0, 1.0):
            return self.interval(values, confidence=confidence)
        queries = int((~numpy.isnan(values)).any(0).sum())
        return Interval(*wilson_interval(float(found[0]) * queries, queries, confidence))

    def _weights(self, count: int, which: int) -> NDArray[numpy.float64]:
        """How often each of some things is drawn, (draws, count)."""
        import numpy

        if (count, which) not in self._known:
            source = numpy.random.default_rng((self._seed, which, count))
            drawn = source.integers(count, size=(self._draws, count))
            rows = numpy.arange(self._draws)[:, None] * count
            flat = numpy.bincount((drawn + rows).ravel(), minlength=self._draws * count)
            self._known[count, which] = flat.reshape(self._draws, count).astype(float)
        return self._known[count, which]
