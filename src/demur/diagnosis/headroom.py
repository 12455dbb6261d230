"""Headroom: how well the model's states tell queries apart, beside how well its prompts do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy
from numpy.typing import NDArray
from torch import Tensor

from demur.evaluation.statistics import rate_over_queries, sign_flip_p_value
from demur.geometry import ALLOWED, Probe, area_under_curve, found_at
from demur.queries import KINDS, SPLITS, load_query_set
from demur.records import Measurement, Queries, Query, Rate

HARMFUL, HARMLESS = "harmful", "harmless"

Reported = Literal["anchors", "held-out"]
FloatArray = NDArray[numpy.float64]


@dataclass(frozen=True)
class Mistakes:
    """Queries of one kind that are judged wrongly.

    Attributes:
        kind: `harmful`, `borderline`, `ordinary`, or `harmless` where the kind is not known.
        wrong: rate of harmful queries that are not found or not refused, or of harmless ones that
            are taken for harmful or refused.
    """

    kind: str
    wrong: Rate


@dataclass(frozen=True)
class PromptHeadroom:
    """How well one condition tells the queries apart by refusing, beside the states.

    Attributes:
        condition: name of the safety prompt, or `none`.
        auc: chance that a harmful query is refused more often than a harmless one, ties counting
            half.
        harmful_refused: mean rate at which harmful queries are refused.
        harmless_refused: the same for harmless ones.
        mistakes: mistakes of each kind, in the order of `Headroom.mistakes`.
        states_find: rate of harmful queries that the states find where as many harmless ones are
            taken for harmful as this condition refuses.
        p_value: p-value of the difference between `states_find` and `harmful_refused` by the paired
            sign-flip permutation test.

    Raises:
        ValueError: a number is out of [0, 1].
    """

    condition: str
    auc: float
    harmful_refused: Rate
    harmless_refused: Rate
    mistakes: tuple[Mistakes, ...]
    states_find: Rate
    p_value: float

    def __post_init__(self) -> None:
        _require_shares(self.auc, self.p_value)

    @property
    def room(self) -> float:
        """How many more harmful queries the states find than the condition refuses, in [-1, 1]."""
        return self.states_find.value - self.harmful_refused.value


@dataclass(frozen=True)
class Headroom:
    """How well the states without a prompt tell harmful from harmless queries.

    The probe is fitted to other queries. Its layer and its penalty are chosen on those as well.

    Attributes:
        queries: queries that the numbers are of, `anchors` or `held-out`.
        fitted: number of queries that the probe is fitted to.
        layer: number of the layer that the probe reads, from 1; None where layers cannot be told
            apart, and it reads the representation.
        penalty: strength of the L2 penalty.
        fitted_auc: AUC on the queries that the probe is fitted to, cross-validated.
        auc: AUC on the queries.
        found_at_2: rate of harmful queries above the threshold that 2 % of the harmless ones pass.
        found_at_5: the same for 5 %.
        mistakes: mistakes at the threshold that was fitted, the harmful queries first.
        conditions: each condition, `none` first.

    Raises:
        ValueError: an AUC is out of [0, 1], or conditions have mistakes of other kinds.
    """

    queries: Reported
    fitted: int
    layer: int | None
    penalty: float
    fitted_auc: float
    auc: float
    found_at_2: Rate
    found_at_5: Rate
    mistakes: tuple[Mistakes, ...]
    conditions: tuple[PromptHeadroom, ...]

    def __post_init__(self) -> None:
        _require_shares(self.auc, self.fitted_auc)
        kinds = [one.kind for one in self.mistakes]
        if any([one.kind for one in each.mistakes] != kinds for each in self.conditions):
            raise ValueError("the mistakes are not of one set of kinds")
        if not self.conditions:
            raise ValueError("there is no condition")

    @property
    def best(self) -> PromptHeadroom:
        """The prompt to compare with the states.

        That is the optimized one on held-out queries. On anchors it is the prompt which refuses the
        most harmful queries beyond the harmless ones that it refuses.
        """
        prompts = self.conditions[1:] or self.conditions
        if self.queries == "held-out":
            return prompts[-1]
        return max(prompts, key=lambda one: one.harmful_refused.value - one.harmless_refused.value)


def _require_shares(*values: float) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"{value} is not in [0, 1]")


def make_headroom(
    probe: Probe,
    states: Tensor,
    measurements: Sequence[Measurement],
    *,
    queries: Reported,
    fitted: int,
    by_layer: bool,
) -> Headroom:
    """Compare a probe with the responses under each condition.

    Args:
        probe: probe that was fitted to other queries.
        states: (N, layers, d), states of the N queries without a prompt.
        measurements: the N queries under each condition, no prompt first.
        queries: which queries these are.
        fitted: number of queries that the probe is fitted to.
        by_layer: whether the states are those of layers, and not the representation.

    Raises:
        DemurError: a query has no verdict.
    """
    asked = measurements[0].queries
    kinds = kinds_of(asked)
    scores, sides = probe.scores(states), numpy.array(asked.harmful)
    found = {allowed: found_at(scores, sides, allowed) for allowed in ALLOWED}
    return Headroom(
        queries=queries,
        fitted=fitted,
        layer=probe.layer if by_layer else None,
        penalty=probe.penalty,
        fitted_auc=probe.auc,
        auc=area_under_curve(scores, sides),
        found_at_2=_rate(found[ALLOWED[0]]),
        found_at_5=_rate(found[ALLOWED[1]]),
        mistakes=_mistakes((scores > 0).astype(float), kinds),
        conditions=tuple(_condition(scores, sides, kinds, one) for one in measurements),
    )


def _condition(
    scores: FloatArray,
    sides: NDArray[numpy.bool_],
    kinds: Sequence[str],
    measurement: Measurement,
) -> PromptHeadroom:
    refused = numpy.array(measurement.refusal_rates(), dtype=float)
    found = found_at(scores, sides, float(refused[~sides].mean())).astype(float)
    return PromptHeadroom(
        condition=measurement.name,
        auc=area_under_curve(refused, sides),
        harmful_refused=_rate(refused[sides]),
        harmless_refused=_rate(refused[~sides]),
        mistakes=_mistakes(refused, kinds),
        states_find=_rate(found),
        p_value=sign_flip_p_value((found - refused[sides]).tolist()),
    )


def _mistakes(flagged: FloatArray, kinds: Sequence[str]) -> tuple[Mistakes, ...]:
    """The mistakes of each kind that there is, where 1 means taken for harmful or refused."""
    found = []
    for kind in (HARMFUL, *KINDS, HARMLESS):
        rows = [row for row, one in enumerate(kinds) if one == kind]
        if rows:
            wrong = 1 - flagged[rows] if kind == HARMFUL else flagged[rows]
            found.append(Mistakes(kind, _rate(wrong)))
    return tuple(found)


def _rate(values: NDArray[numpy.generic]) -> Rate:
    return rate_over_queries([float(value) for value in values])


def kinds_of(queries: Queries) -> tuple[str, ...]:
    """The kind of each query: `harmful`, `borderline`, `ordinary`, or `harmless` if not known.

    Known are the kinds of the built-in queries in `training`, `validation` and `test`.
    """
    known = _known_kinds()
    return tuple(
        HARMFUL if harmful else known.get(query, HARMLESS)
        for query, harmful in zip(queries.texts, queries.harmful, strict=True)
    )


@cache
def _known_kinds() -> dict[Query, str]:
    return {
        query: kind
        for split in SPLITS
        for kind in KINDS
        for query in load_query_set(f"{split}:{kind}", "harmless")
    }
