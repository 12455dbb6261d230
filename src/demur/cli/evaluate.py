"""`demur evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli.screen import TerminalProgress, console
from demur.errors import DemurError

if TYPE_CHECKING:
    from demur.judges import HarmJudge, PairwiseJudge

MACHINE = "The machine"
SERVER = "A server instead of a model"

# typer reads these annotations at run time, on Python 3.10 too.
Whole = int | None
Words = str | None
Place = Path | None
Several = list[str] | None

DEFAULT_MODEL = "qwen2.5-coder-0.5b"


def evaluate_command(
    model: Annotated[
        Words,
        typer.Argument(
            help="Hub name, local folder, GGUF file or catalog name.", show_default=DEFAULT_MODEL
        ),
    ] = None,
    prompt: Annotated[
        Several,
        typer.Option(
            help="none, long, short, plain, a text file, the folder of a run or a safety prompt, "
            "or organisation/name on the hub; give it again for each prompt to compare.",
            show_default="none, long",
        ),
    ] = None,
    benchmark: Annotated[
        Several, typer.Option(help="A public benchmark's name; again for each.")
    ] = None,
    harmful: Annotated[
        Words,
        typer.Option(
            help="Harmful queries: held-out, FILE, FILE.csv:COLUMN, hf:ORG/NAME:COLUMN.",
            show_default="held-out where nothing is named",
        ),
    ] = None,
    harmless: Annotated[Words, typer.Option(help="Harmless queries, likewise.")] = None,
    instructions: Annotated[
        Words,
        typer.Option(
            help="Ordinary instructions, built-in or as --harmless: outputs for them under every "
            "prompt are written as alpaca_eval reads them."
        ),
    ] = None,
    responses: Annotated[
        Several,
        typer.Option(help="Judge the responses in this CSV or JSONL file instead; no model runs."),
    ] = None,
    judge: Annotated[
        Words, typer.Option(help="The refusal judge: default or paper.", show_default="default")
    ] = None,
    harm_judge: Annotated[
        Words,
        typer.Option(
            help="Also judge which answers are unsafe: guard:NAME_OR_FOLDER (a guard model, run "
            "here) or endpoint:MODEL (an OpenAI-compatible server; needs demur[endpoint])."
        ),
    ] = None,
    preference_judge: Annotated[
        Words,
        typer.Option(
            help="endpoint:MODEL: also compare the outputs for --instructions under each prompt "
            "with those without one."
        ),
    ] = None,
    base_url: Annotated[
        Words, typer.Option(help="Of the server of endpoint:MODEL.", show_default="OpenAI's")
    ] = None,
    endpoint: Annotated[
        Words,
        typer.Option(
            help="Evaluate what an OpenAI-compatible server answers, as it is served: its base "
            "URL, for example http://localhost:8000/v1. Needs demur[endpoint].",
            metavar="URL",
            rich_help_panel=SERVER,
        ),
    ] = None,
    served_model: Annotated[
        Words,
        typer.Option(
            help="The model's name at the server.",
            show_default="the only one there",
            rich_help_panel=SERVER,
        ),
    ] = None,
    concurrency: Annotated[
        Whole,
        typer.Option(
            help="Requests under way at once.", min=1, show_default="8", rich_help_panel=SERVER
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds to wait for an answer.", show_default="120", rich_help_panel=SERVER
        ),
    ] = None,
    samples: Annotated[
        Whole, typer.Option(help="Responses for each query.", show_default="1")
    ] = None,
    tokens: Annotated[
        Whole,
        typer.Option(
            help="Tokens of a response at most.",
            show_default="64; 300 with a harm judge and for instructions",
        ),
    ] = None,
    seed: Annotated[
        Whole, typer.Option(help="Same seed, same responses.", show_default="0")
    ] = None,
    system_prompt: Annotated[
        Words, typer.Option(help="A text file with the application's own system text.")
    ] = None,
    benchmark_dir: Annotated[
        Place, typer.Option(help="The folder that has the benchmarks' files; nothing is fetched.")
    ] = None,
    output: Annotated[Place, typer.Option(help="The evaluation's folder.")] = None,
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
    """Compare safety prompts on the same queries, measure a server, or judge existing responses.

    Without any argument: the default model, no prompt against the long one, the built-in held-out
    queries. Stopped half-way, the same command goes on where it was.
    """
    from demur.cli.comparison import print_comparison

    progress = TerminalProgress()
    if responses:
        from demur.evaluation.existing import judge_responses

        _refuse_beside(
            "--responses judges what exists already",
            {
                "--endpoint": endpoint,
                "a model": model,
                "--prompt": prompt,
                "--benchmark": benchmark,
                "--harmful": harmful,
                "--harmless": harmless,
                "--instructions": instructions,
                "--preference-judge": preference_judge,
                "--samples": samples,
                "--tokens": tokens,
                "--seed": seed,
                "--system-prompt": system_prompt,
                "--benchmark-dir": benchmark_dir,
            },
        )
        comparison = judge_responses(
            responses,
            judge=judge,
            harm_judge=_judges(harm_judge, None, base_url, progress)[0],
            output=output,
            progress=progress,
        )
        print_comparison(console, comparison)
        return

    if endpoint is None:
        _refuse_beside(
            "these belong to --endpoint URL",
            {
                "--served-model": served_model,
                "--concurrency": concurrency,
                "--timeout": timeout,
            },
        )
    else:
        from demur.evaluation.served import evaluate_endpoint

        _refuse_beside(
            "--endpoint asks a server, no model runs here",
            {
                "a model": model,
                "--instructions": instructions,
                "--preference-judge": preference_judge,
                "--dtype": dtype,
                "--device": device,
                "--quantization": quantization,
            },
        )
        comparison = evaluate_endpoint(
            endpoint,
            served_model,
            prompts=prompt or (None,),
            benchmarks=benchmark or (),
            harmful=harmful,
            harmless=harmless,
            system_prompt=system_prompt,
            judge=judge,
            harm_judge=_judges(harm_judge, None, base_url, progress)[0],
            samples=samples,
            tokens=tokens,
            seed=seed,
            benchmark_dir=benchmark_dir,
            output=output,
            progress=progress,
            concurrency=concurrency if concurrency is not None else 8,
            timeout=timeout if timeout is not None else 120.0,
        )
        print_comparison(console, comparison)
        return

    from demur.chat import ChatModel
    from demur.evaluation.choices import (
        DEFAULT_PROMPTS,
        EvaluateSettings,
        choose_prompts,
        choose_sets,
    )
    from demur.evaluation.evaluate import evaluate
    from demur.evaluation.outputs import choose_instructions
    from demur.judges import get_refusal_judge

    # Mistakes are found before the model is fetched.
    get_refusal_judge(EvaluateSettings.of(judge, samples, tokens, seed).judge)
    prompts = choose_prompts(prompt or DEFAULT_PROMPTS)
    asked = choose_instructions(instructions, prompts, compared=preference_judge is not None)
    choose_sets(benchmark or (), harmful, harmless, benchmark_dir, progress, built_in=asked is None)
    judge_of_harm, judge_of_pairs = _judges(harm_judge, preference_judge, base_url, progress)
    chat_model = ChatModel.load(
        model or DEFAULT_MODEL,
        dtype=dtype,
        device=device,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    comparison = evaluate(
        chat_model,
        prompts=prompts,
        benchmarks=benchmark or (),
        harmful=harmful,
        harmless=harmless,
        system_prompt=system_prompt,
        judge=judge,
        harm_judge=judge_of_harm,
        instructions=instructions,
        preference_judge=judge_of_pairs,
        samples=samples,
        tokens=tokens,
        seed=seed,
        benchmark_dir=benchmark_dir,
        output=output,
        progress=progress,
    )
    print_comparison(console, comparison)


def _judges(
    harm: str | None, preference: str | None, base_url: str | None, progress: TerminalProgress
) -> tuple[HarmJudge | None, PairwiseJudge | None]:
    """The judges of harm and of pairs that the specs name; the base URL is that of endpoints."""
    endpoints = [spec for spec in (harm, preference) if spec and spec.startswith("endpoint:")]
    if base_url is not None and not endpoints:
        raise DemurError(
            "--base-url belongs to --harm-judge or --preference-judge endpoint:MODEL: give both or "
            "none"
        )
    from demur.judges import get_harm_judge, get_preference_judge

    # The second is checked before the first may be a guard model that is fetched.
    of_pairs = (
        get_preference_judge(preference, base_url=base_url) if preference is not None else None
    )
    of_harm = None
    if harm is not None:
        url = base_url if harm in endpoints else None
        of_harm = get_harm_judge(harm, base_url=url, progress=progress)
    return of_harm, of_pairs


def _refuse_beside(because: str, options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is not None and value != []:
            raise DemurError(f"{because}: leave out {name}")
