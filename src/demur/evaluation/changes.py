"""How rates change from one prompt to another, and how many queries would show it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log10
from statistics import NormalDist

from demur.evaluation.figures import SIGNIFICANCE, Difference, Figures, Measure, PromptRates
from demur.records import Label, Rate

LEAST_TOLD = 20
"""Queries of a label below which nothing can be told: of so many, 6 must change the same way."""

MOST_TIMES = 10
"""A difference that so many times the queries would not show is not worth looking for."""


@dataclass(frozen=True)
class Change:
    """How the rate of one set and label changed.

    Attributes:
        set: name of the query set.
        label: label of the queries.
        before: rate under the prompt before.
        after: rate under the prompt after.
        direction: 1 where it rose by more than chance, -1 where it fell, else 0.
        needed: number of queries that would show a difference of this size, at least 20; None where
            it is shown already, not known, or too small to look for.
        too_few: whether there are fewer than 20 queries. It does not depend on how many other
            prompts were measured, as the adjusted p-value does.
    """

    set: str
    label: Label
    before: Rate
    after: Rate
    direction: int
    needed: int | None
    too_few: bool


def changes(
    figures: Figures, label: Label, before: str, after: str, measure: Measure = "refused"
) -> list[Change]:
    """The change on every set of a label that has a rate under both prompts.

    A difference counts where its adjusted p-value is below 0.05. Where the same queries were not
    asked, it counts where the intervals of the two rates do not overlap.

    Args:
        figures: rates and differences.
        label: label of the queries.
        before: name of a prompt.
        after: name of another prompt.
        measure: what the rates are of.
    """
    found: list[Change] = []
    for old in wholes(figures, before, label):
        new = next((one for one in wholes(figures, after, label) if one.set == old.set), None)
        first, second = old.rate(measure), None if new is None else new.rate(measure)
        if first is None or second is None:
            continue
        tests = [
            one
            for one in figures.differences
            if (one.set, one.label, one.measure) == (old.set, label, measure)
        ]
        test = next((one for one in tests if {one.first, one.second} == {before, after}), None)
        direction = _by_intervals(first, second) if test is None else _by_test(test, after)
        too_few = min(first.queries, second.queries) < LEAST_TOLD
        needed = None if direction or test is None else needed_queries(test, len(tests))
        if too_few and not direction:
            needed = max(LEAST_TOLD, needed or 0)
        found.append(Change(old.set, label, first, second, direction, needed, too_few))
    return found


def wholes(figures: Figures, prompt: str, label: Label | None) -> list[PromptRates]:
    """The rates of whole sets under a prompt."""
    wanted = (prompt, label, None)
    return [one for one in figures.rates if (one.prompt, one.label, one.category) == wanted]


def least_queries(pairs: int = 1) -> int:
    """The fewest queries on which any difference can be more than chance.

    All of them must then change the same way, to which McNemar's exact test gives p = 2 / 2^n.

    Args:
        pairs: number of pairs that Holm's adjustment is for, at least 1.
    """
    queries = 1
    while pairs * 2 * 0.5**queries >= SIGNIFICANCE:
        queries += 1
    return queries


def needed_queries(test: Difference, pairs: int = 1) -> int | None:
    """The number of queries that would show a difference of the size that was seen.

    With the same mean and the same spread the test statistic grows as the root of their number.

    Args:
        test: a difference that is not more than chance.
        pairs: number of pairs that Holm's adjustment is for, at least 1.

    Returns:
        The number, rounded up to two digits; None where nothing differs, or where it is more than
        ten times the number of queries that there were.
    """
    if not test.difference or test.p_value >= 1:
        return None
    normal = NormalDist()
    seen = normal.inv_cdf(1 - test.p_value / 2)
    wanted = normal.inv_cdf(1 - SIGNIFICANCE / pairs / 2)
    times = (wanted / seen) ** 2
    if times > MOST_TIMES:
        return None
    number = max(least_queries(pairs), ceil(test.queries * max(1.0, times)) + 1)
    step = int(10 ** max(0, int(log10(number)) - 1))
    return -(-number // step) * step


def _by_test(test: Difference, after: str) -> int:
    if not test.more_than_chance:
        return 0
    return 1 if (test.difference > 0) == (test.second == after) else -1


def _by_intervals(before: Rate, after: Rate) -> int:
    if after.interval.low > before.interval.high:
        return 1
    return -1 if after.interval.high < before.interval.low else 0
