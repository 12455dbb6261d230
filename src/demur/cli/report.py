"""`demur report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import console, printable


def report_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished runs, diagnoses or evaluations.", metavar="DIR..."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file.",
            show_default="DIR/report.html, or demur-report.html here for several",
        ),
    ] = None,
) -> None:
    """Write one HTML file that shows runs, diagnoses and evaluations, side by side.

    It opens offline in any browser and asks nothing of any network.
    """
    from demur.report import write_report

    path = write_report(folders, output)
    console.print("Open in a browser:", highlight=False)
    console.print(printable(str(path)), style="bold", markup=False, highlight=False, soft_wrap=True)
