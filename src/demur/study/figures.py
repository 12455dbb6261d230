"""The figures of a study as plain values: means with intervals, paired tests and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from demur.evaluation.figures import SIGNIFICANCE
from demur.records import Interval, Label
from demur.study.rows import Arm

StudyMeasure = Literal["refused", "answered", "complied harmfully", "wrong at least once"]
"""What figures are about.

- `refused`: share of the responses that refuse.
- `answered`: share of the responses that answer, where some deflect.
- `complied harmfully`: share of the responses that comply harmfully, where harm is judged.
- `wrong at least once`: the paper's count: share of the queries with at least one wrong response, a
  harmful query answered or a harmless one refused.
"""

Group: TypeAlias = tuple[str, Label]  # name of a set, and label


@dataclass(frozen=True)
class StudyFigure:
    """One mean of the table.

    Attributes:
        model: name of the model.
        arm: what stood before the queries.
        set: name of the query set.
        label: label of the queries.
        measure: what the mean is of.
        mean: mean over seeds and queries, in [0, 1].
        interval: bootstrap interval over seeds and queries.
        seeds: number of seeds.
        queries: number of queries.
    """

    model: str
    arm: Arm
    set: str
    label: Label
    measure: StudyMeasure
    mean: float
    interval: Interval
    seeds: int
    queries: int


@dataclass(frozen=True)
class StudyCost:
    """How far an arm moves what a model says first to harmless queries.

    Attributes:
        model: name of the model.
        arm: what stood before the queries.
        set: name of the query set.
        mean: mean KL divergence, in nats, of the next-token distribution from that of the model
            without a safety prompt, over the queries and then over the seeds.
        low: the least mean of a seed.
        high: the greatest.
        seeds: number of seeds.
        queries: number of harmless queries.
    """

    model: str
    arm: Arm
    set: str
    mean: float
    low: float
    high: float
    seeds: int
    queries: int


@dataclass(frozen=True)
class PairedTest:
    """Whether two arms of a model differ by more than chance on the same queries.

    Attributes:
        model: name of the model.
        set: name of the query set.
        label: label of the queries.
        measure: what is compared.
        first: an arm.
        second: another arm.
        difference: mean under the second less that under the first.
        interval: bootstrap interval of the difference over seeds and queries.
        queries: number of queries that both were measured on.
        p_value: p-value of the paired sign-flip test on the queries' differences, each a mean over
            the seeds.
        adjusted_p_value: the p-value after Holm's correction for all tests of the study with the
            same measure.
    """

    model: str
    set: str
    label: Label
    measure: StudyMeasure
    first: Arm
    second: Arm
    difference: float
    interval: Interval
    queries: int
    p_value: float
    adjusted_p_value: float

    @property
    def more_than_chance(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.adjusted_p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Rank:
    """How an arm stands among all arms, on average over models and sets.

    Attributes:
        arm: the arm.
        harmful: mean rank by the harmful queries refused, 1 for the most; None without any.
        harmless: mean rank by the harmless queries refused, 1 for the fewest; None without any.
        mean: mean of the two.
        arms: number of arms.
    """

    arm: Arm
    harmful: float | None
    harmless: float | None
    mean: float
    arms: int


@dataclass(frozen=True)
class StudyFigures:
    """All figures of a study.

    Attributes:
        models: names of the models.
        arms: the arms in their order.
        groups: sets with their labels, in their order.
        figures: the means.
        tests: the paired tests.
        ranks: the ranks, the best first.
        judged: who judged what, for example `judge: default, 64 tokens`; may be empty.
        costs: what the prompts cost on harmless queries, where that was measured.
    """

    models: tuple[str, ...]
    arms: tuple[Arm, ...]
    groups: tuple[Group, ...]
    figures: tuple[StudyFigure, ...]
    tests: tuple[PairedTest, ...]
    ranks: tuple[Rank, ...]
    judged: str = ""
    costs: tuple[StudyCost, ...] = ()

    @property
    def measures(self) -> tuple[StudyMeasure, ...]:
        """The measures that there are figures of."""
        return tuple(dict.fromkeys(one.measure for one in self.figures))

    def find(
        self, model: str, arm: Arm, group: Group, measure: StudyMeasure = "refused"
    ) -> StudyFigure | None:
        """A figure; None where nothing was measured."""
        return self._places.get((model, arm, group, measure))

    def test(
        self, model: str, group: Group, first: Arm, second: Arm, measure: StudyMeasure = "refused"
    ) -> PairedTest | None:
        """The test of two arms; None where they were not compared."""
        return self._tested.get((model, group, measure, frozenset((first, second))))

    @cached_property
    def _places(self) -> dict[tuple[str, Arm, Group, StudyMeasure], StudyFigure]:
        return {
            (one.model, one.arm, (one.set, one.label), one.measure): one for one in self.figures
        }

    @cached_property
    def _tested(self) -> dict[tuple[str, Group, StudyMeasure, frozenset[Arm]], PairedTest]:
        return {
            (
                *(one.model, (one.set, one.label), one.measure),
                frozenset((one.first, one.second)),
            ): one
            for one in self.tests
        }
