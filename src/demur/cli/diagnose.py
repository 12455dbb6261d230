"""`demur diagnose`."""

from __future__ import annotations

from pathlib import Path

from demur.chat.catalog import DEFAULT_MODEL
from demur.cli.command import Command
from demur.cli.config import Recorded
from demur.cli.screen import console
from demur.cli.stages import TerminalProgress
from demur.cli.work import OFF, WorkOptions, check_output, own_report
from demur.diagnosis.settings import DiagnoseSettings, presets
from demur.optimization.preset_values import settled
from demur.optimization.settings import expanded
from demur.settings import build, part_of, values_of

DETAILS = f"""
It also tells the headroom: how well the model's states tell the queries apart, beside how well its
prompts do.

Without options: the default model, the built-in queries, no prompt, and long, short and plain. An
interrupted diagnosis goes on when the same command is given again.

{OFF}"""
COMMON = (
    *("prompt", "run", "system_prompt", "preset", "harmful", "harmless", "headroom", "output"),
    "model",
)
EXAMPLES = (
    "demur diagnose",
    "demur diagnose --prompt none --prompt my-prompt.txt",
    "demur diagnose --run demur-runs/my-run",
)


class DiagnoseOptions(WorkOptions, DiagnoseSettings):
    """How a model is diagnosed, and where the results are written."""


def diagnose_command() -> Command[DiagnoseOptions]:
    """The command."""
    return Command(
        verb="diagnose",
        settings=DiagnoseOptions,
        run=run_diagnose,
        details=DETAILS,
        presets={name: build(DiagnoseOptions, values_of(one)) for name, one in presets().items()},
        recorded=recorded,
        expand=expanded,
        settle=settled,
        common=COMMON,
        examples=EXAMPLES,
        default_texts={
            "model": f"the model of --run, else {DEFAULT_MODEL}",
            "output": "one in demur-diagnoses, named after the model or run",
        },
    )


def run_diagnose(options: DiagnoseOptions) -> None:
    """Diagnose a model and print what was found."""
    from demur.chat.chosen import load_chosen
    from demur.diagnosis import DiagnosisRecord, make_plan
    from demur.diagnosis.diagnosis import KIND

    progress = TerminalProgress()
    # Mistakes are found before the model is fetched.
    plan = make_plan(part_of(options, DiagnoseSettings))
    check_output(
        options.output, KIND, DiagnosisRecord, lambda old: plan.record(old.model, old.load)
    )
    load = options.load
    if plan.run is not None:
        load = load.like(plan.run.settings.load)
    model = load_chosen(load, progress)
    # Slow, and not needed for a mistake.
    from demur.cli.diagnosis import print_diagnosis
    from demur.diagnosis import carry_out

    diagnosis = carry_out(plan, model, options.output, progress)
    with own_report(diagnosis):
        print_diagnosis(console, diagnosis)


def recorded(file: Path) -> Recorded:
    """The settings that a diagnosis recorded."""
    from demur.diagnosis.diagnosis import KIND, DiagnosisRecord
    from demur.records import read_record

    record = read_record(file, DiagnosisRecord, KIND)
    values = {**values_of(record.load), **values_of(record.settings.chosen)}
    return Recorded(values, record.objects)
