"""How the rates and the queries of one prompt changed from one evaluation to another."""

from __future__ import annotations

from dataclasses import dataclass, replace

from demur.evaluation.changes import least_queries
from demur.evaluation.figures import SIGNIFICANCE, Difference, Figures, Measure, PromptRates
from demur.evaluation.verdict import Verdict, verdict
from demur.gate.counting import VERBS, Counted, CountedMeasure
from demur.records import Label, Query, Rate

BEFORE = "before"
"""What the earlier evaluation is called in a verdict."""


_MEASURES: dict[CountedMeasure, Measure] = {
    "refused": "refused",
    "answered": "answered",
    "complied-harmfully": "complied_harmfully",
}
_GOOD = frozenset((("refused", "harmful"), ("answered", "harmless")))
"""Measures and labels whose rates had better rise."""


@dataclass(frozen=True)
class Changed:
    """A query that was measured in both evaluations.

    Attributes:
        query: the query.
        category: category of the query, or None.
        measure: `refused`, `answered` or `complied-harmfully`.
        before: share of its responses that refused (answered, complied harmfully), in [0, 1]. Those
            without an answer or a verdict count against the prompt unless they are left out.
        after: the same in the later evaluation.
        counted_before: its responses in the earlier evaluation.
        counted_after: its responses in the later evaluation.
    """

    query: Query
    category: str | None
    measure: CountedMeasure
    before: float
    after: float
    counted_before: Counted
    counted_after: Counted

    @property
    def in_words(self) -> str:
        """What its responses did, for example `refused before, not refused after`."""
        before, after = (
            one.in_words(self.measure) for one in (self.counted_before, self.counted_after)
        )
        return f"{before} before, {after} after"


@dataclass(frozen=True)
class GroupChange:
    """How the rate of one set, label and measure changed, on the queries of both evaluations.

    Attributes:
        set: name of the query set in the later evaluation.
        label: label of the queries, or None where it is not known.
        measure: `refused`, `complied-harmfully`, or where responses deflect `answered`.
        before: rate before.
        after: rate after.
        difference: the rate after less that before, in [-1, 1].
        p_value: p-value of the paired sign-flip permutation test.
        adjusted_p_value: the p-value after Holm's adjustment for all tests of this prompt.
        tests: number of these tests.
        more: queries whose share rose, the largest rise first; for `refused`, those that are
            refused now and were not, or more often.
        fewer: queries whose share fell, the largest fall first.
    """

    set: str
    label: Label | None
    measure: CountedMeasure
    before: Rate
    after: Rate
    difference: float
    p_value: float
    adjusted_p_value: float
    tests: int
    more: tuple[Changed, ...]
    fewer: tuple[Changed, ...]

    def adjusted(self, p_value: float, tests: int) -> GroupChange:
        """The same with its adjusted p-value."""
        return replace(self, adjusted_p_value=p_value, tests=tests)

    @property
    def title(self) -> str:
        """What the queries are called, for example `held-out, harmful`."""
        return self.set if self.label is None else f"{self.set}, {self.label}"

    @property
    def verb(self) -> str:
        """What was done with the queries, for example `refused`."""
        return VERBS[self.measure]

    @property
    def more_than_chance(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.adjusted_p_value < SIGNIFICANCE

    @property
    def is_adverse(self) -> bool:
        """Whether the difference goes the wrong way, however small it is."""
        if self.label is None:
            return False
        rose_is_right = (self.measure, self.label) in _GOOD
        return self.difference < 0 if rose_is_right else self.difference > 0

    @property
    def is_worse(self) -> bool:
        """Whether it got worse by more than chance."""
        return self.is_adverse and self.more_than_chance

    @property
    def too_few(self) -> bool:
        """Whether there are too few queries for any difference to be more than chance."""
        return self.before.queries < self.least

    @property
    def least(self) -> int:
        """The fewest queries on which a difference can be more than chance."""
        return least_queries(self.tests)

    @property
    def told(self) -> str:
        """What the change means in a word or two: `worse`, `better`, `changed`, `within chance`."""
        if not self.more_than_chance:
            return "within chance"
        if self.label is None:
            return "changed"
        return "worse" if self.is_worse else "better"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The rates before and after, their difference in points and its p-value, for a table."""
        return (
            f"{100 * self.before.value:.1f} %",
            f"{100 * self.after.value:.1f} %",
            f"{100 * self.difference:+.1f}",
            f"{self.adjusted_p_value:.2g}",
        )

    @property
    def in_words(self) -> str:
        """The change in one clause, for example `91.0 % before, 62.0 % after, p = 0.001`."""
        return (
            f"{100 * self.before.value:.1f} % before, {100 * self.after.value:.1f} % after on "
            f"{self.before.queries} queries, p = {self.adjusted_p_value:.2g}"
        )

    def __str__(self) -> str:
        told = "more than chance" if self.more_than_chance else "not more than chance"
        return f"{self.title}, {self.measure.replace('-', ' ')}: {self.in_words}, {told}"


@dataclass(frozen=True)
class PromptChange:
    """How everything changed under one prompt.

    Attributes:
        before: name of the prompt before.
        after: name of the prompt after.
        groups: the changes by set, label and measure.
    """

    before: str
    after: str
    groups: tuple[GroupChange, ...]

    @property
    def is_worse(self) -> bool:
        """Whether anything got worse by more than chance."""
        return any(one.is_worse for one in self.groups)

    @property
    def queries(self) -> int:
        """Number of queries that were measured in both evaluations."""
        return sum(one.before.queries for one in self.groups if one.measure == "refused")

    @property
    def is_same(self) -> bool:
        """Whether no query changed."""
        return not any(one.more or one.fewer for one in self.groups)

    @property
    def sentence(self) -> str:
        """What came of it, in one sentence."""
        if not self.is_same:
            return self.verdict.sentence
        if self.queries == 1:
            return "The query did not change."
        return f"None of the {self.queries} queries changed."

    @property
    def verdict(self) -> Verdict:
        """Whether it got better, in one sentence."""
        after = self.after if self.after != BEFORE else f"{self.after} (now)"
        return verdict(self._figures(after), BEFORE, after, trained=False)

    def _figures(self, after: str) -> Figures:
        rates = tuple(
            PromptRates(
                prompt=name,
                condition=None,
                set=refused.set,
                label=refused.label,
                category=None,
                responses=refused.before.queries,
                refused=self._rate("refused", refused, name),
                refused_any=None,
                complied_any=None,
                complied_harmfully=self._rate("complied-harmfully", refused, name),
                answered=self._rate("answered", refused, name),
            )
            for refused in self.groups
            if refused.measure == "refused"
            for name in (BEFORE, after)
        )
        tests = tuple(
            Difference(
                set=one.set,
                label=one.label,
                measure=_MEASURES[one.measure],
                first=BEFORE,
                second=after,
                queries=one.before.queries,
                difference=one.difference,
                p_value=one.p_value,
                adjusted_p_value=one.adjusted_p_value,
            )
            for one in self.groups
        )
        return Figures(rates=rates, differences=tests)

    def _rate(self, measure: CountedMeasure, like: GroupChange, name: str) -> Rate | None:
        """The rate of a measure on the set and label of another group, where it was compared."""
        wanted = (measure, like.set, like.label)
        for one in self.groups:
            if (one.measure, one.set, one.label) == wanted:
                return one.before if name == BEFORE else one.after
        return None
