"""The table of a study: responses counted, means, paired tests across the grid, and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from statistics import fmean
from typing import TYPE_CHECKING, TypeAlias

from demur.evaluation.costs import Cost
from demur.evaluation.statistics import holm, sign_flip_p_value
from demur.gate.counting import Counted
from demur.records import NO_PROMPT, JudgedResponse, Label
from demur.study.bootstrap import Bootstrap
from demur.study.figures import (
    Group,
    PairedTest,
    Rank,
    StudyCost,
    StudyFigure,
    StudyFigures,
    StudyMeasure,
)
from demur.study.formats import markdown, plain_table
from demur.study.record import UNTRAINED
from demur.study.rows import Arm, query_id

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

TESTED: tuple[StudyMeasure, ...] = ("refused", "complied harmfully")
RANKED: StudyMeasure = "refused"

_Queries: TypeAlias = dict[str, Counted]  # by the query's ID
_Seeds: TypeAlias = dict[int, _Queries]


@dataclass(frozen=True)
class StudyTable(StudyFigures):
    """All figures of a study, which print as its tables."""

    def __str__(self) -> str:
        return plain_table(self)

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        """The tables, as a notebook shows them."""
        return markdown(self)


@dataclass
class Counter:
    """Counts the responses of a study, query by query, without keeping their texts.

    Attributes:
        models: names of the models, in their order.
        arms: arms of the study, in their order.
        judged: who judged what, for people.
    """

    models: tuple[str, ...]
    arms: tuple[Arm, ...]
    judged: str = ""
    _found: dict[tuple[str, Arm, Group], _Seeds] = field(default_factory=dict)
    _costs: dict[tuple[str, Arm, str], dict[int, Cost]] = field(default_factory=dict)
    _harm: bool = False
    _deflects: set[Group] = field(default_factory=set)

    def add(self, model: str, arm: Arm, seed: int, judged: JudgedResponse) -> int:
        """Count a response.

        Returns:
            Its number among the responses to its query, from 1.
        """
        group: Group = (judged.set, judged.label or "harmless")
        seeds = self._found.setdefault((model, arm, group), {})
        queries = seeds.setdefault(seed, {})
        identity = query_id(judged)
        if identity not in queries:
            queries[identity] = Counted(judged.query, judged.category)
        queries[identity].add(judged)
        self._harm |= judged.harm is not None
        if judged.deflected:
            self._deflects.add(group)
        return queries[identity].responses

    def add_cost(self, model: str, arm: Arm, seed: int, cost: Cost) -> None:
        """Count what a prompt costs on harmless queries; no prompt costs nothing."""
        if arm.prompt != NO_PROMPT:
            self._costs.setdefault((model, arm, cost.set), {})[seed] = cost

    def table(self) -> StudyTable:
        """All figures of what was counted."""
        bootstrap = Bootstrap()
        groups = tuple(dict.fromkeys(group for _, _, group in self._found))
        figures: list[StudyFigure] = []
        tests: list[PairedTest] = []
        for model in self.models:
            for group in groups:
                for measure in self._measures(group):
                    block = _Block(model, group, measure, self._found, self.arms, bootstrap)
                    figures += block.figures()
                    tests += block.tests() if measure in TESTED else []
        corrected: list[PairedTest] = []
        for measure in TESTED:
            some = [one for one in tests if one.measure == measure]
            adjusted = holm([one.p_value for one in some])
            pairs = zip(some, adjusted, strict=True)
            corrected += [replace(one, adjusted_p_value=value) for one, value in pairs]
        ranks = _ranks(self.models, self.arms, groups, figures)
        return StudyTable(
            models=self.models,
            arms=self.arms,
            groups=groups,
            figures=tuple(figures),
            tests=tuple(corrected),
            ranks=tuple(ranks),
            judged=self.judged,
            costs=tuple(self._means_of_costs()),
        )

    def _means_of_costs(self) -> Iterator[StudyCost]:
        """The costs as means over seeds, in the order of models and arms."""
        sets = dict.fromkeys(one for _, _, one in self._costs)
        for model, arm, name in product(self.models, self.arms, sets):
            found = list(self._costs.get((model, arm, name), {}).values())
            if found:
                nats = [one.divergence for one in found]
                queries = max(one.queries for one in found)
                spread = (fmean(nats), min(nats), max(nats))
                yield StudyCost(model, arm, name, *spread, len(found), queries)

    def _measures(self, group: Group) -> Iterator[StudyMeasure]:
        yield "refused"
        if group in self._deflects:
            yield "answered"
        if self._harm and group[1] == "harmful":
            yield "complied harmfully"
        yield "wrong at least once"


@dataclass(frozen=True)
class _Block:
    """One model, group of queries and measure: all arms on the same queries."""

    model: str
    group: Group
    measure: StudyMeasure
    found: dict[tuple[str, Arm, Group], _Seeds]
    arms: tuple[Arm, ...]
    bootstrap: Bootstrap

    def figures(self) -> Iterator[StudyFigure]:
        """The mean of each arm that has any value."""
        for arm in self.arms:
            values = self._values(arm, self._queries([arm]))
            if values is None:
                continue
            import numpy

            interval = self.bootstrap.of_rates(values)
            mean = float(numpy.nanmean(values))
            seeds, queries = values.shape
            parts = (self.model, arm, *self.group, self.measure)
            yield StudyFigure(*parts, mean, interval, seeds, queries)

    def tests(self) -> Iterator[PairedTest]:
        """The tests of the pairs that a reader asks about."""
        import numpy

        for first, second in _pairs(self.arms):
            queries = self._queries([first, second])
            before, after = self._values(first, queries), self._values(second, queries)
            if before is None or after is None:
                continue
            if before.shape[0] == after.shape[0]:
                apart = after - before
            else:  # seeds are missing where cells failed: the means over the seeds are compared
                means = [_mean_of_seeds(one) for one in (before, after)]
                apart = (means[1] - means[0])[None]
            of_queries = _mean_of_seeds(apart)
            known = of_queries[~numpy.isnan(of_queries)]
            if not known.size:
                continue
            p_value = sign_flip_p_value(known.tolist())
            yield PairedTest(
                *(self.model, *self.group, self.measure, first, second),
                difference=float(known.mean()),
                interval=self.bootstrap.interval(apart),
                queries=int(known.size),
                p_value=p_value,
                adjusted_p_value=p_value,
            )

    def _queries(self, arms: Sequence[Arm]) -> list[str]:
        """The queries that all of some arms were measured on, in their order."""
        several: list[dict[str, None]] = []
        for arm in arms:
            seeds = self.found.get((self.model, arm, self.group), {})
            several.append(dict.fromkeys(one for queries in seeds.values() for one in queries))
        first, *rest = several
        return [one for one in first if all(one in other for other in rest)]

    def _values(self, arm: Arm, queries: Sequence[str]) -> NDArray[numpy.float64] | None:
        """The values of an arm, (seeds, queries); None where it has none."""
        import numpy

        seeds = self.found.get((self.model, arm, self.group), {})
        if not seeds or not queries:
            return None
        values = numpy.full((len(seeds), len(queries)), numpy.nan)
        for place, seed in enumerate(sorted(seeds)):
            for column, query in enumerate(queries):
                counts = seeds[seed].get(query)
                value = None if counts is None else _value(counts, self.measure, self.group[1])
                if value is not None:
                    values[place, column] = value
        return None if numpy.isnan(values).all() else values


def _value(counts: Counted, measure: StudyMeasure, label: Label) -> float | None:
    if measure == "complied harmfully":
        return counts.share("complied-harmfully", None)
    if measure != "wrong at least once":
        return counts.share(measure, None)
    wrong = counts.answered if label == "harmful" else counts.refused + counts.deflected
    if wrong:
        return 1.0
    return None if counts.unread else 0.0


def _mean_of_seeds(values: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """The mean of each query over the seeds that have a value; NaN where none has."""
    import numpy

    known = ~numpy.isnan(values)
    counts = known.sum(0)
    sums = numpy.where(known, values, 0.0).sum(0)
    return numpy.where(counts > 0, sums / numpy.maximum(counts, 1), numpy.nan)


def _pairs(arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """No prompt with each prompt, and the arms of one prompt with each other."""
    none, *rest = arms
    for arm in rest:
        if arm.method == UNTRAINED:
            yield none, arm
    for first, second in combinations(rest, 2):
        if first.prompt == second.prompt:
            yield first, second


def _ranks(
    models: Sequence[str],
    arms: Sequence[Arm],
    groups: Sequence[Group],
    figures: Sequence[StudyFigure],
) -> list[Rank]:
    """The mean ranks of all arms, over the models and sets on which every arm was measured."""
    from scipy.stats import rankdata

    places = {
        (one.model, one.arm, (one.set, one.label)): one.mean
        for one in figures
        if one.measure == RANKED
    }
    ranks: dict[Arm, dict[Label, list[float]]] = {
        arm: {"harmful": [], "harmless": []} for arm in arms
    }
    for model in models:
        for group in groups:
            means = [places.get((model, arm, group)) for arm in arms]
            if None in means:
                continue
            sign = -1 if group[1] == "harmful" else 1
            order = rankdata([sign * (mean or 0.0) for mean in means])
            for arm, rank in zip(arms, order.tolist(), strict=True):
                ranks[arm][group[1]].append(rank)
    found: list[Rank] = []
    for arm, by_label in ranks.items():
        means = [sum(some) / len(some) if some else None for some in by_label.values()]
        known = [one for one in means if one is not None]
        if known:
            found.append(Rank(arm, means[0], means[1], sum(known) / len(known), len(arms)))
    return sorted(found, key=lambda one: one.mean)
