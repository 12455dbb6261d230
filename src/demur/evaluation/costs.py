"""`Cost`: how far a prompt moves what the model says to harmless queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from demur.errors import DemurError
from demur.evaluation.statistics import mean_interval, mean_share, rate_over_queries
from demur.records import Interval, Rate

ANSWER_TOKENS = 64
"""Number of tokens of an answer along which a cost is measured, at most."""


@dataclass(frozen=True)
class AnswerCost:
    """How far a prompt moves the words of whole answers.

    Measured along the model's own answers without a safety prompt, token by token. What the default
    judge calls a refusal is no answer.

    Attributes:
        queries: number of queries whose answers were read, at least 1.
        tokens: number of tokens of these answers; 0 for the model without a safety prompt.
        divergence: mean KL divergence a token, in nats, of the distribution under the prompt from
            the one without: first over the tokens of an answer, then over the queries.
        interval: interval of that mean over queries, or None where there is a single query.
        agreement: share of the tokens at which the likeliest token is the same as without a safety
            prompt, with Student's interval over queries.
    """

    queries: int
    tokens: int
    divergence: float
    interval: Interval | None
    agreement: Rate

    @classmethod
    def of(
        cls, tokens: int, divergences: Sequence[float], agreements: Sequence[float]
    ) -> AnswerCost:
        """The means over queries, with their intervals.

        Args:
            tokens: number of tokens of all answers.
            divergences: for each query the mean over its tokens, in nats.
            agreements: for each query the share of its tokens, in [0, 1].
        """
        kept = [max(0.0, divergence) for divergence in divergences]
        return cls(len(kept), tokens, fmean(kept), mean_interval(kept), mean_share(agreements))

    @property
    def in_words(self) -> str:
        """What it came to.

        Example:
            `the likeliest next word is the same at 93 % of 1,420 places in harmless answers
            (KL 0.03 nats a word)`
        """
        where = f" of {self.tokens:,} places" if self.tokens else ""
        return (
            f"the likeliest next word is the same at {100 * self.agreement.value:.0f} %{where} in "
            f"harmless answers (KL {self.divergence:.2f} nats a word)"
        )

    def __str__(self) -> str:
        return nats_and_interval(self.divergence, self.interval)


@dataclass(frozen=True)
class AnswerLength:
    """How long a prompt's answers to harmless queries are.

    Responses that refuse are not counted.

    Attributes:
        queries: number of queries that were answered, at least 1.
        tokens: mean number of tokens of an answer, over the queries.
        answers: number of answers.
        cut: number of them that did not end by themselves: the limit of tokens ended them, or their
            verdict was settled.
        change: mean difference from the model without a safety prompt in tokens, over the queries
            that both answered; None where there are none.
        interval: Student's interval of that difference; None for fewer than two queries.
    """

    queries: int
    tokens: float
    answers: int
    cut: int
    change: float | None = None
    interval: Interval | None = None

    @property
    def in_words(self) -> str:
        """What it came to.

        Example:
            `answers have 58 tokens, 3 fewer than without a prompt (61 of 88 were cut)`
        """
        text = f"answers have {self.tokens:.0f} tokens"
        if self.change is not None:
            amount = f"{abs(self.change):.0f}"
            more = "as many as" if amount == "0" else amount
            if amount != "0":
                more += " more than" if self.change > 0 else " fewer than"
            text += f", {more} without a prompt"
        return text + (f" ({self.cut} of {self.answers} were cut)" if self.cut else "")

    def __str__(self) -> str:
        if not self.change:
            return f"{self.tokens:.0f}"
        return f"{self.tokens:.0f} ({round(self.change):+d})"


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
        answers: the same along whole answers; None where the model answers nothing.
        length: length of the answers; None where no query is answered.
        other_language: mean over the queries of the share of their answers that are in another
            language than the query; None where no query is answered in a language that can be told.
    """

    prompt: str
    condition: str
    set: str
    queries: int
    divergence: float
    interval: Interval | None
    changed: Rate
    answers: AnswerCost | None = None
    length: AnswerLength | None = None
    other_language: Rate | None = None

    @classmethod
    def of(
        cls,
        prompt: str,
        condition: str,
        set: str,
        divergences: Sequence[float],
        changed: Sequence[bool],
    ) -> Cost:
        """The means over single queries, with their intervals; of the first token alone.

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

    @property
    def all_in_words(self) -> tuple[str, ...]:
        """What every figure came to, a clause each."""
        found = [self.in_words, *([self.answers.in_words] if self.answers else [])]
        found += [self.length.in_words] if self.length else []
        if self.other_language is not None and self.other_language.count:
            found.append(
                f"{100 * self.other_language.value:.0f} % of the answers are in another language "
                "than the query"
            )
        return tuple(found)

    def __str__(self) -> str:
        return nats_and_interval(self.divergence, self.interval)


def nats_and_interval(divergence: float, interval: Interval | None) -> str:
    """A mean divergence with its interval, for example `0.25 (0.20 to 0.31)`."""
    if interval is None:
        return f"{divergence:.2f}"
    return f"{divergence:.2f} ({interval.low:.2f} to {interval.high:.2f})"


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
