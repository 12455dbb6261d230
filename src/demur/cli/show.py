"""`demur show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import console


def show_command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run or evaluation.")],
) -> None:
    """Print the results of a run or an evaluation again."""
    from demur.evaluation.comparison import RESULTS, Comparison

    if (run / RESULTS).is_file():
        from demur.cli.comparison import print_comparison

        print_comparison(console, Comparison.load(run))
        return
    from demur.cli.tables import print_run
    from demur.optimization import Run

    print_run(console, Run.load(run))
