"""`demur optimize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import create_model

from demur.cli.command import CONFIG, PRESET, Command
from demur.cli.config import FILE, Recorded, is_recorded, settings_file
from demur.cli.screen import console
from demur.cli.stages import TerminalProgress
from demur.cli.summaries import OPTIMIZE
from demur.cli.wording import wording_command
from demur.cli.work import OFF, WorkOptions, check_output, own_report
from demur.errors import DemurError
from demur.optimization.methods import DEFAULT, get_method, method_names
from demur.optimization.preset_values import settled
from demur.optimization.settings import expanded, method_for, presets, settings_type
from demur.optimization.wording import TEXT
from demur.optimization.wording.settings import KIND as WORDING
from demur.records import format_of
from demur.settings import as_choice, build, options_in, part_of, read_toml_text, values_of

DETAILS = f"""
Without options: the default model, the built-in queries and the long basic prompt, some minutes
on two cores. An interrupted run goes on when the same command is given again.

{OFF} With another `--method`, `--help` lists the settings of that method."""
COMMON = (
    *("preset", "basic_prompt", "system_prompt", "harmful", "harmless", "pick", "output", "model"),
)
EXAMPLES = (
    "demur optimize --preset quick",
    "demur optimize Qwen/Qwen2.5-7B-Instruct --basic-prompt my-prompt.txt",
    "demur optimize --harmful training --harmful refuse.txt",
    "demur optimize --config demur.toml        # `demur init` writes one",
)


def optimize_command(method: str = DEFAULT) -> Command[Any]:
    """The command, with the settings of a method.

    Args:
        method: name of a method, `text` for the wording, or `FILE.py:CLASS`.

    Raises:
        DemurError: there is no such method.
    """
    if method == TEXT:
        return wording_command(OPTIMIZE)
    kind = cast(
        type[WorkOptions],
        create_model("OptimizeOptions", __base__=(WorkOptions, settings_type(method))),
    )

    def settle(values: Mapping[str, object]) -> Mapping[str, object]:
        method_for(str(values.get(PRESET, "")), method)
        return settled(values)

    return Command(
        verb=OPTIMIZE,
        settings=kind,
        run=run_optimize,
        details=DETAILS,
        presets={name: build(kind, values_of(one)) for name, one in presets(method).items()},
        recorded=recorded,
        expand=expanded,
        settle=settle,
        default_texts={"output": "one in demur-runs, named after model, prompt, method and preset"},
        usual_config=FILE,
        common=COMMON,
        examples=EXAMPLES,
    )


def run_optimize(options: WorkOptions) -> None:
    """Optimize a prompt and print what came of it."""
    from demur.chat.chosen import load_chosen
    from demur.optimization.plan import plan_of
    from demur.optimization.recorded import RunRecord
    from demur.optimization.run import KIND

    progress = TerminalProgress()
    # Mistakes are found before the model is fetched.
    settings = part_of(options, settings_type(str(values_of(options)["method"])))
    plan = plan_of(settings)
    sampler: Literal["vllm"] | None = None if options.load.sample_at is None else "vllm"
    check_output(
        options.output,
        KIND,
        RunRecord,
        lambda old: plan.as_in(old).record(replace(old.model, sampler=sampler), old.load),
    )
    model = load_chosen(options.load, progress)
    # Slow, and not needed for a mistake.
    from demur.cli.run import print_run
    from demur.optimization import carry_out

    run = carry_out(model, plan, output=options.output, progress=progress)
    with own_report(run):
        print_run(console, run)


def recorded(file: Path) -> Recorded:
    """The settings that a run recorded."""
    from demur.optimization.recorded import RunRecord
    from demur.optimization.run import KIND
    from demur.records import read_record

    record = read_record(file, RunRecord, KIND)
    own = record.settings.method_settings.model_extra or {}
    values = {**values_of(record.load), **values_of(record.settings), **own}
    return Recorded(values, record.objects)


def method_in(arguments: Sequence[str]) -> str:
    """The method that a command line names, itself or in its file of settings.

    Where none is named it is the default, or what the preset means. A method of the user's own is
    not taken from the settings of a run, whose folder may be a stranger's; reading them refuses it.

    Args:
        arguments: the command line, without the name of the program.
    """
    if not arguments or arguments[0] != OPTIMIZE:
        return DEFAULT
    config = _value_of(f"--{CONFIG}", arguments)
    named, preset = (_value_of(f"--{name}", arguments) for name in ("method", PRESET))
    if config is not None:
        named = named or _text_in(Path(config), "method")
        preset = preset or _text_in(Path(config), PRESET)
    (option,) = (one for one in options_in(settings_type()) if one.name == PRESET)
    return named or str(method_for(str(as_choice(option, preset or ""))))


def methods_with(flag: str) -> tuple[str, ...]:
    """The built-in methods that have an option of their own.

    Args:
        flag: the option, for example `--components`.
    """
    return tuple(
        name
        for name in method_names()
        if any(flag in (one.flag, one.no_flag) for one in options_in(get_method(name).Settings))
    )


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    found = None
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            found = argument.removeprefix(f"{flag}=")
        elif argument == flag and place + 1 < len(arguments):
            found = arguments[place + 1]
    return found


def _text_in(config: Path, name: str) -> str | None:
    """The method or the preset in a file of settings; None where it has none."""
    file = settings_file(config)
    try:
        if format_of(file) == WORDING:
            return TEXT if name == "method" else None
        if is_recorded(file):
            found = str(recorded(file).values[name])
            return found if name == PRESET or found in method_names() else None
        return read_toml_text(file, name)
    except DemurError:  # explained when the whole file is read
        return None
