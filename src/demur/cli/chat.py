"""`demur chat`."""

from __future__ import annotations

import sys

import typer
from pydantic import BaseModel, ConfigDict, Field

from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.settings import LoadSettings
from demur.cli.command import Command
from demur.cli.own_model import model_of_prompts
from demur.cli.screen import console
from demur.cli.stages import TerminalProgress
from demur.evaluation.settings import MOST_TOKENS
from demur.prompts import BUILT_IN_PROMPTS


class ChatOptions(BaseModel):
    """A conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    load: LoadSettings = LoadSettings()
    prompt: tuple[str, ...] = Field(
        default=("none",),
        min_length=1,
        description="safety prompts to switch between, the first of which is used at first: none, "
        f"{BUILT_IN_PROMPTS}, a text file, the folder of a run or a safety prompt, or "
        "organisation/name on the hub",
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text, or none",
        json_schema_extra={
            "default": "the one that a run in --prompt was trained behind",
            "keeps_none": True,
        },
    )
    tokens: int = Field(
        default=512, ge=1, le=MOST_TOKENS, description="tokens of an answer, at most"
    )
    temperature: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="temperature of the sampling; 0 always takes the likeliest token",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="seed of the sampling: the same seed gives the same answers",
    )


def run_chat(options: ChatOptions) -> None:
    """Talk in the terminal until the user leaves."""
    from demur.chat.chosen import load_chosen
    from demur.prompts import load_prompt, system_text_for

    # Mistakes are found before the model is fetched.
    prompts = [None if one == "none" else load_prompt(one) for one in options.prompt]
    system = system_text_for(options.system_prompt, options.prompt, prompts)
    progress = TerminalProgress()
    if system.remark:
        progress.message(system.remark)
    load = model_of_prompts(options.load, zip(options.prompt, prompts, strict=True))
    model = load_chosen(load, progress)
    # Slow, and not needed for a mistake.
    from demur.chat import Condition, Dialogue
    from demur.chat.engine import SamplingSettings
    from demur.cli.talk import Talk

    settings = SamplingSettings(
        most_tokens=options.tokens, temperature=options.temperature, seed=options.seed
    )
    dialogue = Dialogue(model, Condition(prompts[0], system.text), settings)
    talk = Talk(dialogue, prompts, console)
    talk.run()
    if talk.failed and not sys.stdin.isatty():
        raise typer.Exit(2)


CHAT = Command(
    verb="chat",
    settings=ChatOptions,
    run=run_chat,
    details="""
    `/prompt long` switches, `/compare` answers the last question under each prompt, `/help` lists
    all commands. Lines that come through a pipe are answered one by one; the exit status is 2 if
    one could not be.""",
    default_texts={"model": f"the model of the first run in --prompt, else {DEFAULT_MODEL}"},
)
