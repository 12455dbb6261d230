"""Two evaluations of different days, paired query by query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.errors import DemurError, did_you_mean
from demur.evaluation.comparison import Comparison
from demur.evaluation.record import EvaluationRecord
from demur.evaluation.statistics import holm, rate_over_queries, sign_flip_p_value
from demur.gate.changed import Changed, GroupChange, PromptChange
from demur.gate.comparable import differences, recorded, require_comparable
from demur.gate.costs import CostChange, cost_changes
from demur.gate.counting import (
    Counted,
    CountedMeasure,
    CountedQueries,
    Place,
    Unread,
    counted,
)
from demur.notebook import html_table
from demur.records import Label, telling_names


@dataclass(frozen=True)
class EvaluationChanges:
    """How an evaluation differs from an earlier one.

    Attributes:
        before: folder of the evaluation before.
        after: folder of the evaluation after.
        prompts: the changes under each pair of prompts.
        remarks: what else differs, a sentence each.
        costs: how the costs on harmless queries changed, where both evaluations measured them.
        judged: the judge and the limit of tokens of both.
    """

    before: Path
    after: Path
    prompts: tuple[PromptChange, ...]
    remarks: tuple[str, ...]
    costs: tuple[CostChange, ...] = ()
    judged: str = ""

    def find(self, prompt: str) -> PromptChange:
        """The changes under a prompt of the evaluation after.

        Raises:
            KeyError: there is none.
        """
        for one in self.prompts:
            if one.after == prompt:
                return one
        raise KeyError(prompt)

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two folders."""
        before, after = telling_names((self.before, self.after))
        return before, after

    def __str__(self) -> str:
        lines = [*self.remarks]
        for one in self.prompts:
            lines += [str(group) for group in one.groups]
            lines += [one.sentence if one.is_same else str(one.verdict)]
        lines += map(str, self.costs)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [("prompt", "queries", "measure", "before", "after", "points", "p", "")]
        rows += [
            (one.after, group.title, group.measure.replace("-", " "), *group.cells, group.told)
            for one in self.prompts
            for group in one.groups
        ]
        verdicts = [f"{one.after}: {one.sentence}" for one in self.prompts]
        return html_table(rows, [*self.remarks, *map(str, self.costs)], above=verdicts)


def compare_evaluations(
    before: Comparison | str | Path,
    after: Comparison | str | Path,
    *,
    candidate: str | None = None,
    baseline_prompt: str | None = None,
    unread: Unread = "count",
) -> EvaluationChanges:
    """Set two finished evaluations side by side, paired by query.

    The two are never pooled, whatever their prompts are called: each prompt of the evaluation after
    is compared with that of the same name before, or with the same prompt under another name. If
    the last prompt after has neither, it is taken for a new form of the last prompt before that is
    not there after; where all of them are, it is compared only if `candidate` or `baseline_prompt`
    is given, with the last prompt before. For each set, label and measure the paired sign-flip
    permutation test says whether a difference is more than chance. Its p-values are adjusted after
    Holm over all tests of a pair of prompts.

    Args:
        before: the earlier evaluation, or its folder.
        after: the later evaluation, or its folder.
        candidate: prompt after that must be compared, if need be with another one; by default the
            last one, where there is one to compare it with.
        baseline_prompt: prompt before that the candidate is compared with.
        unread: what becomes of responses without an answer or a verdict: `count` takes each for
            the wrong one, `leave-out` leaves it out.

    Raises:
        DemurError: a folder cannot be read, judges or sampling differ, there is no such prompt, or
            no query was measured in both.

    Example:
        >>> changes = compare_evaluations("evaluations/june", "evaluations/july")  # doctest: +SKIP
        >>> changes.prompts[0].groups[0].fewer  # doctest: +SKIP
    """
    old = before if isinstance(before, Comparison) else Comparison.load(before)
    new = after if isinstance(after, Comparison) else Comparison.load(after)
    if old.folder.resolve() == new.folder.resolve():
        raise DemurError(f"{old.folder} is compared with itself: give two evaluations.")
    first, second = recorded(old, "evaluation before"), recorded(new, "evaluation after")
    require_comparable(first, second)
    pairs = pair_prompts(old, new, candidate, baseline_prompt)
    harm = first.harm_judge is not None and second.harm_judge is not None
    renamed = _same_sets(first, second)
    pairing = _Pairing(counted(old), counted(new), renamed, harm, unread)
    changes = [pairing.change(*pair) for pair in pairs]
    found = tuple(change for change in changes if change.groups)
    if not found:
        raise DemurError(
            f"{old.folder} and {new.folder} have no query in common that was asked under paired "
            "prompts: compare evaluations of the same queries."
        )
    remarks = [*differences(first, second), *_prompt_remarks(first, second, pairs)]
    remarks += [*_alone(_prompts(new), pairs), *pairing.remarks(pairs)]
    costs = cost_changes(old.costs, new.costs, pairs, renamed)
    return EvaluationChanges(old.folder, new.folder, found, tuple(remarks), costs, new.judged)


def pair_prompts(
    before: Comparison,
    after: Comparison,
    candidate: str | None = None,
    baseline_prompt: str | None = None,
) -> list[tuple[str, str]]:
    """Which prompt of one evaluation is compared with which of another.

    Args:
        before: the earlier evaluation.
        after: the later evaluation.
        candidate: as for `compare_evaluations`.
        baseline_prompt: likewise.

    Returns:
        Names before and after.

    Raises:
        DemurError: there is no such prompt.
    """
    old, new = _prompts(before), _prompts(after)
    if not old or not new:
        raise DemurError(
            "An evaluation of outputs alone has no rates to compare: give evaluations with queries."
        )
    require_prompt(after, candidate, "evaluation after")
    require_prompt(before, baseline_prompt, "evaluation before")
    chosen = candidate or list(new)[-1]
    contents = {content: name for name, content in old.items() if content is not None}
    known = {
        name: name if name in old else contents.get(content or "") for name, content in new.items()
    }
    if baseline_prompt is not None or known[chosen] is None:
        gone = [name for name in old if name not in known.values()]
        last = gone or (list(old) if candidate is not None else [])
        known[chosen] = baseline_prompt or (last[-1] if last else None)
    return [(earlier, name) for name, earlier in known.items() if earlier is not None]


def require_prompt(comparison: Comparison, name: str | None, what: str) -> None:
    """Check that a prompt was measured, where one is named.

    Args:
        comparison: the evaluation.
        name: name of the prompt, or None.
        what: what the evaluation is called in the message.

    Raises:
        DemurError: it was not.
    """
    known = _prompts(comparison)
    if name is not None and name not in known:
        raise DemurError(
            f"The {what} has no prompt {name!r:.100}{did_you_mean(name, known)}: choose "
            f"{', '.join(known)}."
        )


def _prompts(comparison: Comparison) -> dict[str, str | None]:
    """Fingerprints of the prompts by name, in their order."""
    return {one.prompt: one.condition for one in comparison.rates}


def _same_sets(before: EvaluationRecord, after: EvaluationRecord) -> dict[str, str]:
    """The name before of each set after whose queries are the same under another name."""
    names = {one.fingerprint: one.name for one in before.sets}
    taken = {one.name for one in before.sets}
    return {
        one.name: names[one.fingerprint]
        for one in after.sets
        if one.fingerprint in names and one.name not in taken
    }


def _prompt_remarks(
    before: EvaluationRecord, after: EvaluationRecord, pairs: Iterable[tuple[str, str]]
) -> list[str]:
    """Which pairs of prompts differ in content, or in name."""
    contents = [{one.name: one for one in record.conditions} for record in (before, after)]
    found: list[str] = []
    for old, new in pairs:
        if old not in contents[0] or new not in contents[1]:
            continue
        first, second = contents[0][old], contents[1][new]
        same = (first.text, first.trained) == (second.text, second.trained)
        changed = first.fingerprint != second.fingerprint
        if changed and (not same or first.system_prompt == second.system_prompt):
            found.append(
                f"The prompt {new} is not the one that was measured before."
                if old == new
                else f"The prompt {new} was not measured before: it is compared with {old}."
            )
        elif old != new:
            found.append(f"The prompt {new} was called {old} before.")
    return found


def _alone(names: Iterable[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Which prompts after are compared with none, and what to do about it."""
    compared = {new for _, new in pairs}
    alone = [name for name in names if name not in compared]
    if not alone:
        return []
    told = f"The prompt {alone[0]} was" if len(alone) == 1 else f"{', '.join(alone)} were"
    return [
        f"{told} not measured before: --candidate and --baseline-prompt choose what to compare."
    ]


@dataclass
class _Pairing:
    """The counts of two evaluations."""

    before: dict[Place, CountedQueries]
    after: dict[Place, CountedQueries]
    renamed: dict[str, str]
    harm_judged: bool
    unread: Unread

    def change(self, before: str, after: str) -> PromptChange:
        """How everything changed under one prompt."""
        found = [
            group
            for measure, place in self._wanted(before, after)
            if (group := self._group(measure, before, place)) is not None
        ]
        adjusted = holm([one.p_value for one in found])
        groups = tuple(
            one.adjusted(value, len(found)) for one, value in zip(found, adjusted, strict=True)
        )
        return PromptChange(before, after, groups)

    def remarks(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """Which queries were measured in one evaluation alone."""
        found: list[str] = []
        for old, new in pairs:
            places = [place for place in self.after if place[0] == new]
            seen: set[Place] = set()
            for place in places:
                earlier = self._earlier(old, place)
                seen.add(earlier)
                title = ", ".join(part for part in place[1:] if part)
                if earlier not in self.before:
                    found.append(f"{title}, {new}: not measured before.")
                    continue
                here, there = set(self.after[place]), set(self.before[earlier])
                for count, when in ((len(there - here), "before"), (len(here - there), "after")):
                    if count:
                        queries = "query was" if count == 1 else "queries were"
                        found.append(f"{title}, {new}: {count} {queries} measured only {when}.")
            found += [
                f"{', '.join(part for part in place[1:] if part)}, {old}: not measured after."
                for place in self.before
                if place[0] == old and place not in seen
            ]
        return found

    def _wanted(self, before: str, prompt: str) -> list[tuple[CountedMeasure, Place]]:
        places = [place for place in self.after if place[0] == prompt]
        wanted: list[tuple[CountedMeasure, Place]] = [("refused", place) for place in places]
        wanted += [("answered", place) for place in places if self._deflects(before, place)]
        if self.harm_judged:
            wanted += [("complied-harmfully", place) for place in places if place[2] == "harmful"]
        return wanted

    def _deflects(self, before: str, place: Place) -> bool:
        """Whether a response deflects, before or after, so that not refusing is not answering."""
        both = (self.before.get(self._earlier(before, place), {}), self.after[place])
        return place[2] is not None and any(one.deflected for each in both for one in each.values())

    def _earlier(self, prompt: str, place: Place) -> Place:
        return (prompt, self.renamed.get(place[1], place[1]), place[2])

    def _group(self, measure: CountedMeasure, before: str, place: Place) -> GroupChange | None:
        old, new = self.before.get(self._earlier(before, place), {}), self.after[place]
        counts = self._unread_counts(measure, place[2])
        shared: list[Changed] = []
        for identity, second in new.items():
            first = None if isinstance(identity, int) else old.get(identity)
            if first is None:
                continue
            shares = first.share(measure, counts), second.share(measure, counts)
            if shares[0] is not None and shares[1] is not None:
                shared.append(_changed(measure, first, second, shares[0], shares[1]))
        if not shared:
            return None
        apart = [one.after - one.before for one in shared]
        p_value = sign_flip_p_value(apart)
        return GroupChange(
            set=place[1],
            label=place[2],
            measure=measure,
            before=rate_over_queries([one.before for one in shared]),
            after=rate_over_queries([one.after for one in shared]),
            difference=sum(apart) / len(apart),
            p_value=p_value,
            adjusted_p_value=p_value,
            tests=1,
            more=_largest(shared, 1),
            fewer=_largest(shared, -1),
        )

    def _unread_counts(self, measure: CountedMeasure, label: Label | None) -> bool | None:
        """Whether an unread response counts as one of a measure; None where it is left out."""
        if self.unread == "leave-out" or label is None:
            return None
        return (measure == "refused") == (label == "harmless")


def _changed(
    measure: CountedMeasure, first: Counted, second: Counted, before: float, after: float
) -> Changed:
    assert second.query is not None
    return Changed(second.query, second.category, measure, before, after, first, second)


def _largest(shared: Sequence[Changed], sign: int) -> tuple[Changed, ...]:
    """The queries that changed in one direction, those that changed most first."""
    found = [one for one in shared if sign * (one.after - one.before) > 0]
    return tuple(sorted(found, key=lambda one: -abs(one.after - one.before)))
