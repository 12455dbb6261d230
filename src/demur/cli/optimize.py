"""`demur optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.screen import TerminalProgress, console

METHOD = "The method"
SAMPLING = "Sampling"
MACHINE = "The machine"

# typer reads these annotations at run time, on Python 3.10 too.
Whole = int | None
Real = float | None
Words = str | None


def optimize_command(
    model: Annotated[
        str, typer.Argument(help="Hub name, local folder, GGUF file or catalog name.")
    ] = "qwen2.5-coder-0.5b",
    basic_prompt: Annotated[
        str,
        typer.Option(
            help="long, short, plain, a text file, or a text prompt on the hub: where to start."
        ),
    ] = "long",
    harmful: Annotated[
        str, typer.Option(help="Harmful anchors: a set, FILE, FILE.csv:COLUMN, hf:ORG/NAME:COLUMN.")
    ] = "anchors",
    harmless: Annotated[str, typer.Option(help="Harmless anchors, likewise.")] = "anchors",
    system_prompt: Annotated[
        Words, typer.Option(help="A text file with the application's own system text.")
    ] = None,
    preset: Annotated[str, typer.Option(help="quick, standard or paper.")] = "standard",
    output: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    weight_refusal: Annotated[
        Real, typer.Option(help="Weight of the refusal loss.", rich_help_panel=METHOD)
    ] = None,
    weight_harmfulness: Annotated[
        Real, typer.Option(help="Weight of the harmfulness loss.", rich_help_panel=METHOD)
    ] = None,
    weight_complement: Annotated[
        Real,
        typer.Option(help="Weight of staying put outside the components.", rich_help_panel=METHOD),
    ] = None,
    weight_harmless: Annotated[
        Real,
        typer.Option(
            help="Weight of a harmless query against a harmful one.", rich_help_panel=METHOD
        ),
    ] = None,
    components: Annotated[
        Whole, typer.Option(help="Principal components (m).", rich_help_panel=METHOD)
    ] = None,
    epochs: Annotated[
        Whole, typer.Option(help="Passes over the anchors.", rich_help_panel=METHOD)
    ] = None,
    batch: Annotated[
        Whole, typer.Option(help="Queries a training step.", rich_help_panel=METHOD)
    ] = None,
    learning_rate: Annotated[Real, typer.Option(help="Of AdamW.", rich_help_panel=METHOD)] = None,
    reanchor_every: Annotated[
        Whole,
        typer.Option(
            help="Epochs between new estimates of the directions; 0 for never.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    seed: Annotated[
        Whole, typer.Option(help="Same seed, same result.", rich_help_panel=METHOD)
    ] = None,
    samples: Annotated[
        Whole, typer.Option(help="Responses for each query.", rich_help_panel=SAMPLING)
    ] = None,
    tokens: Annotated[
        Whole, typer.Option(help="Tokens of a response at most.", rich_help_panel=SAMPLING)
    ] = None,
    temperature: Annotated[
        Real, typer.Option(help="0 takes the likeliest token.", rich_help_panel=SAMPLING)
    ] = None,
    top_k: Annotated[
        Whole, typer.Option(help="Likeliest tokens that may be drawn.", rich_help_panel=SAMPLING)
    ] = None,
    top_p: Annotated[
        Real, typer.Option(help="Probability they may reach.", rich_help_panel=SAMPLING)
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
    """Optimize a basic safety prompt and measure it before and after.

    Without any argument: the default model, the built-in queries and the long basic prompt, about
    ten minutes on two cores. Stopped half-way, the same command goes on where it was.
    """
    from demur.chat import ChatModel
    from demur.cli.tables import print_run
    from demur.optimization import OptimizeSettings, optimize

    overrides = {
        "weight_refusal": weight_refusal,
        "weight_harmfulness": weight_harmfulness,
        "weight_complement": weight_complement,
        "weight_harmless": weight_harmless,
        "components": components,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "reanchor_every": reanchor_every,
        "seed": seed,
        "samples": samples,
        "tokens_harmful": tokens,
        "tokens_harmless": tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    # Mistakes in the settings are found before the model is fetched.
    OptimizeSettings.preset(preset, **overrides)
    progress = TerminalProgress()
    chat_model = ChatModel.load(
        model,
        dtype=dtype,
        device=device,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    run = optimize(
        chat_model,
        basic_prompt=basic_prompt,
        harmful=harmful,
        harmless=harmless,
        system_prompt=system_prompt,
        preset=preset,
        output=output,
        progress=progress,
        **overrides,
    )
    print_run(console, run)
