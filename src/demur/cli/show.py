"""`demur show`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from demur.cli.command import Command
from demur.cli.screen import console
from demur.cli.work import require_finished


class ShowOptions(BaseModel):
    """What is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = Field(
        description="folder of a finished run, evaluation or diagnosis; or a safety prompt: a "
        "folder, or organisation/name on the hub",
        json_schema_extra={"argument": True},
    )


def run_show(options: ShowOptions) -> None:
    """Print what is in a folder or on the hub."""
    from demur.records import kind_of

    path = Path(options.folder)
    kind = kind_of(path, finished=True)
    require_finished(path, kind)
    if kind == "run":
        _show_run(path)
    elif kind == "wording run":
        _show_wording_run(path)
    elif kind == "evaluation":
        _show_evaluation(path)
    elif kind == "diagnosis":
        _show_diagnosis(path)
    else:
        _show_prompt(options.folder)


def _show_run(path: Path) -> None:
    from demur.cli.run import print_run
    from demur.optimization import Run

    print_run(console, Run.load(path))


def _show_wording_run(path: Path) -> None:
    from demur.cli.wording import print_wording_run
    from demur.optimization.wording import WordingRun

    print_wording_run(console, WordingRun.load(path))


def _show_evaluation(path: Path) -> None:
    from demur.cli.comparison import print_comparison
    from demur.evaluation.comparison import Comparison

    print_comparison(console, Comparison.load(path))


def _show_diagnosis(path: Path) -> None:
    from demur.cli.diagnosis import print_diagnosis
    from demur.diagnosis import Diagnosis

    print_diagnosis(console, Diagnosis.load(path))


def _show_prompt(spec: str) -> None:
    from demur.cli.prompt import print_prompt
    from demur.prompts import load_prompt

    print_prompt(console, load_prompt(spec), spec)


SHOW = Command(
    verb="show",
    settings=ShowOptions,
    run=run_show,
    help="Print the results of a run, an evaluation, a diagnosis or a safety prompt again.",
)
