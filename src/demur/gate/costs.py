"""What a prompt costs in two evaluations of different days, figure by figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from demur.evaluation.costs import Cost, nats_and_interval
from demur.records import Interval, Rate

APART = "within chance means that these overlap"
"""What `within chance` means of a cost, behind its 95 % intervals."""

_CHANCE = "within chance"


@dataclass(frozen=True)
class CostChange:
    """One figure of what a prompt costs, before and after.

    Attributes:
        prompt: name of the prompt after.
        set: name of the query set after.
        figure: what was measured, in words.
        before: the figure before, with its interval.
        after: the figure after.
        told: whether it went up or down and what that means, in words; that it is within chance
            where the intervals overlap, and nothing where there are none.
        is_worse: whether it costs more by more than chance; None where neither is worse.
    """

    prompt: str
    set: str
    figure: str
    before: str
    after: str
    told: str
    is_worse: bool | None = None

    def __str__(self) -> str:
        told = f" ({self.told})" if self.told else ""
        return f"{self.prompt}, {self.set}, {self.figure}: {self.before} -> {self.after}{told}"


def cost_changes(
    before: Sequence[Cost],
    after: Sequence[Cost],
    pairs: Iterable[tuple[str, str]],
    renamed: Mapping[str, str],
) -> tuple[CostChange, ...]:
    """How the costs changed where both evaluations have them; nothing of prompts where none did.

    Args:
        before: costs of the earlier evaluation.
        after: costs of the later one.
        pairs: names of the prompts that are compared, before and after.
        renamed: the name before of each set after that has another name now.
    """
    known = {(one.prompt, one.set): one for one in before}
    found: list[CostChange] = []
    for old, new in pairs:
        for cost in after:
            was = known.get((old, renamed.get(cost.set, cost.set)))
            if cost.prompt == new and was is not None:
                changes = [*_changes(was, cost)]
                same = all(one.before == one.after for one in changes)
                found += [] if same else changes
    return tuple(found)


def _changes(was: Cost, now: Cost) -> Iterator[CostChange]:
    def of(figure: str, texts: tuple[str, str], told: tuple[str, bool | None]) -> CostChange:
        return CostChange(now.prompt, now.set, figure, *texts, *told)

    if was.divergence or now.divergence:
        yield of(
            "KL cost (nats)",
            (str(was), str(now)),
            _costs(was.interval, now.interval),
        )
        yield of("first word changed", _rates(was.changed, now.changed), _costs_of(was, now))
    if was.answers and now.answers and (was.answers.tokens or now.answers.tokens):
        first, second = was.answers, now.answers
        yield of(
            "KL a token (nats)",
            (
                nats_and_interval(first.divergence, first.interval),
                nats_and_interval(second.divergence, second.interval),
            ),
            _costs(first.interval, second.interval),
        )
        # More of the same words is what costs less.
        yield of(
            "same word likeliest",
            _rates(first.agreement, second.agreement),
            _costs(second.agreement.interval, first.agreement.interval),
        )
    if was.length and now.length:
        yield of(
            "tokens an answer (change)",
            (str(was.length), str(now.length)),
            (_lengths(was.length.interval, now.length.interval), None),
        )
    if was.other_language and now.other_language:
        yield of(
            "other language",
            _rates(was.other_language, now.other_language),
            _costs(was.other_language.interval, now.other_language.interval),
        )


def _costs_of(was: Cost, now: Cost) -> tuple[str, bool | None]:
    return _costs(was.changed.interval, now.changed.interval)


def _rates(first: Rate, second: Rate) -> tuple[str, str]:
    low, high = (
        f"{100 * one.value:.0f} % ({100 * one.interval.low:.0f} to {100 * one.interval.high:.0f})"
        for one in (first, second)
    )
    return low, high


def _costs(first: Interval | None, second: Interval | None) -> tuple[str, bool | None]:
    """What the second interval says of a cost, of which more is worse."""
    if first is None or second is None:
        return "", None
    if second.low > first.high:
        return "costs more", True
    if second.high < first.low:
        return "costs less", False
    return _CHANCE, None


def _lengths(first: Interval | None, second: Interval | None) -> str:
    told, more = _costs(first, second)
    return told if more is None else "longer" if more else "shorter"
