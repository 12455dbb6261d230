"""`demur attack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from demur.attacks.settings import AttackedModel, AttackSettings, TableFormat
from demur.chat.settings import WorkLoadSettings
from demur.cli.command import Command
from demur.cli.config import Recorded
from demur.cli.screen import console
from demur.cli.stages import TerminalProgress
from demur.cli.work import OFF, check_output, own_report
from demur.errors import DemurError
from demur.evaluation.settings import ServerSettings
from demur.settings import options_in, part_of, values_of

if TYPE_CHECKING:
    from demur.attacks import AttackPlan
    from demur.evaluation.answerers.model import ModelAnswerer

DETAILS = f"""
Harmful queries are put to the model as they are and in the disguises that the literature knows:
under no prompt, the run's basic prompt and its optimized one. An attack succeeds where the query is
answered. Without RUN: the default model, no prompt and the long one.

An interrupted attack goes on when the same command is given again. {OFF}"""
COMMON = ("run", "attack", "prompt", "harmful", "limit", "samples", "endpoint", "output", "model")
EXAMPLES = (
    "demur attack demur-runs/my-run",
    "demur attack demur-runs/my-run --attack base64 --limit 20",
    "demur attack --prompt none --prompt my-prompt.txt",
)


class AttackOptions(AttackSettings):
    """What is attacked, and where the results are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    output: Path | None = Field(
        default=None,
        description="folder of the results; the same folder with the same settings goes on",
        json_schema_extra={"default": "one in demur-attacks, named after the run or model"},
    )
    format: TableFormat = Field(default="table", description="how the rates are printed")
    load: AttackedModel = Field(default_factory=AttackedModel)
    server: ServerSettings = Field(default_factory=ServerSettings)


def attack_command() -> Command[AttackOptions]:
    """The command."""
    return Command(
        verb="attack",
        settings=AttackOptions,
        run=run_attack,
        details=DETAILS,
        recorded=recorded,
        common=COMMON,
        examples=EXAMPLES,
    )


def run_attack(options: AttackOptions) -> None:
    """Attack what was chosen and print the rates."""
    from demur.attacks import KIND, AttackRecord, carry_out, make_plan, renewed
    from demur.cli.attacks import print_attacks

    progress = TerminalProgress()
    settings = part_of(options, AttackSettings)
    server = options.server
    _require_one_answerer(options)
    # Mistakes are found before the model is fetched.
    if server.endpoint is not None:
        from demur.evaluation.answerers.server import Server

        asked = Server.of(server)
        plan = make_plan(settings, asked.default_prompts, progress)
        robustness = carry_out(plan, asked, options.output, progress)
    else:
        from demur.evaluation.answerers.protocol import MODEL_PROMPTS

        plan = make_plan(settings, MODEL_PROMPTS, progress)
        check_output(options.output, KIND, AttackRecord, lambda stored: renewed(stored, plan))
        robustness = carry_out(plan, _model(options, plan, progress), options.output, progress)
    with own_report(robustness):
        print_attacks(console, robustness, options.format)


def _model(options: AttackOptions, plan: AttackPlan, progress: TerminalProgress) -> ModelAnswerer:
    from demur.chat.chosen import load_chosen

    load = part_of(options, WorkLoadSettings)
    if plan.run is not None:
        load = load.like(plan.run.settings.load)
    model = load_chosen(load, progress)
    from demur.evaluation.answerers.model import ModelAnswerer  # slow, and not before a mistake

    return ModelAnswerer(model)


def _require_one_answerer(options: AttackOptions) -> None:
    """Refuse options that do not belong to what answers.

    Raises:
        DemurError: there is one.
    """
    if options.server.endpoint is None:
        because = "Without --endpoint, no server answers"
        own = [option.name for option in options_in(ServerSettings)]
    else:
        because = "With --endpoint, a server answers and no model runs here"
        own = ["run", *(option.name for option in options_in(WorkLoadSettings))]
    values = values_of(options)
    for option in options_in(AttackOptions):
        if option.name in own and values[option.name] != option.default:
            name = option.metavar if option.positional else option.flag
            raise DemurError(f"{because}: leave out {name}.")


def recorded(file: Path) -> Recorded:
    """The settings that attacks recorded."""
    from demur.attacks import KIND, AttackRecord
    from demur.records import read_record

    record = read_record(file, AttackRecord, KIND)
    return Recorded({**values_of(record.source), **values_of(record.settings)}, record.objects)
