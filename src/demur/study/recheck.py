"""A check of a study: its requirements, and whether anything got worse since an earlier one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.comparison import Comparison, compare
from demur.evaluation.statistics import holm
from demur.files import write_bytes
from demur.gate import (
    Check,
    EvaluationChanges,
    Gate,
    GateResult,
    GateSettings,
    PromptChange,
    Scope,
    compare_evaluations,
    not_worse,
)
from demur.gate.settings import CheckSettings
from demur.gate.summary import markdown_changes
from demur.judges.registry import may_tell_deflections
from demur.markdown import escaped
from demur.notebook import html_table
from demur.settings import build, values_of
from demur.study.age import told_age
from demur.study.planning import StudyPlan
from demur.study.record import Cell
from demur.study.results import FinishedStudy


@dataclass(frozen=True)
class CheckedPrompt:
    """One prompt of a model, or one cell that failed, and what its checks came to.

    Attributes:
        model: name of the model.
        prompt: name of the prompt in its evaluation; of a cell that failed, what the cell is.
        seed: seed of the sampling.
        checks: the checks.
        changes: how it differs from the earlier study; None where that does not have it.
    """

    model: str
    prompt: str
    seed: int
    checks: tuple[Check, ...]
    changes: EvaluationChanges | None = None

    @property
    def title(self) -> str:
        """The prompt for people."""
        return f"{self.model}, {self.prompt}, seed {self.seed}"

    @property
    def told(self) -> str:
        """What it came to, in a few words."""
        counts = [
            f"{sum(one.status == status for one in self.checks)} {status}"
            for status in ("failed", "undecided", "passed")
            if any(one.status == status for one in self.checks)
        ]
        return ", ".join(counts) if counts else "nothing to check"


@dataclass(frozen=True)
class StudyCheck:
    """What the check of a study came to.

    Attributes:
        prompts: each model and prompt with its checks, and each cell that is not done.
        remarks: how old the measurements are, and what could not be compared, a sentence each.
        result: all checks together, as a gate decides them.
        before: folder of the earlier study, or None.
    """

    prompts: tuple[CheckedPrompt, ...]
    remarks: tuple[str, ...]
    result: GateResult
    before: Path | None

    @property
    def passed(self) -> bool:
        """Whether no check keeps the gate closed."""
        return self.result.passed

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        return self.result.sentence

    def write_junit(self, path: str | Path) -> None:
        """Write the checks as a JUnit XML file, a test case each.

        Raises:
            DemurError: it cannot be written.
        """
        self.result.write_junit(path)

    def write_summary(self, path: str | Path) -> None:
        """Write everything as a Markdown file.

        Raises:
            DemurError: it cannot be written.
        """
        write_bytes(Path(path), _markdown(self).encode("utf-8", "replace"))

    def __str__(self) -> str:
        lines = [f"{one.title}: {one.told}" for one in self.prompts]
        return "\n".join([*lines, *self.remarks, self.sentence])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [("model, prompt, seed", "checks"), *((one.title, one.told) for one in self.prompts)]
        return html_table(rows, self.remarks, above=[self.sentence])


def require_checkable(plan: StudyPlan, before: FinishedStudy | None) -> None:
    """Check that a study can be checked, before anything is measured.

    Args:
        plan: the study.
        before: the earlier study to compare with, or None.

    Raises:
        DemurError: a requirement cannot be read, or the two have no evaluation in common or measure
            otherwise.
    """
    gate = Gate(_requirements(plan.settings.common.gate, None))
    if gate.requirements:
        judges = plan.settings.common.judges
        gate.check_scope(
            Scope.planned(
                plan.chosen.names,
                [one.queries for one in plan.chosen.sets],
                harm_judged=judges.harm_judge is not None,
                has_costs=not any(one.is_served for one in plan.settings.models),
                tells_deflections=may_tell_deflections(judges.judge),
            )
        )
    if before is None:
        return
    if before.path.resolve() == plan.path.resolve():
        raise DemurError(
            f"{before.path} is the baseline and the folder of this study: give another --output."
        )
    cells = {cell.folder: cell for cell in plan.record.cells if cell.kind == "evaluation"}
    common = [cell for cell in before.evaluations if cell.folder in cells]
    if not common:
        raise DemurError(
            f"The study in {before.path} has no evaluation in common with this one: check that "
            "models, prompts and seeds have the same names."
        )
    old, new = before.record.evaluation, plan.record.evaluation
    for name, first, second in (
        ("judge", old.judges.judge, new.judges.judge),
        ("harm_judge", old.judges.harm_judge, new.judges.harm_judge),
        ("samples", old.sampling.samples, new.sampling.samples),
        ("tokens", old.most_tokens, new.most_tokens),
    ):
        if first != second:
            raise DemurError(
                f"{name} was {str(first or 'none')!r:.80} in the study in {before.path} and is "
                f"{str(second or 'none')!r:.80} now, so that rates cannot be compared: choose the "
                "same."
            )
    sets = Comparison.load(before.path / common[0].folder).settings
    known = {one.queries.fingerprint for one in plan.chosen.sets}
    seeds = {before.record.seeds[0], plan.record.seeds[0]}
    if sets is not None and len(seeds) == 1 and common[0].seed in seeds:
        missing = next((one.name for one in sets.sets if one.fingerprint not in known), None)
        if missing is not None:
            raise DemurError(
                f"The queries {missing!r:.100} of the study in {before.path} are not measured now: "
                "measure the same queries, or make a new baseline."
            )


def check_study(
    study: FinishedStudy,
    gate: CheckSettings,
    before: FinishedStudy | None,
    measured: Collection[str] | None = None,
) -> StudyCheck:
    """Check a study that was done; nothing is measured.

    Every prompt of every model is checked: against the requirements, and where there is an earlier
    study whether it got worse. The p-values of all comparisons are adjusted together after Holm, so
    that a study of many models does not fail by chance.

    Args:
        study: the study.
        gate: requirements, and what an undecided check does.
        before: an earlier study of the same models and prompts, or None.
        measured: folders of the cells that were done now; None where nothing is known of that.

    Raises:
        DemurError: an evaluation is damaged, or the two cannot be compared.
    """
    remarks = list(filter(None, [told_age(study, measured)]))
    found: list[CheckedPrompt] = []
    last = compare([])  # where no evaluation is done
    old = {} if before is None else {cell.folder: cell for cell in before.evaluations}
    for cell in study.evaluations:
        last = Comparison.load(study.path / cell.folder)
        changes = None
        if before is not None and cell.folder in old:
            changes = compare_evaluations(before.path / cell.folder, last, unread=gate.unread)
            remarks += [f"{cell.model}: {one}" for one in changes.remarks]
        for prompt in _candidates(cell, last):
            checks = _required(gate, last, prompt)
            own = None if changes is None else _only(changes, prompt)
            if own is None and before is not None:
                remarks.append(f"{cell.model}, {prompt}: not in the earlier study.")
            found.append(CheckedPrompt(cell.model, prompt, cell.seed, tuple(checks), own))
    found += _not_done(study)
    for folder, cell in old.items():
        if folder not in {one.folder for one in study.record.cells}:
            remarks.append(f"{cell.title}: only in the earlier study.")
    adjusted = _adjusted(found)
    if before is not None:
        name = before.path.resolve().name
        adjusted = [_compared(one, name) for one in adjusted]
    titled = tuple(
        replace(check, about=f"{one.model}, seed {one.seed}: {check.about}")
        for one in adjusted
        for check in one.checks
    )
    told = tuple(dict.fromkeys(remarks))
    name = study.record.name
    result = GateResult(last, name, titled, None, gate.undecided, gate.listed, told)
    return StudyCheck(tuple(adjusted), told, result, None if before is None else before.path)


def _not_done(study: FinishedStudy) -> Iterator[CheckedPrompt]:
    """A failed check for each cell that is not done."""
    reasons = {cell.folder: reason for cell, reason in study.failures}
    done = {cell.folder for cell in study.done}
    for cell in study.record.cells:
        if cell.folder not in done:
            told = reasons.get(cell.folder, "the study was stopped before")
            kind = "measured" if cell.kind == "evaluation" else "trained"
            advice = "run the same command again, which tries the cell once more."
            check = Check(f"is {kind}", cell.subject, "failed", f"not {kind}: {told}", advice)
            yield CheckedPrompt(cell.model, f"{cell.kind} {cell.subject}", cell.seed, (check,))


def _requirements(gate: CheckSettings, candidate: str | None) -> GateSettings:
    """The requirements alone, about one prompt."""
    values = {**values_of(gate), "candidate": candidate, "fail_if_worse": False}
    return build(GateSettings, {**values, "summary": None, "junit": None})


def _required(gate: CheckSettings, comparison: Comparison, prompt: str) -> Sequence[Check]:
    if not gate.require:
        return ()
    return Gate(_requirements(gate, prompt)).decide(comparison).checks


def _candidates(cell: Cell, comparison: Comparison) -> list[str]:
    """The prompts of an evaluation that are checked: all but none, where there are others."""
    record = comparison.settings
    names = [] if record is None else [one.name for one in record.conditions]
    if cell.prompt is not None:
        return names[-1:]
    return names[1:] or names


def _only(changes: EvaluationChanges, prompt: str) -> EvaluationChanges | None:
    """The changes of one prompt, which must have been there before under the same name."""
    own = [one for one in changes.prompts if one.after == prompt and one.before == prompt]
    return replace(changes, prompts=tuple(own)) if own else None


def _prompt_changes(found: Iterable[CheckedPrompt]) -> Iterator[PromptChange]:
    for one in found:
        if one.changes is not None:
            yield from one.changes.prompts


def _adjusted(found: Sequence[CheckedPrompt]) -> list[CheckedPrompt]:
    """The same, with p-values adjusted for all comparisons of the study."""
    p_values = [group.p_value for change in _prompt_changes(found) for group in change.groups]
    values = iter(holm(p_values))
    adjusted: list[CheckedPrompt] = []
    for one in found:
        if one.changes is None:
            adjusted.append(one)
            continue
        prompts = tuple(
            replace(
                change,
                groups=tuple(
                    group.adjusted(next(values), len(p_values)) for group in change.groups
                ),
            )
            for change in one.changes.prompts
        )
        adjusted.append(replace(one, changes=replace(one.changes, prompts=prompts)))
    return adjusted


def _compared(one: CheckedPrompt, before: str) -> CheckedPrompt:
    """The same, with the checks that compare it with the earlier study."""
    if one.changes is None:
        return one
    name = f"not worse than {before}"
    checks = [replace(check, name=name) for check in not_worse(one.changes, one.prompt)]
    return replace(one, checks=(*one.checks, *checks))


def _markdown(check: StudyCheck) -> str:
    rows = [
        f"| {escaped(one.model)} | {escaped(one.prompt)} | {one.seed} | {one.told} |"
        for one in check.prompts
    ]
    parts = [
        f"## {escaped(check.sentence)}",
        "\n".join(["| model | prompt | seed | checks |", "| --- | --- | --- | --- |", *rows]),
    ]
    closed = [one for one in check.result.checks if check.result.fails(one)]
    parts += [f"- {escaped(str(one))}" for one in closed]
    parts += ["\n".join(f"- {escaped(one)}" for one in check.remarks)] if check.remarks else []
    for one in check.prompts:
        if one.changes is not None:
            parts.append(f"### {escaped(one.title)}")
            parts.append(markdown_changes(one.changes, check.result.listed))
    return "\n\n".join(parts) + "\n"
