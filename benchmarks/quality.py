"""Refusal under no prompt, the basic prompt and an optimized one, on queries it never saw.

    python benchmarks/quality.py RUN [--samples 5] [--name qwen2.5-coder-0.5b]

The queries are those of the paper's out-of-domain benchmarks and its held-out harmless ones, read
from the reference data. Each query's rate is a mean over samples; intervals take the query as the
unit. Prints the table and keeps it in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from rich.console import Console

from common import reference, write_results
from demur.chat import ChatModel, Condition
from demur.cli.screen import TerminalProgress
from demur.evaluation.measuring import measure
from demur.evaluation.statistics import rate_over_queries
from demur.judges import get_refusal_judge
from demur.optimization import OptimizeSettings, Run
from demur.prompts import SafetyPrompt
from demur.queries import load_query_set
from demur.runs import Queries

BENCHMARKS = {
    "MaliciousInstruct (harmful)": ("malicious_instruct", True),
    "AdvBench, first 100 (harmful)": ("advbench_first100", True),
    "held-out of the paper (harmless)": ("dro_harmless_heldout", False),
}


def main() -> None:
    """Measure a finished run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", help="where the model is, if not where the run had it")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--name", help="of the results file; the model's name by default")
    arguments = parser.parse_args()

    run = Run.load(arguments.run)
    settings = OptimizeSettings(
        **{name: run.settings[name] for name in OptimizeSettings.model_fields}
    )
    protocol = dataclasses.replace(
        settings.protocol,
        sampling=dataclasses.replace(settings.protocol.sampling, samples=arguments.samples, seed=1),
        kept=arguments.samples,
    )
    identity = run.settings["model"]
    model = ChatModel.load(arguments.model or identity["name"], dtype=identity["dtype"])
    judge = get_refusal_judge(settings.judge)
    basic = SafetyPrompt("basic", run.settings["basic_prompt"]["text"])
    optimized = dataclasses.replace(run.safety_prompt, name="optimized")
    results: dict[str, dict[str, str]] = {}
    for title, (file, harmful) in BENCHMARKS.items():
        texts = load_query_set(
            str(reference(f"queries/{file}.txt")), "harmful" if harmful else "harmless"
        ).texts
        queries = Queries(texts, (harmful,) * len(texts))
        results[title] = {}
        for prompt in (None, basic, optimized):
            condition = Condition(prompt, run.settings["system_prompt"])
            progress = TerminalProgress()
            measured = measure(
                model, queries, condition, protocol, judge, progress, description=title
            )
            results[title][condition.name] = str(rate_over_queries(measured.refusal_rates()))
    console = Console()
    for title, rates in results.items():
        console.print(f"{title}: refused", *(f"\n    {name:10} {rates[name]}" for name in rates))
    write_results(
        f"quality-{arguments.name or Path(model.name).name}",
        {
            "model": identity["name"],
            "dtype": str(model.dtype).removeprefix("torch."),
            "preset": run.settings["preset"],
            "samples": arguments.samples,
            "tokens": settings.tokens_harmful,
            "refused": results,
            "threads": torch.get_num_threads(),
        },
    )


if __name__ == "__main__":
    main()
