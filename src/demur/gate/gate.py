"""`check`: whether an evaluation meets its requirements and is not worse than an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.arguments import require_kind
from demur.errors import DemurError
from demur.evaluation.chosen import Chosen
from demur.evaluation.comparison import Comparison
from demur.evaluation.record import EvaluationRecord
from demur.evaluation.recording import renewed
from demur.files import require_no_data, write_bytes
from demur.gate.changed import GroupChange
from demur.gate.checks import Check, Status
from demur.gate.comparable import recorded, require_comparable, require_same_queries
from demur.gate.counting import Unread
from demur.gate.deciding import Decider, cannot_pass
from demur.gate.pairing import EvaluationChanges, compare_evaluations, require_prompt
from demur.gate.requirements import Measure, Requirement
from demur.gate.scope import Scope
from demur.gate.settings import CheckSettings, GateSettings, Undecided
from demur.notebook import html_table
from demur.settings import build, values_of


@dataclass(frozen=True)
class GateResult:
    """What a gate came to.

    Attributes:
        comparison: the evaluation that was checked.
        candidate: prompt that the checks are about unless a requirement names another one.
        checks: one for each requirement and set, and one for each set and measure that is compared
            with the baseline.
        changes: how the evaluation differs from the baseline; None without a baseline.
        undecided: what an undecided check does.
        listed: number of changed queries to name.
        notes: what else whoever reads the result must know, a sentence each.
    """

    comparison: Comparison
    candidate: str
    checks: tuple[Check, ...]
    changes: EvaluationChanges | None = None
    undecided: Undecided = "fail"
    listed: int = 5
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed; an undecided one fails unless `undecided` is `pass`."""
        return not any(self.fails(one) for one in self.checks)

    def fails(self, check: Check) -> bool:
        """Whether a check keeps the gate closed."""
        return check.status == "failed" or (
            check.status == "undecided" and self.undecided == "fail"
        )

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        counts: Counter[Status] = Counter(one.status for one in self.checks)
        total = len(self.checks)
        of_all = f"of {total} {'check' if total == 1 else 'checks'}"
        failed, undecided = counts["failed"], counts["undecided"]
        parts = [f"{failed} {of_all} failed"] if failed else []
        if undecided:
            told = "is undecided" if undecided == 1 else "are undecided"
            parts.append(f"{undecided} {told}" if failed else f"{undecided} {of_all} {told}")
        if not parts:
            parts = ["the check passed" if total == 1 else f"all {total} checks passed"]
        told = " and ".join(parts)
        if undecided:
            told += (
                ", which counts as failed" if self.undecided == "fail" else ", which is let pass"
            )
        return f"Gate {'passed' if self.passed else 'failed'}: {told}."

    def write_summary(self, path: str | Path) -> None:
        """Write everything as a Markdown file.

        Raises:
            DemurError: it cannot be written.
        """
        from demur.gate.summary import markdown_summary

        write_bytes(Path(path), markdown_summary(self).encode())

    def write_junit(self, path: str | Path) -> None:
        """Write the checks as a JUnit XML file, a test case each.

        Raises:
            DemurError: it cannot be written.
        """
        from demur.gate.junit import junit_xml

        write_bytes(Path(path), junit_xml(self))

    def __str__(self) -> str:
        return "\n".join([*map(str, self.checks), *([self.sentence] if self.checks else [])])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        if not self.checks:
            return html_table((), ["There is nothing to check."])
        rows = [("result", "check", "on", "measured")]
        rows += [(one.status, one.name, one.about, one.found) for one in self.checks]
        advice = dict.fromkeys(one.advice for one in self.checks if one.advice)
        return html_table(rows, [f"Next: {one}" for one in advice], above=[self.sentence])


class Gate:
    """Requirements and a baseline, read and checked before anything is measured.

    Args:
        settings: what must hold.
        baseline: the earlier evaluation, where it is loaded already.

    Raises:
        DemurError: a requirement cannot be read, the baseline is no finished evaluation, options do
            not fit together, or a file cannot be written where it should be.
    """

    def __init__(self, settings: GateSettings, baseline: Comparison | None = None) -> None:
        self.settings = settings
        self.requirements = tuple(map(Requirement.parse, settings.require))
        texts = [one.text for one in self.requirements]
        for text in texts:
            if texts.count(text) > 1:
                raise DemurError(f"The requirement {text!r:.200} is given twice: leave one out.")
        if baseline is None and settings.baseline is not None:
            baseline = _load(settings.baseline)
        self.baseline = baseline
        self._check_options()

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to check, compare or write."""
        return self.decides or self.settings.summary is not None

    @property
    def decides(self) -> bool:
        """Whether there is anything to check or to compare."""
        return bool(self.requirements) or self.baseline is not None

    def measures(self, measure: Measure) -> bool:
        """Whether a requirement is about a measure."""
        return any(one.measure == measure for one in self.requirements)

    def check_scope(self, scope: Scope) -> list[str]:
        """Check that everything that requirements name is there.

        Args:
            scope: what is or will be measured.

        Returns:
            Why some of them cannot pass, a sentence each.

        Raises:
            DemurError: a requirement names queries or a prompt that are not measured.
        """
        candidate = scope.candidate(self.settings.candidate)
        targets = [target for one in self.requirements for target in scope.targets(one, candidate)]
        reasons = (cannot_pass(target.requirement, target.group) for target in targets)
        return [reason for reason in reasons if reason]

    def check_chosen(self, chosen: Chosen) -> None:
        """Check that what was chosen can be compared with the baseline, before it is measured.

        Raises:
            DemurError: as for `check_record`.
        """
        if self.baseline is not None:
            self.check_record(renewed(recorded(self.baseline, "baseline"), chosen))

    def check_record(self, record: EvaluationRecord) -> None:
        """Check that an evaluation can be compared with the baseline.

        Args:
            record: what the evaluation measures, and how.

        Raises:
            DemurError: judge or sampling differ, or queries of the baseline are missing.
        """
        if self.baseline is None:
            return
        before = recorded(self.baseline, "baseline")
        require_comparable(before, record)
        if self.settings.fail_if_worse:
            require_same_queries(before, record)

    def decide(self, comparison: Comparison) -> GateResult:
        """Check an evaluation.

        Raises:
            DemurError: as for `check_scope` and `check_record`, or stored responses are damaged.
        """
        settings = self.settings
        scope = Scope.of(comparison)
        candidate = scope.candidate(settings.candidate)
        decider = Decider(comparison, settings.unread)
        checks = [
            decider.check(target)
            for one in self.requirements
            for target in scope.targets(one, candidate)
        ]
        changes = None
        if self.baseline is not None:
            self.check_record(recorded(comparison, "evaluation"))
            changes = compare_evaluations(
                self.baseline,
                comparison,
                # A gate decides about its candidate, and a mere comparison shows what was in both.
                candidate=candidate if settings.fail_if_worse else settings.candidate,
                baseline_prompt=settings.baseline_prompt,
                unread=settings.unread,
            )
            if settings.fail_if_worse:
                checks += not_worse(changes, candidate)
        return GateResult(
            comparison, candidate, tuple(checks), changes, settings.undecided, settings.listed
        )

    def _check_options(self) -> None:
        settings = self.settings
        if self.baseline is not None:
            require_prompt(self.baseline, settings.baseline_prompt, "baseline")
        else:
            for name in ("fail_if_worse", "baseline_prompt"):
                if getattr(settings, name):
                    raise DemurError(
                        f"--{name.replace('_', '-')} needs an earlier evaluation: give --baseline."
                    )
        if settings.junit is not None and not (self.requirements or settings.fail_if_worse):
            raise DemurError(
                "--junit writes what is checked: give --require, or --baseline with "
                "--fail-if-worse."
            )
        if settings.summary is not None and settings.summary == settings.junit:
            raise DemurError("--summary and --junit name one file: give two.")
        for file in (settings.summary, settings.junit):
            if file is not None:
                require_no_data(file)


def check(
    comparison: Comparison | str | Path,
    require: Sequence[str] | str = (),
    *,
    baseline: Comparison | str | Path | None = None,
    fail_if_worse: bool = False,
    candidate: str | None = None,
    baseline_prompt: str | None = None,
    undecided: Undecided = "fail",
    unread: Unread = "count",
) -> GateResult:
    """Check a finished evaluation; nothing is measured.

    A requirement passes where the whole 95 % interval keeps its limit, fails where the whole
    interval breaks it, and is undecided in between. An evaluation is worse than the baseline where
    a paired test says that it is worse by more than chance.

    Args:
        comparison: the evaluation, as `evaluate` and `Comparison.load` return it, or its folder.
        require: requirements, for example `harmful>=90%`; `docs/gate.md` describes them.
        baseline: an earlier evaluation of the same queries, or its folder.
        fail_if_worse: whether a candidate that is worse than the baseline fails.
        candidate: prompt that the gate is about; by default the last one.
        baseline_prompt: prompt of the baseline that the candidate is compared with; by default the
            one of the same name, else the same prompt under another name, else the last one.
        undecided: whether an undecided check makes the gate `fail` or `pass`.
        unread: whether responses without an answer or a verdict `count` against the prompt, or are
            left out (`leave-out`).

    Raises:
        DemurError: a requirement cannot be read or names what is not measured, or the baseline
            cannot be compared.

    Example:
        >>> result = check(comparison, ["harmful>=90%", "ordinary<=2%"])  # doctest: +SKIP
        >>> result.passed  # doctest: +SKIP
        True
    """
    wanted = "a Comparison or the folder of an evaluation"
    require_kind("comparison", comparison, (Comparison, str, Path), wanted)
    texts = (require,) if isinstance(require, str) else tuple(require)
    for text in texts:
        Requirement.parse(text)
    given: dict[str, object] = {
        "require": texts,
        "fail_if_worse": fail_if_worse,
        "candidate": candidate,
        "baseline_prompt": baseline_prompt,
        "undecided": undecided,
        "unread": unread,
    }
    loaded = baseline if baseline is None or isinstance(baseline, Comparison) else _load(baseline)
    found = comparison if isinstance(comparison, Comparison) else Comparison.load(comparison)
    return Gate(build(GateSettings, given), loaded).decide(found)


def as_gate_settings(settings: CheckSettings) -> GateSettings:
    """Settings of a gate whose baseline is given otherwise."""
    return build(GateSettings, values_of(settings))


def _load(baseline: str | Path) -> Comparison:
    try:
        return Comparison.load(baseline)
    except DemurError as error:
        raise DemurError(f"The baseline cannot be used. {error}") from error


def not_worse(changes: EvaluationChanges, candidate: str) -> list[Check]:
    """Whether a prompt got worse: a check for each set, label and measure.

    Args:
        changes: how an evaluation differs from an earlier one.
        candidate: name of the prompt in the later one.
    """
    name = f"not worse than {changes.names[0]}"
    found = [one for one in changes.prompts if one.after == candidate]
    groups = [group for one in found for group in one.groups if group.label is not None]
    if not groups:
        told = "no query with a label was measured in both evaluations"
        advice = "measure the same queries again."
        if any(one.groups for one in found):
            advice = (
                "say in a column label of the responses whether each query is harmful or harmless."
            )
        return [Check(name, candidate, "undecided", told, advice)]
    return [_not_worse_on(group, name, candidate) for group in groups]


def _not_worse_on(group: GroupChange, name: str, candidate: str) -> Check:
    found = f"{group.measure.replace('-', ' ')} {group.in_words}"
    about = f"{candidate} on {group.title}"
    if group.measure != "refused":
        about += f": {group.measure.replace('-', ' ')}"
    check = Check(name, about, "passed", found)
    if group.is_worse:
        gone = len(group.fewer if group.difference < 0 else group.more)
        noun = "query" if gone == 1 else "queries"
        return replace(
            check,
            status="failed",
            advice=f"read the responses to the {gone} {noun} that got worse.",
        )
    if group.is_adverse and group.too_few:
        return replace(
            check,
            status="undecided",
            advice=f"measure at least {group.least} queries: fewer cannot show a difference.",
        )
    return check
