"""Methods side by side: what each trained prompt does on queries that nobody trained on.

    python benchmarks/methods.py [MODEL] [--methods dro vpt likelihood] [--texts long self-reminder]
        [--split validation]

Trains a prompt with each method under the same preset and queries, then compares no prompt, the
basic prompt, hand-written ones (by default all that are built in) and the trained ones on harmful,
borderline and ordinary queries of one of the built-in splits. Use `validation` to choose between
methods and `test` to report a choice. An interrupted comparison goes on where it was. Prints the
table and keeps it in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from common import run, write_results
from demur import ChatModel, Comparison, SafetyPrompt, evaluate, load_query_set, optimize
from demur.cli.stages import TerminalProgress
from demur.optimization.methods import method_names
from demur.prompts import BASIC_PROMPTS
from demur.queries import SPLITS, join_query_sets

TOKENS = 64
KINDS = ("", ":borderline", ":ordinary")


def main() -> None:
    """Train, compare, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="qwen2.5-coder-0.5b")
    parser.add_argument("--methods", nargs="+", default=list(method_names()))
    parser.add_argument(
        "--texts", nargs="*", default=list(BASIC_PROMPTS), help="hand-written prompts to compare"
    )
    parser.add_argument("--split", default="validation", choices=SPLITS)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--basic-prompt", default="long")
    parser.add_argument("--harmful", nargs="+", default=["training"], help="sets to train on")
    parser.add_argument("--harmless", nargs="+", default=["training"], help="sets to train on")
    parser.add_argument("--most", type=int, help="queries of each set that are measured, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--folder", type=Path, default=Path("demur-methods"))
    arguments = parser.parse_args()

    progress = TerminalProgress()
    model = ChatModel.load(
        arguments.model, dtype=arguments.dtype, keep_freed_memory=True, progress=progress
    )
    harmful = join_query_sets([load_query_set(one, "harmful") for one in arguments.harmful])
    harmless = join_query_sets([load_query_set(one, "harmless") for one in arguments.harmless])
    texts = dict.fromkeys((arguments.basic_prompt, *arguments.texts))
    prompts: list[str | SafetyPrompt | None] = [None, *texts]
    seconds: dict[str, float] = {}
    for method in arguments.methods:
        began = time.monotonic()
        trained = optimize(
            model,
            method=method,
            preset=arguments.preset,
            basic_prompt=arguments.basic_prompt,
            seed=arguments.seed,
            output=arguments.folder / f"{method}-{arguments.seed}",
            progress=progress,
            harmful=harmful,
            harmless=harmless,
        )
        seconds[trained.settings.method.title] = round(time.monotonic() - began, 1)
        prompts.append(replace(trained.safety_prompt, name=method))
    comparison = _compared(model, prompts, arguments, progress)
    Console().print(str(comparison), markup=False, highlight=False)
    write_results(
        f"methods-{Path(model.name).name}-{arguments.split}",
        {
            "model": model.name,
            "dtype": model.record.dtype,
            "device": model.record.device,
            "preset": arguments.preset,
            "training": {one.label: [len(one), one.name] for one in (harmful, harmless)},
            "judge": "default",
            "tokens": TOKENS,
            "seed": arguments.seed,
            "seconds": seconds,
            "refused": _rates(comparison),
            "kl_divergence": {
                f"{cost.prompt}, {cost.set}": round(cost.divergence, 3) for cost in comparison.costs
            },
            "first_word_changed": {
                f"{cost.prompt}, {cost.set}": round(cost.changed.value, 3)
                for cost in comparison.costs
            },
        },
    )


def _compared(
    model: ChatModel,
    prompts: list[str | SafetyPrompt | None],
    arguments: argparse.Namespace,
    progress: TerminalProgress,
) -> Comparison:
    """No prompt, the basic one and the trained ones, on each kind of query."""
    split, most = arguments.split, arguments.most
    sets = [load_query_set(split, "harmful")]
    sets += [load_query_set(f"{split}{kind}", "harmless") for kind in KINDS[1:]]
    harmful, *harmless = [one if most is None else one.head(most) for one in sets]
    return evaluate(
        model,
        prompts=prompts,
        harmful=harmful,
        harmless=harmless,
        judge="default",
        tokens=TOKENS,
        seed=arguments.seed,
        output=arguments.folder / f"{split}-{arguments.seed}",
        progress=progress,
    )


def _rates(comparison: Comparison) -> dict[str, dict[str, str]]:
    """For each set the rate of refusal under each prompt, with its interval."""
    found: dict[str, dict[str, str]] = {}
    for rates in comparison.rates:
        if rates.category is None:
            found.setdefault(f"{rates.set}, {rates.label}", {})[rates.prompt] = str(rates.refused)
    return found


if __name__ == "__main__":
    run(main)
