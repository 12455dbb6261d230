"""What a gate came to, as a person reads it, and the exit status that follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

from demur.cli.screen import new_table, one_line, printable, short_name, show_line, with_notes
from demur.cli.tables import RIGHT, WRONG, name_text
from demur.gate.settings import GateSettings
from demur.records import NO_PROMPT, transcript_of

if TYPE_CHECKING:
    from demur.evaluation.answerers.protocol import Answerer
    from demur.evaluation.choices import TestSet
    from demur.evaluation.chosen import CheckChosen
    from demur.evaluation.comparison import Comparison
    from demur.evaluation.settings import EvaluateSettings
    from demur.gate import (
        Changed,
        Check,
        EvaluationChanges,
        Gate,
        GateResult,
        GroupChange,
        PromptChange,
    )
    from demur.gate.costs import CostChange
    from demur.progress import Progress
    from demur.prompts import Condition

FAILED = 1
"""Exit status of a command whose gate failed."""

_STYLES = {"passed": "green", "failed": "red", "undecided": "yellow"}
_LONGEST_QUERY = 100
_LONGEST_TITLE = 80  # columns


def gate_of(settings: GateSettings, baseline: Comparison | None = None) -> Gate:
    """The gate that settings ask for, checked.

    Raises:
        DemurError: a requirement or the baseline cannot be read, or options do not fit together.
    """
    from demur.gate import Gate

    return Gate(settings, baseline)


def check_early(
    gate: Gate,
    answerer: Answerer | None,
    settings: EvaluateSettings,
    progress: Progress,
) -> CheckChosen:
    """A check of what requirements name, before any model is loaded.

    Args:
        gate: the gate.
        answerer: what will answer; None for a model that runs here, which is slow to load.
        settings: what is evaluated.
        progress: told which requirements cannot pass.
    """

    def check(
        conditions: Sequence[Condition], names: Sequence[str], sets: Sequence[TestSet]
    ) -> None:
        from demur.evaluation.answerers.files import ResponseFiles
        from demur.evaluation.chosen import named_for
        from demur.gate import Scope
        from demur.gate.files import scope_of_files

        if not gate.decides:
            return
        harm_judged = settings.judges.harm_judge is not None
        tells = _tells_deflections(settings.judges.judge, gate)
        if isinstance(answerer, ResponseFiles):
            scope = scope_of_files(
                answerer, progress, harm_judged=harm_judged, tells_deflections=tells
            )
        else:
            bare_name = NO_PROMPT if answerer is None else answerer.bare_name
            scope = Scope.planned(
                named_for(bare_name, conditions, names),
                [one.queries for one in sets],
                harm_judged=harm_judged,
                has_costs=answerer is None,
                tells_deflections=tells,
            )
        for remark in gate.check_scope(scope):
            progress.message(remark)

    return check


def _tells_deflections(judge: str, gate: Gate) -> bool:
    """Whether a judge tells deflections; one of the user's own is made only where that matters."""
    from demur.judges import as_refusal_judge, three_way
    from demur.judges.registry import may_tell_deflections
    from demur.plugins import is_plugin_spec

    if not may_tell_deflections(judge) or not gate.measures("deflected"):
        return may_tell_deflections(judge)
    return not is_plugin_spec(judge) or three_way(as_refusal_judge(judge)) is not None


def show_gate(console: Console, gate: Gate, comparison: Comparison) -> GateResult | None:
    """Decide, print, and write the files that were asked for.

    Returns:
        What the gate came to; None where nothing was asked for.

    Raises:
        DemurError: stored responses are damaged, or a file cannot be written.
    """
    if not gate.is_asked:
        return None
    result = gate.decide(comparison)
    if result.changes is not None:
        print_changes(console, result.changes, result.listed)
    print_checks(console, result)
    written = (
        (gate.settings.summary, result.write_summary),
        (gate.settings.junit, result.write_junit),
    )
    for file, write in written:
        if file is not None:
            write(file)
            console.print(Text(f"Written: {printable(str(file))}"), soft_wrap=True)
    return result


def leave(result: GateResult | None) -> None:
    """End the command with status 1 where the gate failed."""
    if result is not None and not result.passed:
        raise typer.Exit(FAILED)


def print_checks(console: Console, result: GateResult) -> None:
    """Print a line for each check, the result, and what to do next."""
    if not result.checks:
        return
    console.print()
    width = max(len(one.status) for one in result.checks)
    for one in result.checks:
        line = Text(one.status.ljust(width), style=_STYLES[one.status])
        line.append(f"  {printable(one.name)}: ", style="bold")
        line.append(f"{printable(one.about)}: {printable(one.found)}", style="default")
        show_line(line, console, width + 2)
    style = "green" if result.passed else "red"
    console.print(Text(printable(result.sentence), style=f"bold {style}"))
    _print_next(console, [one for one in _closing(result) if one.advice])


def _print_next(console: Console, checks: Sequence[Check]) -> None:
    """Print what to do next: one line, or under one heading a line for each check."""
    found = {one.advice: one for one in checks}
    if len(found) > 1:
        console.print("Next:")
    for advice, one in found.items():
        opening = "Next: " if len(found) == 1 else f"  {printable(one.name)}: "
        show_line(Text(f"{opening}{printable(advice)}"), console, 4 if len(found) > 1 else 0)


def print_changes(console: Console, changes: EvaluationChanges, listed: int) -> None:
    """Print how two evaluations differ, and which queries changed.

    Args:
        console: where to print.
        changes: the changes.
        listed: number of queries to name, of each set and direction.
    """
    console.print()
    changed = [one for one in changes.prompts if not one.is_same]
    for one in changed:
        console.print(_table(one, changes))
        for group in one.groups:
            _print_queries(console, group, listed)
    if changes.costs:
        console.print(costs_table(changes.names, changes.costs))
    for remark in changes.remarks:
        console.print(Text(printable(remark)))
    for one in changes.prompts:
        console.print(Text(f"{_pair(one)}: {printable(one.sentence)}"))


def _closing(result: GateResult) -> list[Check]:
    """The checks that keep the gate closed."""
    return [one for one in result.checks if result.fails(one)]


def _table(one: PromptChange, changes: EvaluationChanges) -> Group:
    title, names = _compared(_pair(one), changes.names)
    table = new_table(title)
    table.add_column("queries", overflow="fold")
    for name in ("before", "after", "points", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for group in one.groups:
        title = f"{short_name(group.title)} ({group.before.queries})"
        if group.measure != "refused":
            title += f", {group.measure.replace('-', ' ')}"
        table.add_row(Text(title), *group.cells, Text(group.told, style=_style(group)))
    return with_notes(
        table,
        [
            *names,
            "refused, unless it says otherwise; p of the paired test, adjusted for all tests of "
            "this prompt (Holm)",
            changes.judged,
        ],
    )


def costs_table(names: tuple[str, str], costs: Sequence[CostChange]) -> Group:
    """What prompts cost, before and after.

    Args:
        names: names of the two folders.
        costs: how the costs changed.
    """
    from demur.gate.costs import APART

    title, where = _compared("Cost on harmless queries", names)
    table = new_table(title)
    table.add_column("", overflow="fold")
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    shown = ""
    for one in costs:
        title = f"{short_name(one.prompt)}, {short_name(one.set)}"
        if title != shown:
            table.add_section()
            table.add_row(Text(title, style="bold"))
        style = "" if one.is_worse is None else WRONG if one.is_worse else RIGHT
        table.add_row(one.figure, one.before, one.after, Text(one.told, style=style))
        shown = title
    return with_notes(table, [*where, f"in brackets: 95 % intervals; {APART}"])


def _compared(what: str, names: tuple[str, str]) -> tuple[str, list[str]]:
    """The title of a table of two folders, and notes with their names where they are too long."""
    before, after = names
    title = f"{what}: {after} compared with {before}"
    if cell_len(title) <= _LONGEST_TITLE:
        return title, []
    return f"{what}, before and after", [f"before: {before}", f"after: {after}"]


def _style(group: GroupChange) -> str:
    return {"worse": WRONG, "better": RIGHT}.get(group.told, "")


def _print_queries(console: Console, group: GroupChange, listed: int) -> None:
    verb = group.verb
    for found, words in (
        (group.more, f"{verb} now or more often"),
        (group.fewer, f"{verb} no longer or less often"),
    ):
        if not found or not listed:
            continue
        head = f"{short_name(group.title)}: {len(found)} of {group.before.queries} {words}"
        console.print(Text(head, style="bold"))
        for one in found[:listed]:
            show_line(Text(f"  {_query(one)}"), console, 4)
        if len(found) > listed:
            console.print(f"  {len(found) - listed} more (--listed)")


def _query(one: Changed) -> str:
    return f"{one_line(transcript_of(one.query), _LONGEST_QUERY)} ({one.in_words})"


def _pair(one: PromptChange) -> str:
    after, before = name_text(one.after).plain, name_text(one.before).plain
    return after if before == after else f"{after}, before {before}"
