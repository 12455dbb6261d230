"""`demur chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli.screen import TerminalProgress, console

# typer reads these annotations at run time, on Python 3.10 too.
Words = str | None
Several = list[str] | None


def chat_command(
    model: Annotated[
        Words,
        typer.Argument(
            help="Hub name, local folder, GGUF file or catalog name.",
            show_default="the model of the first run given, else qwen2.5-coder-0.5b",
        ),
    ] = None,
    prompt: Annotated[
        Several,
        typer.Option(
            help="none, long, short, plain, a text file, the folder of a run or a safety prompt, "
            "or organisation/name on the hub. The first is in force; again for more to switch to.",
            show_default="none",
        ),
    ] = None,
    system_prompt: Annotated[
        Words, typer.Option(help="A text file with the application's own system text.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.", min=1)] = 512,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token always.", min=0.0)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.", min=0)] = 0,
    dtype: Annotated[Words, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[Words, typer.Option(help="cpu, cuda, mps or auto.")] = None,
    quantization: Annotated[Words, typer.Option(help="4bit, with CUDA.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Let the model bring code of its own.")
    ] = False,
) -> None:
    """Talk to a model, and switch its safety prompt while you do.

    `/prompt long` switches, `/compare` answers once under each prompt, `/help` shows the rest.
    What comes through a pipe is asked line by line.
    """
    from demur.chat import ChatModel, Condition, Dialogue
    from demur.chat.catalog import DEFAULT_MODEL
    from demur.chat.engine import SamplingSettings
    from demur.cli.talk import Talk
    from demur.evaluation.choices import choose_prompts
    from demur.prompts import load_system_prompt

    # Mistakes are found before the model is fetched.
    prompts = choose_prompts(prompt or ["none"])
    system = load_system_prompt(system_prompt) if system_prompt is not None else None
    trained_on = [
        one.provenance.model.name
        for one in prompts
        if one is not None and one.provenance.model is not None
    ]
    chat_model = ChatModel.load(
        model or next(iter(trained_on), DEFAULT_MODEL),
        dtype=dtype,
        device=device,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
        progress=TerminalProgress(),
    )
    settings = SamplingSettings(most_tokens=tokens, temperature=temperature, seed=seed)
    dialogue = Dialogue(chat_model, Condition(prompts[0], system), settings)
    Talk(dialogue, prompts, console).run()
