"""`demur show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import console


def show_command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
) -> None:
    """Print the results of a run again."""
    from demur.cli.tables import print_run
    from demur.optimization import Run

    print_run(console, Run.load(run))
