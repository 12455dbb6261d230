"""`demur study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.text import Text

from demur.cli.command import Command
from demur.cli.screen import (
    console,
    new_table,
    one_line,
    print_again,
    printable,
    short_name,
    show_path,
    with_notes,
)
from demur.cli.stages import TerminalProgress, duration
from demur.errors import DemurError

if TYPE_CHECKING:
    from demur.study import FinishedStudy, StudyPlan

FAILED = 1
"""Exit status of a study in which a cell failed."""

HELP = """Train and measure every combination of models, prompts, methods and seeds.

The file says what there is; `docs/study.md` describes it. The same command goes on where an earlier
one stopped, after a kill as well, and does only what is missing. A cell that fails does not stop
the others; the exit status is 1 then.

With --plan, the grid is checked and printed with what it costs, and nothing is done. With --report,
tables, figures and pages are made again from what is stored, without a model."""


class StudyOptions(BaseModel):
    """Which study, and what to do of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Path = Field(
        description="TOML file of the study; with --report its folder will do",
        json_schema_extra={"argument": True},
    )
    output: Path | None = Field(
        default=None,
        description="folder of the study; the same folder goes on",
        json_schema_extra={"default": "one in demur-studies, named after the file"},
    )
    plan: bool = Field(
        default=False, description="print the cells with what they cost, and do nothing"
    )
    report: bool = Field(
        default=False, description="write tables, figures and pages again, and do nothing else"
    )


def run_study(options: StudyOptions) -> None:
    """Do the study and print what came of it."""
    from demur.study import FinishedStudy, Study, do_study

    progress = TerminalProgress()
    if options.plan and options.report:
        raise DemurError("--plan and --report exclude each other: leave one out.")
    if options.report:
        finished = FinishedStudy.load(folder_of(options))
        finished.write(progress)
        print_study(console, finished)
        return
    plan = Study.load(options.study, options.output).plan(progress)
    if options.plan:
        print_plan(console, plan)
        return
    do_study(plan, progress)
    finished = FinishedStudy.load(plan.path)
    finished.write(progress, pages=False)
    print_study(console, finished)
    if finished.failures:
        raise typer.Exit(FAILED)


def folder_of(options: StudyOptions) -> Path:
    """The folder of a study, which is named itself or by the study's file.

    Raises:
        DemurError: the file cannot be read.
    """
    from demur.study import Study

    if options.study.is_dir():
        if options.output is not None:
            raise DemurError(f"{options.study} is the folder of a study: leave --output out.")
        return options.study
    return Study.load(options.study, options.output).path


def print_plan(console: Console, plan: StudyPlan) -> None:
    """Print the cells by model, kind and method, with what they cost."""
    cells, total = plan.record.cells, plan.cost
    table = new_table(f"{short_name(plan.record.name)}: {len(cells)} cells")
    table.add_column("model", overflow="fold")
    table.add_column("cells", no_wrap=True)
    for name in ("", "done", "responses", "trained on", "time left"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in plan.groups:
        table.add_row(
            Text(short_name(one.model, 24)),
            Text(f"{one.kind}s, {short_name(one.method, 12)}"),
            *(str(one.cells), str(one.done)),
            *(f"{one.cost.responses:,}", f"{one.cost.trained:,}"),
            "not known" if one.seconds is None else duration(one.seconds),
        )
    table.add_section()
    table.add_row(
        *("together", ""),
        *(str(len(cells)), str(len(cells) - len(plan.left))),
        *(f"{total.responses:,}", f"{total.trained:,}"),
        _together(plan),
    )
    notes = [
        f"responses: of the measurements that are left, with {total.tokens:,} tokens at most; "
        "what cells share counts once",
        "trained on: queries that the training reads over all epochs, about; methods sample more "
        "while they prepare",
        "time left: from cells of the same kind that are done; known once there is one",
    ]
    console.print(with_notes(table, notes))
    show_path("The results will be in:", plan.path)


def _together(plan: StudyPlan) -> str:
    known = [one.seconds for one in plan.groups]
    told = [one for one in known if one is not None]
    if len(told) < len(known):
        return "not known" if not told else f"{duration(sum(told))} and more"
    return duration(sum(told))


def print_study(console: Console, study: FinishedStudy) -> None:
    """Print the means, the ranks, where the results are, and the cells that failed."""
    from demur.study.formats import CAPTIONS, wide_tables

    console.print()
    for one in wide_tables(study.table):
        if one.caption == CAPTIONS["wrong at least once"]:
            continue  # it is in the files
        table = new_table(one.caption)
        for name in ("model", "prompt"):
            table.add_column(name, overflow="fold")
        for name in one.columns:
            table.add_column(Text(printable(name)), justify="right", overflow="fold")
        for model, arm, cells in one.rows:
            table.add_row(
                Text(short_name(model, 24)),
                Text(printable(arm.title)),
                *(Text(cell.replace(" to ", "-")) for cell in cells),
            )
        console.print(with_notes(table, [one.note]))
    if study.table.ranks:
        best = study.table.ranks[0]
        told = f"Best mean rank: {best.arm.title}, {best.mean:.2f} of {best.arms}."
        console.print(Text(printable(told)), soft_wrap=True)
    failures, count = study.failures, len(study.record.cells)
    for cell, reason in failures:
        line = Text("failed  ", style="red")
        line.append(printable(f"{cell.title}: {one_line(reason, 300)}"), style="default")
        console.print(line, soft_wrap=True)
    console.print(f"{len(study.done)} of {count} cells are done.")
    if failures:
        console.print("Run the same command again to try the failed cells once more.")
    print_again(console, study.path, "All responses, tables and figures")


STUDY = Command(verb="study", settings=StudyOptions, run=run_study, help=HELP)
