"""`demur diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import TerminalProgress, console
from demur.errors import DemurError

SAMPLING = "Sampling"
MACHINE = "The machine"

# typer reads these annotations at run time, on Python 3.10 too.
Whole = int | None
Real = float | None
Words = str | None
Place = Path | None
Several = list[str] | None

DEFAULT_MODEL = "qwen2.5-coder-0.5b"


def diagnose_command(
    model: Annotated[
        Words,
        typer.Argument(
            help="Hub name, local folder, GGUF file or catalog name.", show_default=DEFAULT_MODEL
        ),
    ] = None,
    prompt: Annotated[
        Several,
        typer.Option(
            help="long, short, plain, a text file, the folder of a run or a safety prompt, or "
            "organisation/name on the hub; give it again for each.",
            show_default="long, short, plain",
        ),
    ] = None,
    run: Annotated[
        Place,
        typer.Option(help="A finished run: its model, queries, settings, and optimized prompt."),
    ] = None,
    harmful: Annotated[
        Words,
        typer.Option(
            help="Harmful anchors: a set, FILE, FILE.csv:COLUMN, hf:ORG/NAME:COLUMN.",
            show_default="anchors",
        ),
    ] = None,
    harmless: Annotated[
        Words, typer.Option(help="Harmless anchors, likewise.", show_default="anchors")
    ] = None,
    system_prompt: Annotated[
        Words, typer.Option(help="A text file with the application's own system text.")
    ] = None,
    preset: Annotated[
        Words, typer.Option(help="quick, standard or paper.", show_default="standard")
    ] = None,
    output: Annotated[Place, typer.Option(help="The diagnosis's folder.")] = None,
    components: Annotated[Whole, typer.Option(help="Principal components (m).")] = None,
    seed: Annotated[Whole, typer.Option(help="Same seed, same result.")] = None,
    samples: Annotated[
        Whole, typer.Option(help="Responses for each query.", rich_help_panel=SAMPLING)
    ] = None,
    tokens: Annotated[
        Whole, typer.Option(help="Tokens of a response at most.", rich_help_panel=SAMPLING)
    ] = None,
    temperature: Annotated[
        Real, typer.Option(help="0 takes the likeliest token.", rich_help_panel=SAMPLING)
    ] = None,
    dtype: Annotated[
        Words, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=MACHINE)
    ] = None,
    device: Annotated[
        Words, typer.Option(help="cpu, cuda, mps or auto.", rich_help_panel=MACHINE)
    ] = None,
    quantization: Annotated[
        Words, typer.Option(help="4bit, with CUDA.", rich_help_panel=MACHINE)
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(help="Let the model bring code of its own.", rich_help_panel=MACHINE),
    ] = False,
) -> None:
    """See where a model places harmful and harmless queries, and how safety prompts move them.

    Without any argument: the default model, the built-in queries, no prompt and the three basic
    ones. Stopped half-way, the same command goes on where it was.
    """
    from demur.chat import ChatModel
    from demur.cli.diagnosis import print_diagnosis
    from demur.diagnosis import diagnose
    from demur.diagnosis.choices import choose_subject, subject_of_run

    progress = TerminalProgress()
    settings = {
        "components": components,
        "seed": seed,
        "samples": samples,
        "tokens_harmful": tokens,
        "tokens_harmless": tokens,
        "temperature": temperature,
    }
    # Mistakes are found before the model is fetched.
    if run is not None:
        given = {"harmful": harmful, "harmless": harmless, "preset": preset, **settings}
        _refuse_beside_run({**given, "system_prompt": system_prompt})
        recorded = subject_of_run(run, prompt).run
        assert recorded is not None
        settings_of_run = recorded.settings()["model"]
        model, dtype = model or settings_of_run["name"], dtype or settings_of_run["dtype"]
    else:
        choose_subject(
            prompt,
            harmful or "anchors",
            harmless or "anchors",
            system_prompt,
            preset or "standard",
            settings,
        )
    chat_model = ChatModel.load(
        model or DEFAULT_MODEL,
        dtype=dtype,
        device=device,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    diagnosis = diagnose(
        chat_model,
        prompts=prompt,
        harmful=harmful or "anchors",
        harmless=harmless or "anchors",
        system_prompt=system_prompt,
        preset=preset or "standard",
        run=run,
        output=output,
        progress=progress,
        **settings,
    )
    print_diagnosis(console, diagnosis)


def _refuse_beside_run(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is not None:
            option = "--tokens" if name.startswith("tokens") else f"--{name.replace('_', '-')}"
            raise DemurError(f"--run brings its own settings: leave out {option}")
