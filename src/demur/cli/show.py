"""`demur show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import console


def show_command(
    run: Annotated[
        Path, typer.Argument(help="The folder of a finished run, evaluation or diagnosis.")
    ],
) -> None:
    """Print the results of a run, an evaluation or a diagnosis again."""
    from demur.diagnosis.diagnosis import RESULT, Diagnosis
    from demur.evaluation.comparison import RESULTS, Comparison

    if (run / RESULT).is_file():
        from demur.cli.diagnosis import print_diagnosis

        print_diagnosis(console, Diagnosis.load(run))
        return

    if (run / RESULTS).is_file():
        from demur.cli.comparison import print_comparison

        print_comparison(console, Comparison.load(run))
        return
    from demur.cli.tables import print_run
    from demur.optimization import Run

    print_run(console, Run.load(run))
