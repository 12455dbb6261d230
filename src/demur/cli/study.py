"""`demur study`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.padding import Padding
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
from demur.cli.tables import name_text
from demur.errors import DemurError
from demur.files import require_replaceable

if TYPE_CHECKING:
    from demur.study import FinishedStudy, RayCluster, StudyPlan
    from demur.study.recheck import StudyCheck

FAILED = 1
"""Exit status of a study in which a cell failed."""

DETAILS = """
The file says what there is; `docs/study.md` describes it. The same command goes on where an earlier
one stopped, after a kill as well, and does only what is missing. A cell that fails does not stop
the others; the exit status is 1 then.

With --plan, the grid is checked and printed with what it costs, and nothing is done. With --report,
tables, figures and pages are made again from what is stored, without a model.

With --ray, the cells are done on a Ray cluster; `docs/cluster.md` describes it. With --storage,
finished cells travel through a storage such as S3, so that no disk is shared, and another machine
goes on from there.

With --baseline, or requirements in the file, it is a gate: the exit status is 1 where a prompt of a
model got worse than in an earlier study, or breaks a requirement."""


class StudyGate(BaseModel):
    """Gate: exit status 1 where a check fails."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: Path | None = Field(
        default=None,
        description="folder of an earlier study of the same models and prompts to compare with",
    )
    summary: Path | None = Field(default=None, description="Markdown file to write")
    junit: Path | None = Field(default=None, description="JUnit XML file to write")


class StudyCluster(BaseModel):
    """Cluster: many cells at once, with demur[ray]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ray: bool = Field(
        default=False, description="do the cells with Ray, on all cores or GPUs of this machine"
    )
    ray_address: str | None = Field(
        default=None, description="address of a running Ray cluster, or auto, instead"
    )

    @property
    def runner(self) -> RayCluster | None:
        """What does the cells; None for this process.

        Raises:
            DemurError: Ray is not installed.
        """
        if not self.ray and self.ray_address is None:
            return None
        from demur.study import RayCluster

        return RayCluster(self.ray_address)


class StudyOptions(BaseModel):
    """Which study, and what to do of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Path = Field(
        description="TOML file of the study; with --report, its folder works too",
        json_schema_extra={"argument": True},
    )
    output: Path | None = Field(
        default=None,
        description="folder of the study; the same folder goes on",
        json_schema_extra={"default": "one in demur-studies, named after the file"},
    )
    storage: str | None = Field(
        default=None,
        description="URL of a folder that fsspec knows, for example s3://BUCKET/FOLDER: finished "
        "cells are stored there as well, and taken from there",
    )
    plan: bool = Field(
        default=False, description="print the cells and what they cost, without doing them"
    )
    report: bool = Field(
        default=False, description="write tables, figures and pages again, and do nothing else"
    )
    gate: StudyGate = Field(default_factory=StudyGate)
    cluster: StudyCluster = Field(default_factory=StudyCluster)


def run_study(options: StudyOptions) -> None:
    """Do the study and print what came of it."""
    from demur.study import FinishedStudy, Study, do_study
    from demur.study.age import measured_since
    from demur.study.recheck import check_study, require_checkable

    progress = TerminalProgress()
    if options.plan and options.report:
        raise DemurError("--plan and --report exclude each other: leave one out.")
    if (options.plan or options.report) and options.gate != StudyGate():
        raise DemurError("--plan and --report check nothing: leave the options of the gate out.")
    if (options.plan or options.report) and options.cluster != StudyCluster():
        raise DemurError("--plan and --report do no cells: leave the options of the cluster out.")
    if options.report and options.storage is not None:
        raise DemurError("--report reads what is here: leave --storage out.")
    runner = options.cluster.runner
    if options.report:
        finished = FinishedStudy.load(folder_of(options))
        finished.write(progress)
        print_study(console, finished)
        return
    plan = Study.load(options.study, options.output, options.storage).plan(progress)
    if options.plan:
        require_checkable(plan, None)
        print_plan(console, plan)
        return
    chosen = plan.settings.common.gate
    place = options.gate.baseline
    before = None if place is None else FinishedStudy.load(place)
    decides = before is not None or bool(chosen.require)
    if not decides and options.gate != StudyGate():
        raise DemurError("There is nothing to check: give --baseline, or require in the file.")
    require_checkable(plan, before)
    files = {
        "summary": options.gate.summary or chosen.summary,
        "junit": options.gate.junit or chosen.junit,
    }
    for wanted in filter(None, files.values()):
        require_replaceable(wanted)
    with redirect_stdout(sys.stderr):  # Ray tells there of workers that are lost
        do_study(plan, progress, runner)
    finished = FinishedStudy.load(plan.path)
    finished.write(progress, pages=False)
    print_study(console, finished)
    passed = True
    if decides:
        check = check_study(finished, chosen, before, measured_since(plan, finished))
        print_check(console, check)
        for file, write in (
            (files["summary"], check.write_summary),
            (files["junit"], check.write_junit),
        ):
            if file is not None:
                write(file)
                show_path("Written:", file)
        passed = check.passed
    if finished.failures or not passed:
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
    table.padding = (0, 1, 0, 0)  # so that it fits into 80 columns
    table.add_column("cells", overflow="fold")
    for name in ("done", "responses", "trained", "time left"):
        table.add_column(name, justify="right", no_wrap=True)
    model = ""
    for one in plan.groups:
        if one.model != model:
            model = one.model
            table.add_row(Text(short_name(model, 32), style="bold"))
        table.add_row(
            Padding(name_text(f"{one.kind}s, {one.method}", 60), (0, 0, 0, 2)),
            f"{one.done} of {one.cells}",
            *(f"{one.cost.responses:,}", f"{one.cost.trained:,}"),
            "not known" if one.seconds is None else duration(one.seconds),
        )
    table.add_section()
    table.add_row(
        "together",
        f"{len(cells) - len(plan.left)} of {len(cells)}",
        *(f"{total.responses:,}", f"{total.trained:,}"),
        _together(plan),
    )
    notes = [
        f"responses: of the measurements that are left, with {total.tokens:,} tokens at most; "
        "what cells share counts once",
        "trained: queries that the training reads over all epochs, about; methods sample more "
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
    from demur.study.formats import CAPTIONS, rank_note, wide_tables

    console.print()
    for one in wide_tables(study.table):
        if one.caption == CAPTIONS["wrong at least once"]:
            continue  # it is in the files
        table = new_table(one.caption)
        table.add_column("prompt", overflow="fold")
        for name in one.columns:
            table.add_column(Text(printable(name)), justify="right", overflow="fold")
        before = ""
        for model, arm, cells in one.rows:
            if model != before:
                before = model
                table.add_row(Text(short_name(model, 32), style="bold"))
            table.add_row(
                Text(f"  {printable(arm.title)}"),
                *(Text(cell.replace(" to ", "-")) for cell in cells),
            )
        console.print(with_notes(table, [one.note]))
    if study.table.ranks:
        best = study.table.ranks[0]
        told = f"Best mean rank: {best.arm.title}, {best.mean:.2f} of {best.arms}."
        console.print(Text(printable(told)), soft_wrap=True)
    if note := rank_note(study.table):
        console.print(Text(printable(note), style="dim"), soft_wrap=True)
    failures, count = study.failures, len(study.record.cells)
    for cell, reason in failures:
        line = Text("failed  ", style="red")
        line.append(printable(f"{cell.title}: {one_line(reason, 800)}"), style="default")
        console.print(line, soft_wrap=True)
    console.print(f"{len(study.done)} of {count} cells are done.")
    if failures:
        console.print("Run the same command again to try the failed cells once more.")
    print_again(console, study.path, "All responses, tables and figures")


def print_check(console: Console, check: StudyCheck) -> None:
    """Print for each model and prompt what it came to, what failed, and the result."""
    console.print()
    for one in check.prompts:
        failed = any(map(check.result.fails, one.checks))
        line = Text("failed  " if failed else "passed  ", style="red" if failed else "green")
        line.append(printable(f"{one.title}: {one.told}"), style="default")
        console.print(line, soft_wrap=True)
        for single in one.checks:
            if check.result.fails(single):
                told = f"  {single.status}: {single.name}, {single.about}: {single.found}"
                console.print(Text(printable(told)), soft_wrap=True)
    for remark in check.remarks:
        console.print(Text(printable(remark), style="dim"), soft_wrap=True)
    style = "bold green" if check.passed else "bold red"
    console.print(Text(printable(check.sentence), style=style), soft_wrap=True)


STUDY = Command(verb="study", settings=StudyOptions, run=run_study, details=DETAILS)
