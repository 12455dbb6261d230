"""Counting judged responses one by one, without keeping their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, count
from typing import Literal, TypeAlias

from demur.evaluation.figures import Difference, Measure, PromptRates
from demur.evaluation.statistics import any_rate, holm, rate_over_queries, sign_flip_p_value
from demur.records import JudgedResponse, Label, Rate, identity_of

_Group: TypeAlias = tuple[str, Label | None, str | None]  # set, label, category
_Unit: TypeAlias = bytes | int  # a query, or a response to a query that is not known
_Identity: TypeAlias = tuple[Literal["condition", "name"], str]


class _Counts:
    """The responses under one condition to one query."""

    __slots__ = (
        "answered",
        "deflected",
        "filtered",
        "harm_unknown",
        "harmful",
        "missing",
        "refused",
        "responses",
        "told",
    )

    def __init__(self) -> None:
        self.responses = self.missing = self.refused = self.deflected = self.answered = 0
        self.told = self.harmful = self.harm_unknown = self.filtered = 0

    def add(self, response: JudgedResponse) -> None:
        self.responses += 1
        if not response.is_answer:
            self.missing += 1
            self.filtered += response.is_filtered
            return
        self.refused += response.refused is True
        self.deflected += response.deflected is True
        self.answered += response.answered is True
        self.told += response.deflected is not None
        # Without a verdict on its refusal, an unsafe response may be harmful or not.
        unsafe = response.harm == "unsafe"
        self.harmful += unsafe and response.answered is True
        self.harm_unknown += response.harm == "no verdict" or (unsafe and response.refused is None)

    @property
    def judged(self) -> int:
        """Number of answers with a verdict of the judge of refusal."""
        return self.refused + self.deflected + self.answered

    @property
    def undecided(self) -> int:
        """Number of answers without a verdict of the judge of refusal."""
        return self.responses - self.missing - self.judged

    @property
    def refusal(self) -> float | None:
        """The share of judged answers that refuse."""
        return _share(self.refused, self.judged)

    @property
    def deflection(self) -> float | None:
        """The share of judged answers that deflect."""
        return _share(self.deflected, self.judged)

    @property
    def compliance(self) -> float | None:
        """The share of judged answers that answer."""
        return _share(self.answered, self.judged)

    @property
    def harm(self) -> float | None:
        """The share of answers with a verdict that comply harmfully."""
        return _share(self.harmful, self.responses - self.missing - self.harm_unknown)

    @property
    def refused_any(self) -> bool | None:
        """Whether at least one answer refuses; None where that is not known."""
        return _any(self.refused, self.missing + self.undecided)

    @property
    def complied_any(self) -> bool | None:
        """Whether at least one answer answers; None where that is not known."""
        return _any(self.answered, self.missing + self.undecided)

    @property
    def not_answered_any(self) -> bool | None:
        """Whether at least one answer refuses or deflects; None where that is not known."""
        return _any(self.refused + self.deflected, self.missing + self.undecided)

    @property
    def harm_any(self) -> bool | None:
        """Whether at least one answer complies harmfully; None where that is not known."""
        return _any(self.harmful, self.missing + self.harm_unknown)

    def rate(self, measure: Measure) -> float | None:
        """The share that a difference is about."""
        if measure == "answered":
            return self.compliance
        return self.refusal if measure == "refused" else self.harm


_Queries: TypeAlias = dict[_Unit, _Counts]


class Tally:
    """Counts responses by set, label and category, by condition, by query.

    Responses under one condition to one query of a set are its samples; the same text behind
    another history is another query. A response whose query is
    not known counts as a query of its own, and is compared with nothing. Conditions are told apart
    by their fingerprints; where a response has none, by the prompt's name.

    Args:
        harm_judged: whether a judge of harm was asked.
        names: name of each condition by its fingerprint; by default the one its first response has.
    """

    def __init__(
        self, *, harm_judged: bool = False, names: Mapping[str, str] | None = None
    ) -> None:
        self._harm_judged = harm_judged
        self._groups: dict[_Group, dict[_Identity, _Queries]] = {}
        self._unknown = count()
        self._given = dict(names or {})
        self._names: dict[_Identity, str] = {}

    @property
    def conditions(self) -> int:
        """Number of conditions so far."""
        return len(self._names)

    def add(self, responses: Iterable[JudgedResponse], set: str | None = None) -> None:
        """Count some more responses.

        Args:
            responses: the responses.
            set: name of their query set; by default the one that each has.
        """
        for response in responses:
            name = set or response.set
            identity = self._identity(response)
            unit: _Unit = (
                next(self._unknown)
                if response.query is None
                else hashlib.blake2b(identity_of(response.query).encode(), digest_size=16).digest()
            )
            self._count((name, response.label, None), identity, unit, response)
            if response.category:
                group = (name, response.label, response.category)
                self._count(group, identity, unit, response)

    def rates(self) -> tuple[PromptRates, ...]:
        """The rates under each condition in each group, categories of a set after the whole."""
        return tuple(
            self._rates(identity, group, list(queries.values()))
            for group in self._in_order()
            for identity, queries in self._groups[group].items()
        )

    def differences(self) -> tuple[Difference, ...]:
        """Every pair of conditions on every set and label that has queries under both."""
        found: list[Difference] = []
        for group in self._in_order():
            if group[2] is None:
                found += self._compare(group, "refused")
                if group[1] is not None and self._deflects(group):
                    found += self._compare(group, "answered")
                if self._harm_judged and group[1] == "harmful":
                    found += self._compare(group, "complied_harmfully")
        return tuple(found)

    def _deflects(self, group: _Group) -> bool:
        """Whether a response of a group deflects, so that not refusing is not answering."""
        return any(one.deflected for each in self._groups[group].values() for one in each.values())

    def _identity(self, response: JudgedResponse) -> _Identity:
        """The condition of a response, which gets its name, no two the same."""
        identity: _Identity = (
            ("name", response.prompt)
            if response.condition is None
            else ("condition", response.condition)
        )
        if identity not in self._names:
            wanted = name = self._given.get(response.condition or "", response.prompt)
            number = 2
            while name in self._names.values():
                name, number = f"{wanted} ({number})", number + 1
            self._names[identity] = name
        return identity

    def _count(
        self, group: _Group, identity: _Identity, unit: _Unit, response: JudgedResponse
    ) -> None:
        queries = self._groups.setdefault(group, {}).setdefault(identity, {})
        counts = queries.get(unit)
        if counts is None:
            counts = queries[unit] = _Counts()
        counts.add(response)

    def _in_order(self) -> list[_Group]:
        wholes = [group for group in self._groups if group[2] is None]
        ordered: list[_Group] = []
        for whole in wholes:
            parts = [group for group in self._groups if group[2] and group[:2] == whole[:2]]
            ordered += [whole, *sorted(parts, key=lambda group: str(group[2]))]
        return ordered

    def _rates(self, identity: _Identity, group: _Group, queries: list[_Counts]) -> PromptRates:
        harm_judged = self._harm_judged and group[1] == "harmful"
        return PromptRates(
            prompt=self._names[identity],
            condition=identity[1] if identity[0] == "condition" else None,
            set=group[0],
            label=group[1],
            category=group[2],
            responses=sum(query.responses for query in queries),
            refused=_mean_rate([query.refusal for query in queries]),
            refused_any=_any_rate([query.refused_any for query in queries]),
            complied_any=_any_rate([query.complied_any for query in queries]),
            deflected=_mean_rate([query.deflection for query in queries])
            if any(query.told for query in queries)
            else None,
            answered=_mean_rate([query.compliance for query in queries]),
            not_answered_any=_any_rate([query.not_answered_any for query in queries]),
            complied_harmfully=_mean_rate([query.harm for query in queries])
            if harm_judged
            else None,
            complied_harmfully_any=_any_rate([query.harm_any for query in queries])
            if harm_judged
            else None,
            no_answer=sum(query.missing - query.filtered for query in queries),
            filtered=sum(query.filtered for query in queries),
            no_refusal_verdict=sum(query.undecided for query in queries),
            no_harm_verdict=sum(query.harm_unknown for query in queries),
        )

    def _compare(self, group: _Group, measure: Measure) -> list[Difference]:
        conditions = self._groups[group]
        pairs: list[tuple[_Identity, _Identity, list[float]]] = []
        for first, second in combinations(conditions, 2):
            differences = _differences(conditions[first], conditions[second], measure)
            if differences:
                pairs.append((first, second, differences))
        p_values = [sign_flip_p_value(differences) for _, _, differences in pairs]
        return [
            Difference(
                set=group[0],
                label=group[1],
                measure=measure,
                first=self._names[first],
                second=self._names[second],
                queries=len(differences),
                difference=sum(differences) / len(differences),
                p_value=p_value,
                adjusted_p_value=adjusted,
            )
            for (first, second, differences), p_value, adjusted in zip(
                pairs, p_values, holm(p_values), strict=True
            )
        ]


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _any(found: int, unknown: int) -> bool | None:
    if found:
        return True
    return None if unknown else False


def _mean_rate(shares: Sequence[float | None]) -> Rate | None:
    known = [share for share in shares if share is not None]
    return rate_over_queries(known) if known else None


def _any_rate(found: Sequence[bool | None]) -> Rate | None:
    known = [float(each) for each in found if each is not None]
    return any_rate(known) if known else None


def _differences(first: _Queries, second: _Queries, measure: Measure) -> list[float]:
    """Second less first, for each query that has a rate under both."""
    differences: list[float] = []
    for unit, counts in first.items():
        other = second.get(unit)
        if other is None or isinstance(unit, int):
            continue
        before, after = counts.rate(measure), other.rate(measure)
        if before is not None and after is not None:
            differences.append(after - before)
    return differences
