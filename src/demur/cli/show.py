"""`demur show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from demur.attacks.settings import TableFormat
from demur.cli.command import Command
from demur.cli.gate import gate_of, leave, show_gate
from demur.cli.screen import console
from demur.cli.work import require_finished
from demur.errors import DemurError, did_you_mean
from demur.gate.settings import GateSettings

if TYPE_CHECKING:
    from demur.gate import Gate


class ShowOptions(BaseModel):
    """What is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str | None = Field(
        default=None,
        description="folder of a finished run, evaluation, diagnosis, attack, capability check or "
        "study; or a safety prompt: a folder, or organisation/name on the hub",
        json_schema_extra={"argument": True, "default": "a list of what lies here"},
    )
    format: TableFormat = Field(
        default="table", description="of attacks, how the rates are printed"
    )
    gate: GateSettings = Field(default_factory=GateSettings)


def run_show(options: ShowOptions) -> None:
    """Print what is in a folder or on the hub, and check it where that is asked for."""
    from demur.records import kind_of

    if options.folder is None:
        _show_list(options)
        return
    path = Path(options.folder)
    kind = kind_of(path, finished=True)
    require_finished(path, kind)
    gate = gate_of(options.gate)
    if options.format != "table" and kind != "attack":
        raise DemurError(
            f"{options.folder!r:.200} has no rows of attacks: leave out --format; its results.json "
            "has all figures."
        )
    if gate.is_asked and kind != "evaluation":
        raise DemurError(
            f"Requirements are about evaluations, and {options.folder!r:.200} is none: give the "
            "folder of one, or evaluate the prompt with demur evaluate."
        )
    if kind == "run":
        _show_run(path)
    elif kind == "wording run":
        _show_wording_run(path)
    elif kind == "evaluation":
        _show_evaluation(path, gate)
    elif kind == "diagnosis":
        _show_diagnosis(path)
    elif kind == "attack":
        _show_attacks(path, options.format)
    elif kind == "capability check":
        _show_capability(path)
    elif kind == "study":
        _show_study(path)
    else:
        _require_prompt(options.folder)
        _show_prompt(options.folder)


def _require_prompt(named: str) -> None:
    from demur.prompts import BASIC_PROMPTS

    path = Path(named)
    if path.suffix == ".html":
        raise DemurError(
            f"{named!r:.300} is a page: open it in a browser, or give the folder that it lies in."
        )
    if not path.exists() and "/" not in named and named not in BASIC_PROMPTS:
        beside = [*BASIC_PROMPTS, *(one.name for one in Path().iterdir())]
        raise DemurError(
            f"There is no folder {named!r:.300}{did_you_mean(named, beside)}: `demur show` alone "
            "lists what lies here."
        )


def _show_list(options: ShowOptions) -> None:
    from demur.cli.listing import print_work

    if options != ShowOptions():
        raise DemurError("Nothing says what is to be shown: give a folder as well.")
    print_work(console, Path())


def _show_run(path: Path) -> None:
    from demur.cli.run import print_run
    from demur.optimization import Run

    print_run(console, Run.load(path))


def _show_wording_run(path: Path) -> None:
    from demur.cli.wording import print_wording_run
    from demur.optimization.wording import WordingRun

    print_wording_run(console, WordingRun.load(path))


def _show_evaluation(path: Path, gate: Gate) -> None:
    from demur.cli.comparison import print_comparison
    from demur.evaluation.comparison import Comparison

    comparison = Comparison.load(path)
    print_comparison(console, comparison)
    leave(show_gate(console, gate, comparison))


def _show_diagnosis(path: Path) -> None:
    from demur.cli.diagnosis import print_diagnosis
    from demur.diagnosis import Diagnosis

    print_diagnosis(console, Diagnosis.load(path))


def _show_attacks(path: Path, format: TableFormat) -> None:
    from demur.attacks import Robustness
    from demur.cli.attacks import print_attacks

    print_attacks(console, Robustness.load(path), format)


def _show_capability(path: Path) -> None:
    from demur.capability import Capability
    from demur.cli.capability import print_capability

    print_capability(console, Capability.load(path))


def _show_study(path: Path) -> None:
    from demur.cli.study import print_study
    from demur.study import FinishedStudy

    print_study(console, FinishedStudy.load(path))


def _show_prompt(spec: str) -> None:
    from demur.cli.prompt import print_prompt
    from demur.prompts import load_prompt

    print_prompt(console, load_prompt(spec), spec)


SHOW = Command(
    verb="show",
    settings=ShowOptions,
    run=run_show,
    details="""
    With --require, or --baseline and --fail-if-worse, a finished evaluation is checked as `demur
    evaluate` does; nothing is measured.""",
)
