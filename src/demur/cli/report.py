"""`demur report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from demur.cli.command import Command
from demur.cli.screen import show_path
from demur.cli.work import require_finished
from demur.errors import DemurError


class ReportOptions(BaseModel):
    """What a report shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folders: tuple[Path, ...] = Field(
        min_length=1,
        description="folders of finished runs, diagnoses, evaluations and attacks, or of one study",
        json_schema_extra={
            "argument": True,
            "missing": "demur report takes folders of results; demur show lists what is here",
        },
    )
    output: Path | None = Field(
        default=None,
        description="file to write",
        json_schema_extra={
            "default": "report.html in the folder; demur-report.html here for several folders"
        },
    )
    full: bool = Field(
        default=False,
        description="put the text of answers to harmful queries into the page, folded; without it "
        "they are redacted",
    )


def run_report(options: ReportOptions) -> None:
    """Write the report and say where it is."""
    from demur.records import kind_of

    kinds = {folder: kind_of(folder, finished=True) for folder in map(Path, options.folders)}
    for folder, kind in kinds.items():
        require_finished(folder, kind)
        if kind == "study" and (len(kinds) > 1 or options.output is not None):
            raise DemurError(
                f"{folder} is a study, whose pages lie in its folder: give it alone, without "
                "--output."
            )
        if kind == "study" and options.full:
            raise DemurError(
                f"The pages of a study are always redacted: give the folder of one cell in {folder}"
                " with --full."
            )
    (first, kind), *_ = kinds.items()
    if kind == "study":
        show_path("Written. Open it in a browser:", _study_pages(first))
        return
    show_path("Written. Open it in a browser:", _page(options))


def _page(options: ReportOptions) -> Path:
    from demur.report import write_report

    return write_report(options.folders, options.output, full=options.full)


def _study_pages(folder: Path) -> Path:
    """Write the pages of a study again."""
    from demur.cli.stages import TerminalProgress
    from demur.study import FinishedStudy

    return FinishedStudy.load(folder).write(TerminalProgress())


REPORT = Command(
    verb="report",
    settings=ReportOptions,
    run=run_report,
    details="""
    The file works offline in any browser and loads nothing from the network. Answers to harmful
    queries are redacted; with --full they are in the file, folded. For a study, all tables, figures
    and pages in its folder are written again.""",
)
