"""`Cost`: how far a prompt moves what the model says to harmless queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from demur.errors import DemurError
from demur.evaluation.statistics import mean_interval, rate_over_queries
from demur.records import Interval, Rate


@dataclass(frozen=True)
class Cost:
    """How far a prompt moves what the model would have said to harmless queries.

    Attributes:
        prompt: name of the safety prompt, or `none`.
        condition: fingerprint of the condition.
        set: name of the query set.
        queries: number of its harmless queries, at least 1.
        divergence: mean KL divergence, in nats, of the next-token distribution from that of the
            model without a safety prompt; 0 for the latter itself.
        interval: interval of that mean over queries, or None where there is a single query.
        changed: share of the queries whose likeliest first token is another one than without a
            safety prompt.
    """

    prompt: str
    condition: str
    set: str
    queries: int
    divergence: float
    interval: Interval | None
    changed: Rate

    @classmethod
    def of(
        cls,
        prompt: str,
        condition: str,
        set: str,
        divergences: Sequence[float],
        changed: Sequence[bool],
    ) -> Cost:
        """The means over single queries, with their intervals.

        Args:
            prompt: name of the safety prompt.
            condition: fingerprint of the condition.
            set: name of the query set.
            divergences: divergence of each query, in nats; rounding may leave one below 0.
            changed: for each query, whether its likeliest first token changed.

        Raises:
            DemurError: a divergence is not a finite number.
        """
        if not all(map(isfinite, divergences)):
            raise DemurError(
                f"The KL divergence under {prompt!r:.80} on {set!r:.80} is not a finite number: "
                "load the model with another dtype, for example float32."
            )
        kept = [max(0.0, divergence) for divergence in divergences]
        return cls(
            prompt,
            condition,
            set,
            len(kept),
            fmean(kept),
            mean_interval(kept),
            rate_over_queries([float(one) for one in changed]),
        )

    @property
    def in_words(self) -> str:
        """What the divergence means for these queries; see `cost_in_words`."""
        return cost_in_words(self.divergence, self.changed)

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.divergence:.2f}"
        return f"{self.divergence:.2f} ({self.interval.low:.2f} to {self.interval.high:.2f})"


def cost_in_words(divergence: float, changed: Rate) -> str:
    """What a mean KL divergence came to.

    Args:
        divergence: mean KL divergence, in nats.
        changed: share of the queries whose likeliest first token changed.

    Example:
        `KL 0.25 nats: the likeliest first word changed for 12 of 100 harmless queries`
    """
    return (
        f"KL {divergence:.2f} nats: the likeliest first word changed for {changed.count:.0f} of "
        f"{changed.queries} harmless queries"
    )
