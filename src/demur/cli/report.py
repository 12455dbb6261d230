"""`demur report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from demur.cli.command import Command
from demur.cli.screen import show_path
from demur.cli.work import require_finished


class ReportOptions(BaseModel):
    """What a report shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folders: tuple[Path, ...] = Field(
        min_length=1,
        description="folders of finished runs, diagnoses, evaluations and attacks",
        json_schema_extra={"argument": True},
    )
    output: Path | None = Field(
        default=None,
        description="file to write",
        json_schema_extra={
            "default": "report.html in the folder; demur-report.html here for several folders"
        },
    )


def run_report(options: ReportOptions) -> None:
    """Write the report and say where it is."""
    from demur.records import kind_of
    from demur.report import write_report

    for folder in map(Path, options.folders):
        require_finished(folder, kind_of(folder, finished=True))
    show_path("Open in a browser:", write_report(options.folders, options.output))


REPORT = Command(
    verb="report",
    settings=ReportOptions,
    run=run_report,
    help="""Write one HTML file that shows runs, diagnoses, evaluations and attacks side by side.

    The file works offline in any browser and sends no requests.""",
)
