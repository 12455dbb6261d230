"""Methods side by side, or one method with its terms taken out, on queries nobody trained on.

    python benchmarks/methods.py [MODEL] [--methods likelihood dro vpt] [--preset quick]
    python benchmarks/methods.py [MODEL] --ablation [--seeds 0 1 2] [--split validation]
    python benchmarks/methods.py [MODEL] --ablation --only "no focus" --seeds 1

Trains a prompt with each method under the same preset, then compares no prompt, hand-written ones
and the trained ones on harmful, borderline and ordinary queries of one of the built-in splits. With
`--ablation`, each term of the default method is taken out in turn. Use `--split validation` to make
a choice, and `test` to report it: the default method has read the validation queries. An
interrupted comparison goes on where it was. Prints the table and keeps it in `benchmarks/results/`.
`--only` trains some of the prompts and compares nothing, so that processes can share the work.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from common import run, stop, write_results
from demur import ChatModel, Comparison, Run, SafetyPrompt, evaluate, load_query_set, optimize
from demur.cli.stages import TerminalProgress
from demur.files import safe_name
from demur.optimization.methods import method_names
from demur.prompts import BASIC_PROMPTS
from demur.queries import SPLITS
from demur.records import to_plain

TOKENS = 64
KINDS = ("", ":borderline", ":ordinary")

ABLATIONS: dict[str, dict[str, Any]] = {
    "likelihood": {},
    "one opening": {"openings": 1},
    "openings mined once": {"remine_every": 0},
    "no penalty on answers": {"weight_answer": 0.0},
    "no focus": {"focus": 0.0},
    "no budget": {"dual_weight": False},
    "no conversations": {"histories": 0.0, "applications": 0.0, "tools": 0.0},
    "no warm-up": {"warm_up": 0.0},
}
"""Settings of the default method, by what they take out of it."""

_LITTLE_MEASURED = {"most_held_out": 10, "third_turn": 0}
"""All prompts are compared at the end, so that a run measures little itself."""


def main() -> None:
    """Train, compare, print and keep."""
    arguments = _arguments()
    variants = _variants(arguments)
    progress = TerminalProgress()
    model = ChatModel.load(
        arguments.model, dtype=arguments.dtype, keep_freed_memory=True, progress=progress
    )
    texts = dict.fromkeys((arguments.basic_prompt, *arguments.texts))
    prompts: list[str | SafetyPrompt | None] = [None, *texts]
    trained: dict[str, dict[str, Any]] = {}
    for name, settings in variants.items():
        for seed in arguments.seeds:
            label = name if len(arguments.seeds) == 1 else f"{name}, seed {seed}"
            folder = arguments.folder / f"{arguments.preset}-{safe_name(name)}-{seed}"
            whole, began = not folder.exists(), time.monotonic()
            found = optimize(
                model,
                **{**_LITTLE_MEASURED, **settings},
                preset=arguments.preset,
                basic_prompt=arguments.basic_prompt,
                seed=seed,
                output=folder,
                progress=progress,
            )
            prompts.append(replace(found.safety_prompt, name=label))
            trained[label] = _facts(found, time.monotonic() - began if whole else None)
    if arguments.only:
        return
    comparison = _compared(model, prompts, arguments, progress)
    Console().print(str(comparison), markup=False, highlight=False)
    what = "ablation" if arguments.ablation else "methods"
    write_results(
        f"{what}-{Path(model.name).name}-{arguments.preset}-{arguments.split}",
        {
            "model": model.name,
            "dtype": model.record.dtype,
            "device": model.record.device,
            "preset": arguments.preset,
            "judge": "default",
            "tokens": TOKENS,
            "seeds": arguments.seeds,
            "trained": trained,
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


def _variants(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The settings of each prompt that is trained, by its name."""
    found = ABLATIONS if arguments.ablation else {one: {"method": one} for one in arguments.methods}
    for name in arguments.only or ():
        if name not in found:
            stop(f"--only {name!r} is not among {', '.join(found)}.")
    return {name: found[name] for name in arguments.only or found}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="qwen2.5-coder-0.5b")
    parser.add_argument("--methods", nargs="+", default=list(method_names()))
    parser.add_argument("--ablation", action="store_true", help="take out one term at a time")
    parser.add_argument("--only", nargs="+", help="methods or terms to train, without comparing")
    parser.add_argument(
        "--texts", nargs="*", default=list(BASIC_PROMPTS), help="hand-written prompts to compare"
    )
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--basic-prompt", default="long")
    parser.add_argument("--most", type=int, help="queries of each set that are measured, at most")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--folder", type=Path, default=Path("demur-methods"))
    return parser.parse_args()


def _facts(run: Run, seconds: float | None) -> dict[str, Any]:
    """What is kept of a run: how long it took, what it read, and which epoch was chosen.

    Args:
        run: the run.
        seconds: how long it took; None where a part of it was there already.
    """
    scored = None if run.results.epoch is None else run.history[run.results.epoch - 1].validation
    return {
        "seconds": None if seconds is None else round(seconds, 1),
        "harmful": run.settings.anchors.harmful,
        "harmless": run.settings.anchors.harmless,
        "epoch": run.results.epoch,
        "scored_on_validation": None
        if scored is None
        else {
            "harmful": round(scored.harmful, 3),
            "harmless": round(scored.harmless, 3),
            **({} if scored.ranking is None else to_plain(scored.ranking)),
        },
    }


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
        seed=arguments.seeds[0],
        output=arguments.folder / f"{split}-{'ablation' if arguments.ablation else 'methods'}",
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
