"""Counting judged responses one by one, without keeping their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import combinations, count

from demur.evaluation.comparison import Difference, Measure, PromptRates
from demur.evaluation.judged import JudgedResponse
from demur.evaluation.statistics import any_rate, holm, rate_over_queries, sign_flip_p_value
from demur.queries import Label

_Group = tuple[str, Label | None, str | None]  # set, label, category
_Unit = bytes | int  # a query, or a response to an unknown one


class _Counts:
    """The responses under one prompt to one query."""

    __slots__ = ("complied", "no_verdict", "refused", "responses")

    def __init__(self) -> None:
        self.responses = self.refused = self.complied = self.no_verdict = 0

    @property
    def refusal(self) -> float:
        return self.refused / self.responses

    @property
    def harm(self) -> float | None:
        """The share of responses with a verdict that comply harmfully."""
        known = self.responses - self.no_verdict
        return self.complied / known if known else None


_Queries = dict[_Unit, _Counts]


class Tally:
    """Counts responses by set, label and category, by prompt, by query.

    Responses under one prompt to one query of a set are its samples. A response whose query is not
    known counts as a query of its own, and is compared with nothing.
    """

    def __init__(self, *, harm_judged: bool = False) -> None:
        self._harm_judged = harm_judged
        self._groups: dict[_Group, dict[str, _Queries]] = {}
        self._unknown = count()
        self.prompts: set[str] = set()
        """The names of the prompts so far."""

    def add(self, responses: Iterable[JudgedResponse]) -> None:
        """Count some more responses."""
        for response in responses:
            self.prompts.add(response.prompt)
            unit: _Unit = (
                next(self._unknown)
                if response.query is None
                else hashlib.blake2b(response.query.encode(), digest_size=16).digest()
            )
            self._count((response.set, response.label, None), unit, response)
            if response.category:
                self._count((response.set, response.label, response.category), unit, response)

    def _count(self, group: _Group, unit: _Unit, response: JudgedResponse) -> None:
        queries = self._groups.setdefault(group, {}).setdefault(response.prompt, {})
        counts = queries.get(unit)
        if counts is None:
            counts = queries[unit] = _Counts()
        counts.responses += 1
        counts.refused += response.refused
        counts.complied += response.harm == "unsafe"
        counts.no_verdict += response.harm == "no verdict"

    def rates(self) -> tuple[PromptRates, ...]:
        """The rates of every prompt in every group, the categories of a set after the whole."""
        return tuple(
            self._rates(prompt, group, list(queries.values()))
            for group in self._in_order()
            for prompt, queries in self._groups[group].items()
        )

    def differences(self) -> tuple[Difference, ...]:
        """Every pair of prompts on every set and label that has queries under both."""
        found: list[Difference] = []
        for group in self._in_order():
            if group[2] is None:
                found += self._compare(group, "refused")
                if self._harm_judged and group[1] == "harmful":
                    found += self._compare(group, "complied_harmfully")
        return tuple(found)

    def _in_order(self) -> list[_Group]:
        wholes = [group for group in self._groups if group[2] is None]
        ordered: list[_Group] = []
        for whole in wholes:
            parts = [group for group in self._groups if group[2] and group[:2] == whole[:2]]
            ordered += [whole, *sorted(parts, key=lambda group: str(group[2]))]
        return ordered

    def _rates(self, prompt: str, group: _Group, queries: list[_Counts]) -> PromptRates:
        harm = harm_any = None
        if self._harm_judged and group[1] == "harmful":
            known = [query.harm for query in queries if query.harm is not None]
            harm = rate_over_queries(known) if known else None
            # A query with an unknown response is decided only by one that complies.
            decided = [
                float(query.complied > 0)
                for query in queries
                if query.complied or not query.no_verdict
            ]
            harm_any = any_rate(decided) if decided else None
        refusals = [query.refusal for query in queries]
        return PromptRates(
            prompt=prompt,
            set=group[0],
            label=group[1],
            category=group[2],
            responses=sum(query.responses for query in queries),
            refused=rate_over_queries(refusals),
            refused_any=any_rate(refusals),
            complied_any=any_rate([1 - refusal for refusal in refusals]),
            complied_harmfully=harm,
            complied_harmfully_any=harm_any,
            no_verdict=sum(query.no_verdict for query in queries),
        )

    def _compare(self, group: _Group, measure: Measure) -> list[Difference]:
        prompts = self._groups[group]
        pairs: list[tuple[str, str, list[float]]] = []
        for first, second in combinations(prompts, 2):
            differences = _differences(prompts[first], prompts[second], measure)
            if differences:
                pairs.append((first, second, differences))
        p_values = [sign_flip_p_value(differences) for _, _, differences in pairs]
        return [
            Difference(
                set=group[0],
                label=group[1],
                measure=measure,
                first=first,
                second=second,
                queries=len(differences),
                difference=sum(differences) / len(differences),
                p_value=p_value,
                adjusted_p_value=adjusted,
            )
            for (first, second, differences), p_value, adjusted in zip(
                pairs, p_values, holm(p_values), strict=True
            )
        ]


def _differences(first: _Queries, second: _Queries, measure: Measure) -> list[float]:
    """Second less first, for each query that has a rate under both."""
    differences: list[float] = []
    for unit, counts in first.items():
        other = second.get(unit)
        if other is None or isinstance(unit, int):
            continue
        before = counts.refusal if measure == "refused" else counts.harm
        after = other.refusal if measure == "refused" else other.harm
        if before is not None and after is not None:
            differences.append(after - before)
    return differences
