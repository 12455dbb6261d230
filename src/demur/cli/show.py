"""`demur show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import console


def show_command(
    folder: Annotated[
        str,
        typer.Argument(
            help="The folder of a finished run, evaluation or diagnosis, or a safety prompt: a "
            "folder, or organisation/name on the hub.",
            metavar="DIR|ORG/NAME",
        ),
    ],
) -> None:
    """Print the results of a run, an evaluation, a diagnosis or a safety prompt again."""
    from demur.diagnosis.diagnosis import RESULT, Diagnosis
    from demur.evaluation.comparison import RESULTS, Comparison
    from demur.prompts import load_prompt
    from demur.prompts.fetching import hub_name_of
    from demur.prompts.storage import JSON_FILE

    path = Path(folder)
    if (path / RESULT).is_file():
        from demur.cli.diagnosis import print_diagnosis

        print_diagnosis(console, Diagnosis.load(path))
        return

    if (path / RESULTS).is_file():
        from demur.cli.comparison import print_comparison

        print_comparison(console, Comparison.load(path))
        return
    if hub_name_of(folder) is not None or (path / JSON_FILE).is_file():
        from demur.cli.prompt import print_prompt

        print_prompt(console, load_prompt(folder))
        return
    from demur.cli.tables import print_run
    from demur.optimization import Run

    print_run(console, Run.load(path))
