"""`demur evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.settings import WorkLoadSettings
from demur.cli.command import Command
from demur.cli.config import Recorded
from demur.cli.gate import check_early, gate_of, leave, show_gate
from demur.cli.own_model import model_of_prompts
from demur.cli.screen import console
from demur.cli.stages import TerminalProgress
from demur.cli.work import OFF, WorkOptions, check_output, own_report
from demur.errors import DemurError
from demur.evaluation.settings import EvaluateSettings, FileSettings, ServerSettings
from demur.gate.settings import GateSettings
from demur.settings import options_in, part_of, values_of

if TYPE_CHECKING:
    from demur.evaluation.answerers.protocol import Answerer

DETAILS = f"""
Without options: the default model, no prompt against the long one, the built-in held-out queries.
An interrupted evaluation goes on when the same command is given again.

With --endpoint, a server answers instead of a model here; with --responses, responses that exist
already are judged. {OFF}

With --require, or --baseline and --fail-if-worse, it is a gate: where a check fails, the exit
status is 1."""
COMMON = (
    *("prompt", "system_prompt", "suite", "benchmark", "harmful", "harmless", "samples", "tokens"),
    *("endpoint", "responses", "output", "model"),
)
EXAMPLES = (
    "demur evaluate --prompt none --prompt my-prompt.txt",
    "demur evaluate --prompt none --prompt demur-runs/my-run --suite standard",
    "demur evaluate --harmful refuse.txt --harmless answer.txt",
    "demur evaluate --endpoint http://localhost:8000/v1",
)


class EvaluateOptions(WorkOptions, EvaluateSettings):
    """What is evaluated, and where the results are written."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    files: FileSettings = Field(default_factory=FileSettings)
    gate: GateSettings = Field(default_factory=GateSettings)


def evaluate_command() -> Command[EvaluateOptions]:
    """The command."""
    return Command(
        verb="evaluate",
        settings=EvaluateOptions,
        run=run_evaluate,
        details=DETAILS,
        recorded=recorded,
        default_texts={
            "model": f"the model of the first run in --prompt, else {DEFAULT_MODEL}",
            "output": "one in demur-evaluations, named after model and sets",
        },
        common=COMMON,
        examples=EXAMPLES,
    )


def run_evaluate(options: EvaluateOptions) -> None:
    """Evaluate what was chosen and print the comparison."""
    from demur.cli.comparison import print_comparison
    from demur.evaluation.answerers.protocol import MODEL_PROMPTS
    from demur.evaluation.chosen import choose
    from demur.evaluation.evaluate import run_evaluation
    from demur.evaluation.record import KIND, EvaluationRecord
    from demur.evaluation.recording import renewed

    require_one_answerer(options)
    gate = gate_of(options.gate)
    progress = TerminalProgress()
    # Mistakes are found before the model is fetched.
    answerer = asked_answerer(options)
    settings = part_of(options, EvaluateSettings)
    if answerer is not None:
        check = check_early(gate, answerer, settings, progress)
        chosen = choose(settings, answerer.default_prompts, progress, check=check)
        gate.check_chosen(chosen)
    else:
        check = check_early(gate, None, settings, progress)
        chosen = choose(settings, MODEL_PROMPTS, progress, check=check)
        gate.check_chosen(chosen)
        check_output(options.output, KIND, EvaluationRecord, lambda stored: renewed(stored, chosen))
        # Slow, and not needed for a server, files or a mistake.
        from demur.chat.chosen import load_chosen

        specs = chosen.settings.prompt or MODEL_PROMPTS
        conditions = zip(specs, (one.safety_prompt for one in chosen.conditions), strict=False)
        model = load_chosen(model_of_prompts(options.load, conditions), progress)
        from demur.evaluation.answerers.model import ModelAnswerer

        answerer = ModelAnswerer(model)
    comparison = run_evaluation(answerer, chosen, options.output, progress)
    with own_report(comparison):
        print_comparison(console, comparison)
        result = show_gate(console, gate, comparison)
    leave(result)


def asked_answerer(options: EvaluateOptions) -> Answerer | None:
    """The server or the files that were chosen; None for a model, which is slow to load."""
    from demur.evaluation.answerers.files import ResponseFiles
    from demur.evaluation.answerers.server import Server

    server, files = options.server, options.files.responses
    if files:
        return ResponseFiles(files)
    if server.endpoint is None:
        return None
    return Server.of(server)


def require_one_answerer(options: EvaluateOptions) -> None:
    """Refuse options that do not belong to what answers.

    Raises:
        DemurError: there is one.
    """
    own: set[str] = {
        option.name for kind in (FileSettings, GateSettings) for option in options_in(kind)
    }
    if options.files.responses:
        own |= {"judge", "other_judge", "harm_judge", "base_url", "output"}
        _refuse(options, "--responses judges what exists already", own, inverse=True)
    elif options.server.endpoint is not None:
        others = {option.name for option in options_in(WorkLoadSettings)}
        others |= {"instructions", "preference_judge"}
        _refuse(options, "With --endpoint, a server answers and no model runs here", others)
    else:
        others = {option.name for option in options_in(ServerSettings)}
        _refuse(options, "Without --endpoint, no server answers", others)


def _refuse(
    options: EvaluateOptions, because: str, names: set[str], *, inverse: bool = False
) -> None:
    """Refuse settings with these names (or, inversely, all others) that differ from defaults."""
    values = values_of(options)
    for option in options_in(EvaluateOptions):
        if (option.name in names) != inverse and values[option.name] != option.default:
            name = option.metavar if option.positional else option.flag
            raise DemurError(f"{because}: leave out {name}.")


def recorded(file: Path) -> Recorded:
    """The settings that an evaluation recorded."""
    from demur.evaluation.record import KIND, EvaluationRecord
    from demur.records import read_record

    record = read_record(file, EvaluationRecord, KIND)
    return Recorded({**values_of(record.source), **values_of(record.settings)}, record.objects)
