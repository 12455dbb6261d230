"""`demur capability`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field
from rich.console import Console
from rich.text import Text

from demur.capability.settings import CapabilitySettings
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.settings import LoadSettings
from demur.cli.command import Command
from demur.cli.config import Recorded
from demur.cli.screen import console, new_table, print_again, printable, short_name, with_notes
from demur.cli.stages import TerminalProgress
from demur.cli.tables import RIGHT, WRONG
from demur.records import WorkFolder, kind_of
from demur.settings import part_of, values_of

if TYPE_CHECKING:
    from demur.capability import Capability

DETAILS = """
Each task is done without the prompt and with it, through the chat template, as an export of the
prompt answers. Needs demur[lm-eval]. An interrupted check goes on when the same command is given
again."""


class CheckedModel(LoadSettings):
    """The model and the machine."""

    model: str | None = Field(
        default=None,
        description="hub name (ORG/NAME, with @REVISION or :Q4_K_M), local folder, GGUF file or "
        "catalog name of the model",
        json_schema_extra={"default": f"the model of the run, else {DEFAULT_MODEL}"},
    )


class CapabilityOptions(CapabilitySettings):
    """What is checked, and where the results are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    output: Path | None = Field(
        default=None,
        description="folder of the results; the same folder with the same settings goes on",
        json_schema_extra={"default": "one in demur-capability, named after the run or prompt"},
    )
    load: CheckedModel = Field(default_factory=CheckedModel)


def run_capability(options: CapabilityOptions) -> None:
    """Check a prompt and print the table."""
    from demur.capability import KIND, make_plan
    from demur.chat.chosen import load_chosen

    progress = TerminalProgress()
    # Mistakes are found before the model is fetched.
    if options.output is not None and kind_of(options.output) != KIND:
        WorkFolder.check(options.output, None, KIND)
    plan = make_plan(part_of(options, CapabilitySettings), progress)
    load = part_of(options, LoadSettings)
    if plan.run is not None:
        load = load.like(plan.run.settings.load)
    model = load_chosen(load, progress)
    from demur.capability import carry_out  # slow, and not needed for a mistake

    capability = carry_out(plan, model, options.output, progress)
    print_capability(console, capability)


def print_capability(console: Console, capability: Capability) -> None:
    """Print how every task changed."""
    changes = capability.changes
    name = short_name(capability.settings.conditions[1].name, 30)
    table = new_table(f"Tasks of lm-eval before and after {name}, in percent")
    for name in ("task", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("samples", "before", "after", "points, with\n95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in changes:
        before, after, difference, interval = one.cells
        points = Text(f"{difference}{interval}")
        if one.more_than_chance:
            points.stylize(RIGHT if one.difference > 0 else WRONG)
        table.add_row(
            Text(short_name(one.task)),
            Text(short_name(one.metric, 20)),
            str(one.samples),
            before,
            after,
            points,
        )
    console.print()
    notes = [
        "before: without a safety prompt; after: with it, on the same samples",
        *(
            f"{one.metric} of {short_name(one.task)} is no share: as lm-eval gives it, no percent"
            for one in changes
            if not one.is_share
        ),
        "points in colour: more than chance, by the paired test",
    ]
    console.print(with_notes(table, notes))
    print_again(console, capability.path, "All scores")
    console.print()
    console.print(Text(printable(capability.sentence)))
    if not capability.is_worse:
        console.print("Next: smaller changes show with more samples, for example --limit 1000.")
    elif capability.settings.conditions[1].trained:
        console.print("Next: take a more careful prompt of the run: demur optimize --pick careful.")
    else:
        console.print("Next: try another wording; demur evaluate shows what each one costs.")


def recorded(file: Path) -> Recorded:
    """The settings that a check recorded."""
    from demur.capability import KIND, CapabilityRecord
    from demur.records import read_record

    record = read_record(file, CapabilityRecord, KIND)
    return Recorded({**values_of(record.load), **values_of(record.settings)}, ())


CAPABILITY = Command(
    verb="capability",
    settings=CapabilityOptions,
    run=run_capability,
    details=DETAILS,
    recorded=recorded,
)
