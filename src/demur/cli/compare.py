"""`demur compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from demur.cli.command import Command
from demur.cli.gate import costs_table, gate_of, leave, show_gate
from demur.cli.screen import console, show_command
from demur.cli.work import require_finished
from demur.errors import DemurError
from demur.gate.settings import CheckSettings
from demur.settings import command_line

if TYPE_CHECKING:
    from demur.evaluation.comparison import Comparison
    from demur.gate.costs import CostChange
    from demur.optimization import Run
    from demur.records import ModelRecord

DETAILS = """
It shows what changed, which queries are refused now and were not, and which no longer, and whether
that is more than chance. The two are never pooled. Nothing is measured. Of two runs it shows what
their prompts cost.

With --require and --fail-if-worse it is a gate: the exit status is 1 where a check fails."""


_TWO = (
    "demur compare takes two folders: two evaluations, the earlier one first, or two runs; "
    "demur show lists what is here"
)


class CompareOptions(BaseModel):
    """What is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: Path = Field(
        description="folder of the earlier evaluation, or of a run",
        json_schema_extra={"argument": True, "missing": _TWO},
    )
    after: Path = Field(
        description="folder of the later evaluation, or of another run",
        json_schema_extra={"argument": True, "missing": _TWO},
    )
    gate: CheckSettings = Field(default_factory=CheckSettings)


def run_compare(options: CompareOptions) -> None:
    """Print how two evaluations differ."""
    from demur.evaluation.comparison import Comparison
    from demur.gate import as_gate_settings
    from demur.records import kind_of

    folders = (options.before, options.after)
    kinds = [kind_of(folder, finished=True) for folder in folders]
    for folder, kind in zip(folders, kinds, strict=True):
        require_finished(folder, kind)
    if kinds == ["run", "run"]:
        _compare_runs(options)
        return
    _require_evaluations(folders, kinds)
    found = [Comparison.load(folder) for folder in folders]
    before, after = found
    gate = gate_of(as_gate_settings(options.gate), before)
    result = show_gate(console, gate, after)
    if result is not None and not result.checks:  # of checks it is said what to do next
        shown = [str(folder) for folder in folders]
        show_command("See both side by side in a browser with:", "report", shown)
    leave(result)


def _require_evaluations(folders: Sequence[Path], kinds: Sequence[str | None]) -> None:
    """Refuse folders of other work; what is no folder of work is refused where it is read.

    Raises:
        DemurError: one of them holds other work than an evaluation.
    """
    for folder, kind in zip(folders, kinds, strict=True):
        if kind is None or kind == "evaluation":
            continue
        fix = "give two evaluations, or two runs"
        if kind == "run":
            again = command_line("evaluate", ["--prompt", str(folder)])
            fix += f", or measure this one in an evaluation with `{again}`"
        article = "an" if kind[0] in "aeiou" else "a"
        raise DemurError(f"{folder} is the folder of {article} {kind}: {fix}.")


def _compare_runs(options: CompareOptions) -> None:
    """Print what the prompts of two runs cost, and how to compare their refusals.

    Raises:
        DemurError: options of the gate are given, or the runs have no cost in common.
    """
    from demur.gate.costs import cost_changes
    from demur.optimization import Run
    from demur.records import telling_names

    if options.gate != CheckSettings():
        raise DemurError(
            "Requirements are about evaluations: put both runs into one with demur evaluate "
            f"--prompt {options.before} --prompt {options.after}."
        )
    before, after = Run.load(options.before), Run.load(options.after)
    if before.path.resolve() == after.path.resolve():
        raise DemurError(f"{before.path} is compared with itself: give two runs.")
    old, new = before.comparison, after.comparison
    costs: tuple[CostChange, ...] = ()
    if _queries(old) == _queries(new) and _model(before) == _model(after):
        costs = cost_changes(old.costs, new.costs, zip(before.names, after.names, strict=True), {})
    console.print()
    if costs:
        first, second = telling_names((before.path, after.path))
        console.print(costs_table((first, second), costs))
    else:
        console.print(
            "The two runs differ in their model or their held-out queries, or their prompts cost "
            "the same: there is nothing to set side by side."
        )
    show_command(
        "Compare their refusals on the same queries with:",
        "evaluate",
        ["--prompt", str(options.before), "--prompt", str(options.after)],
    )


def _model(run: Run) -> ModelRecord:
    """The model of a run, whatever it is called."""
    return replace(run.settings.model, name="")


def _queries(comparison: Comparison) -> set[str]:
    return {one.key.queries for one in comparison.measured}


COMPARE = Command(verb="compare", settings=CompareOptions, run=run_compare, details=DETAILS)
