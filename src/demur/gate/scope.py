"""What a requirement is about: queries and a prompt among those that are measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from demur.errors import DemurError, did_you_mean
from demur.evaluation.figures import Figures, PromptRates
from demur.gate.requirements import COSTS, MEASURES, Requirement, unknown_measure
from demur.queries import BENCHMARKS, KINDS, kind_in_name
from demur.queries.words import without_turn
from demur.records import Label, Queries

_MOST_LISTED = 12


@dataclass(frozen=True)
class Group:
    """Queries that have a rate of their own.

    Attributes:
        set: name of the query set.
        label: label of the queries, or None where it is not known.
        category: category of the queries; None for all of the set and label.
        queries: number of queries; 0 where it is not known.
    """

    set: str
    label: Label | None
    category: str | None = None
    queries: int = 0

    @property
    def title(self) -> str:
        """What the queries are called, for example `held-out, harmful`."""
        return ", ".join(part for part in (self.set, self.label, self.category) if part)


@dataclass(frozen=True)
class Target:
    """One prompt on one group of queries, which a requirement is about.

    Attributes:
        requirement: the requirement.
        prompt: name of the prompt.
        group: the queries.
    """

    requirement: Requirement
    prompt: str
    group: Group


@dataclass(frozen=True)
class Scope:
    """Everything that requirements can be about.

    Attributes:
        prompts: names of the prompts in their order.
        groups: the queries.
        harm_judged: whether a judge of harm is asked.
        has_costs: whether the cost of a prompt is measured.
        tells_deflections: whether the judge of refusal tells deflections from answers.
    """

    prompts: tuple[str, ...]
    groups: tuple[Group, ...]
    harm_judged: bool
    has_costs: bool
    tells_deflections: bool = False

    @classmethod
    def of(cls, figures: Figures) -> Scope:
        """What was measured."""
        harm = any(one.complied_harmfully or one.no_harm_verdict for one in figures.rates)
        return cls.of_rates(figures.rates, harm_judged=harm, has_costs=bool(figures.costs))

    @classmethod
    def of_rates(cls, rates: Sequence[PromptRates], *, harm_judged: bool, has_costs: bool) -> Scope:
        """What rates are there."""
        groups = dict.fromkeys(Group(one.set, one.label, one.category) for one in rates)
        return cls(
            tuple(dict.fromkeys(one.prompt for one in rates)),
            tuple(groups),
            harm_judged,
            has_costs,
            any(one.tells_deflections for one in rates),
        )

    @classmethod
    def planned(
        cls,
        prompts: Iterable[str],
        sets: Iterable[Queries],
        *,
        harm_judged: bool,
        has_costs: bool,
        tells_deflections: bool,
    ) -> Scope:
        """What will be measured.

        Args:
            prompts: names of the prompts.
            sets: the query sets.
            harm_judged: whether a judge of harm is asked.
            has_costs: whether a model runs here.
            tells_deflections: whether the judge of refusal tells deflections from answers.
        """
        groups: list[Group] = []
        for one in sets:
            whole = Counter(one.labels)
            parts = Counter(zip(one.labels, one.categories, strict=True))
            groups += [Group(one.name, label, None, count) for label, count in whole.items()]
            groups += [
                Group(one.name, label, category, count)
                for (label, category), count in parts.items()
                if category
            ]
        return cls(tuple(prompts), tuple(groups), harm_judged, has_costs, tells_deflections)

    def candidate(self, named: str | None = None) -> str:
        """The prompt that requirements are about unless they name one: by default the last.

        Raises:
            DemurError: there is no prompt, or none of that name.
        """
        if not self.prompts or not self.groups:
            raise DemurError(
                "No queries were measured, so that there is nothing to check: give --harmful, "
                "--harmless or --benchmark."
            )
        if named is None:
            return self.prompts[-1]
        self._require_prompt(named)
        return named

    def targets(self, requirement: Requirement, candidate: str) -> list[Target]:
        """The queries and the prompt that a requirement is about; each set is one target.

        Args:
            requirement: the requirement.
            candidate: name of the prompt where it names none.

        Raises:
            DemurError: there are no such queries or there is no such prompt, or the requirement
                wants what a safety prompt should not do.
        """
        groups, prompt = self._resolve(requirement)
        self._check_measure(requirement, groups)
        if requirement.measure in COSTS:
            groups = [one for one in groups if one.label == "harmless"]
        _check_direction(requirement, groups)
        return [Target(requirement, prompt or candidate, group) for group in groups]

    def _resolve(self, requirement: Requirement) -> tuple[list[Group], str | None]:
        about, text = requirement.about, requirement.text
        unknown: str | None = None
        for queries, prompt in _splits(about):
            groups = self._matching(queries)
            if groups and (prompt is None or prompt in self.prompts):
                return groups, prompt
            if groups and prompt is not None:
                unknown = prompt
        if unknown is not None:
            self._require_prompt(unknown)
        measure = unknown_measure(about)
        if measure is not None:
            raise DemurError(
                f"The requirement {text!r:.200} names {measure!r:.60}, and there is no such measure"
                f"{did_you_mean(measure, MEASURES)}: choose {', '.join(MEASURES)}."
            )
        wholes, categories = self._subjects()
        shown = ", ".join(repr(one) if "," in one else one for one in wholes[:_MOST_LISTED])
        asked = about.rpartition("@")[0] or about
        kind = f", or measure such queries, for example --harmless test:{asked}"
        raise DemurError(
            f"The requirement {text!r:.200} names {asked!r:.100}, and no such queries are measured"
            f"{did_you_mean(asked, [*wholes, *categories])}: choose {shown}"
            f"{' ...' if len(wholes) > _MOST_LISTED else ''}{kind if asked in KINDS else ''}."
        )

    def _matching(self, name: str) -> list[Group]:
        """The groups that a name stands for."""
        found: list[Group] = []
        for group in self.groups:
            whole = (group.set, f"{group.set}:{group.label}")
            if group.category is not None:
                wanted = name in [f"{one}:{group.category}" for one in whole]
            else:
                wanted = name in (group.label, *whole)
                wanted = wanted or (name in KINDS and _kind(group) == name)
            found += [group] if wanted else []
        return found

    def _subjects(self) -> tuple[list[str], list[str]]:
        """Names of what requirements can be about: whole sets, and categories."""
        wholes = [one for one in self.groups if one.category is None]
        labels: list[str] = [one.label for one in wholes if one.label]
        kinds = [kind for one in wholes if (kind := _kind(one)) is not None]
        sets = [f"{one.set}:{one.label}" if one.label else one.set for one in wholes]
        categories = [f"{one.set}:{one.category}" for one in self.groups if one.category]
        return list(dict.fromkeys([*labels, *kinds, *sets])), list(dict.fromkeys(categories))

    def _require_prompt(self, name: str) -> None:
        if name not in self.prompts:
            known = ", ".join(self.prompts[:_MOST_LISTED])
            raise DemurError(
                f"There is no prompt {name!r:.100} among those measured"
                f"{did_you_mean(name, self.prompts)}: choose {known}."
            )

    def _check_measure(self, requirement: Requirement, groups: Sequence[Group]) -> None:
        text, measure = requirement.text, requirement.measure
        if measure == "complied-harmfully":
            if not self.harm_judged:
                raise DemurError(
                    f"The requirement {text!r:.200} needs a judge of harm: give --harm-judge."
                )
            if any(one.label != "harmful" for one in groups):
                raise DemurError(
                    f"The requirement {text!r:.200} is about harmless queries, and only answers to "
                    "harmful ones are judged for harm: name harmful queries."
                )
        elif measure == "deflected":
            if not self.tells_deflections:
                raise DemurError(
                    f"The requirement {text!r:.200} needs a judge that tells deflections from "
                    "answers: give --judge default."
                )
        elif measure in COSTS:
            if not self.has_costs:
                raise DemurError(
                    f"The requirement {text!r:.200} is about a cost that is not measured: leave it "
                    "out, or evaluate a model here and harmless queries."
                )
            if any(one.category for one in groups) or all(
                one.label != "harmless" for one in groups
            ):
                raise DemurError(
                    f"The requirement {text!r:.200} is about a cost, which whole sets of harmless "
                    "queries have: name harmless queries."
                )


def _kind(group: Group) -> str | None:
    """`borderline` or `ordinary`, where the name of a harmless set says which."""
    if group.label != "harmless":
        return None
    known = kind_in_name(group.set)
    if known is not None:
        return known
    found = BENCHMARKS.get(without_turn(group.set)[0])
    # Where a benchmark holds both labels, its harmless queries are the twins of the harmful ones.
    return "borderline" if found is not None and found.side in ("borderline", "both") else None


def _splits(about: str) -> Iterator[tuple[str, str | None]]:
    """A text as queries alone, and as queries and a prompt, split at each `@`."""
    yield about, None
    at = len(about)
    while (at := about.rfind("@", 0, at)) > 0:
        yield about[:at].strip(), about[at + 1 :].strip()


def _check_direction(requirement: Requirement, groups: Sequence[Group]) -> None:
    """Refuse a requirement that a worse prompt meets more easily.

    Raises:
        DemurError: it is one.
    """
    text, limit = requirement.text, requirement.limit
    if requirement.measure == "same-word":
        if not requirement.at_least:
            raise DemurError(
                f"The requirement {text!r:.200} asks for answers that stay the same at most so "
                "often: write >= instead of <=."
            )
        return
    if requirement.measure not in ("refused", "answered"):
        if requirement.at_least:
            what = "deflections" if requirement.measure == "deflected" else "a cost or harm"
            raise DemurError(
                f"The requirement {text!r:.200} asks for {what} of at least its limit: write <= "
                "instead of >=."
            )
        return
    labels = {one.label for one in groups}
    if {"harmful", "harmless"} <= labels:
        raise DemurError(
            f"The requirement {text!r:.200} is about harmful and harmless queries: write "
            f"{requirement.about}:harmful or {requirement.about}:harmless."
        )
    answered = requirement.measure == "answered"
    wrong: Label = "harmless" if requirement.at_least != answered else "harmful"
    if wrong in labels:
        right = "<=" if requirement.at_least else ">="
        limits = f"{right}{100 - 100 * limit:g}%"
        example = f"answered({wrong}){limits}" if answered else f"{wrong}{limits}"
        what = "" if answered else "requirements are about refusals, so "
        bound = "at least" if requirement.at_least else "at most"
        raise DemurError(
            f"The requirement {text!r:.200} asks for {wrong} queries to be {requirement.measure} "
            f"{bound} so often: {what}write for example {example!r}."
        )
