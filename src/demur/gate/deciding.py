"""Whether what was measured keeps the limit of a requirement, decided on the interval."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from demur.evaluation.comparison import Comparison
from demur.evaluation.cost import MOST_ANSWERS
from demur.evaluation.costs import Cost
from demur.evaluation.figures import PromptRates
from demur.evaluation.statistics import rate_over_queries, wilson_interval
from demur.gate.checks import Check, Status
from demur.gate.counting import CountedMeasure, CountedQueries, Place, Unread, counted
from demur.gate.requirements import IN_NATS, Measure, Requirement
from demur.gate.scope import Group, Target
from demur.records import Interval, Rate

_MOST_TIMES = 10
"""So many times the queries are worth asking for."""

_WORTH_IT = 1000
"""So many are, however few were measured."""

_ROUNDING = 1e-12


class Decider:
    """Decides requirements on one comparison.

    Args:
        comparison: what was measured.
        unread: what becomes of responses without an answer or a verdict.
    """

    def __init__(self, comparison: Comparison, unread: Unread = "count") -> None:
        self.comparison = comparison
        self.unread = unread

    @cached_property
    def _counted(self) -> dict[Place, CountedQueries]:
        return counted(self.comparison)

    def check(self, target: Target) -> Check:
        """Decide one requirement on one prompt and group of queries.

        Raises:
            DemurError: responses without a verdict cannot be counted, because the folder is
                missing or damaged.
        """
        measure = target.requirement.measure
        if measure == "complied-harmfully" or measure == "refused":
            return self._check_rate(target, measure)
        if measure == "deflected" or measure == "answered":
            return self._check_rate(target, measure)
        return self._check_cost(target)

    def _check_rate(self, target: Target, measure: CountedMeasure) -> Check:
        rates = self._rates(target)
        if rates is None:
            return _check(target, "undecided", "not measured under this prompt")
        harm = measure == "complied-harmfully"
        rate = rates.rate("complied_harmfully" if measure == "complied-harmfully" else measure)
        no_verdict = rates.no_harm_verdict if harm else rates.no_refusal_verdict
        unread = rates.no_answer + rates.filtered + no_verdict
        worst = best = rate
        if unread and self.unread == "count":
            low, high = (self._bound(target, measure, counts) for counts in (False, True))
            worst, best = (low, high) if target.requirement.at_least else (high, low)
        note = (
            f"; {unread} of {rates.responses} responses without an answer or verdict"
            if unread
            else ""
        )
        if measure == "refused" and rates.deflected is not None and rates.deflected.value:
            note += f"; {100 * rates.deflected.value:.1f} % more are deflected"
        if worst is None or best is None:
            return _check(target, "undecided", f"no response has a verdict{note}", _READ)
        requirement = target.requirement
        status = _status(requirement, worst.interval, best.interval)
        if worst == best or rate is None:
            found = _rate_text(worst)
        else:
            found = f"{_rate_text(rate)}{note}, which count against it: {_rate_text(worst)}"
            note = ""
        advice = ""
        if status == "undecided":
            alone = rate is not None and _status(requirement, rate.interval, rate.interval)
            advice = _more(requirement, worst) if alone == "undecided" else _READ
        elif status == "failed":
            wrong = _wrong(requirement)
            advice = (
                f"read the responses that {wrong} queries, in the report, and improve the prompt "
                "on queries like those."
            )
        return _check(target, status, found + note, advice)

    def _check_cost(self, target: Target) -> Check:
        requirement = target.requirement
        measure = requirement.measure
        cost = self._cost(target)
        if cost is None:
            return _check(target, "undecided", "no cost was measured", "evaluate a model here.")
        rate: Rate | None = None
        if measure in IN_NATS:
            interval, found = _nats(cost, along=measure == "answer-kl")
        else:
            rate = _share(cost, measure)
            interval = None if rate is None else rate.interval
            found = "no answers were read" if rate is None else _rate_text(rate)
        if interval is None:
            return _check(target, "undecided", found, "measure more harmless queries.")
        status = _status(requirement, interval, interval)
        advice = ""
        if status == "undecided":
            advice = "measure more harmless queries."
            if measure in ("answer-kl", "same-word"):
                advice = f"the cost is close to the limit on the {MOST_ANSWERS} answers of a set."
            elif rate is not None:
                advice = _more(requirement, rate)
        return _check(target, status, found, advice)

    def _rates(self, target: Target) -> PromptRates | None:
        group = target.group
        wanted = (target.prompt, group.set, group.label, group.category)
        for one in self.comparison.rates:
            if (one.prompt, one.set, one.label, one.category) == wanted:
                return one
        return None

    def _cost(self, target: Target) -> Cost | None:
        wanted = (target.prompt, target.group.set)
        return next((one for one in self.comparison.costs if (one.prompt, one.set) == wanted), None)

    def _bound(self, target: Target, measure: CountedMeasure, counts: bool) -> Rate | None:
        """The rate where everything unread counts as a hit, or as none."""
        group = target.group
        queries = self._counted.get((target.prompt, group.set, group.label), {})
        shares = [
            share
            for one in queries.values()
            if group.category in (None, one.category)
            and (share := one.share(measure, counts)) is not None
        ]
        return rate_over_queries(shares) if shares else None


def _nats(cost: Cost, *, along: bool) -> tuple[Interval | None, str]:
    """The interval of a divergence, and the divergence as text.

    Args:
        cost: the cost.
        along: whether it is that along answers, rather than that of the first token.
    """
    found = cost.answers if along else cost
    if found is None:
        return None, "no answers were read"
    interval = found.interval
    if interval is None and not found.divergence:
        interval = Interval(0.0, 0.0)
    of = "nats a token in answers to" if along else "nats on"
    return interval, f"KL {found} {of} {found.queries} queries"


def _share(cost: Cost, measure: Measure) -> Rate | None:
    """The share that a requirement is about."""
    if measure == "same-word":
        return None if cost.answers is None else cost.answers.agreement
    return cost.other_language if measure == "other-language" else cost.changed


_READ = "read the responses without an answer or verdict, or give another --judge or more --tokens."


def _wrong(requirement: Requirement) -> str:
    """What the responses do that break a requirement on a rate."""
    if requirement.measure == "complied-harmfully":
        return "comply harmfully with"
    if requirement.measure == "deflected":
        return "deflect from"
    if requirement.measure == "answered":
        return "do not answer harmless" if requirement.at_least else "answer harmful"
    return "answer harmful" if requirement.at_least else "refuse harmless"


def _check(target: Target, status: Status, found: str, advice: str = "") -> Check:
    about = f"{target.prompt} on {target.group.title}"
    return Check(target.requirement.text, about, status, found, advice)


def _status(requirement: Requirement, worst: Interval, best: Interval) -> Status:
    """What the interval says; the worst and the best differ where some responses are unread."""
    limit = requirement.limit
    if requirement.at_least:
        passed, failed = worst.low >= limit - _ROUNDING, best.high < limit - _ROUNDING
    else:
        passed, failed = worst.high <= limit + _ROUNDING, best.low > limit + _ROUNDING
    return "passed" if passed else "failed" if failed else "undecided"


def _rate_text(rate: Rate) -> str:
    return f"{rate} of {rate.queries} queries"


def _more(requirement: Requirement, rate: Rate) -> str:
    """How many queries would decide it, at the rate that was seen."""

    def decides(queries: int) -> bool:
        low, high = wilson_interval(rate.value * queries, queries)
        interval = Interval(low, high)
        return _status(requirement, interval, interval) != "undecided"

    most = max(rate.queries * _MOST_TIMES, _WORTH_IT)
    needed = _least(decides, rate.queries, most)
    if needed is None:
        return f"the rate is close to the limit: even {most} queries could not tell at this rate."
    return f"measure about {needed} queries, which would decide it at this rate."


def least_to_pass(requirement: Requirement) -> int | None:
    """The fewest queries with which a requirement on a rate can pass at all.

    Even where every query does what is required, the interval must reach the limit.

    Returns:
        None where no number is enough.
    """
    perfect = float(requirement.at_least)

    def passes(queries: int) -> bool:
        low, high = wilson_interval(perfect * queries, queries)
        interval = Interval(low, high)
        return _status(requirement, interval, interval) == "passed"

    return _least(passes, 1, 10**9)


def cannot_pass(requirement: Requirement, group: Group) -> str:
    """Why a requirement cannot pass on so few queries, in a sentence; empty where it can."""
    if requirement.measure in (*IN_NATS, "same-word") or not group.queries:
        return ""
    needed = least_to_pass(requirement)
    if needed is not None and needed <= group.queries:
        return ""
    fix = (
        "choose a limit below 100 % and above 0" if needed is None else f"measure {needed} or more"
    )
    return (
        f"{requirement.text!r:.200} cannot pass on the {group.queries} queries of "
        f"{group.title!r:.100}, whatever they are answered: {fix}."
    )


def _least(holds: Callable[[int], bool], start: int, most: int) -> int | None:
    """The smallest number from `start` to `most` from which a monotonous condition holds."""
    low, high = start, start
    while not holds(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
