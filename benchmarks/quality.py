"""Refusal under no prompt, the basic prompt and an optimized one, on queries it never saw.

    python benchmarks/quality.py RUN [--samples 5] [--name qwen2.5-coder-0.5b]

The queries are those of the paper's out-of-domain benchmarks and its held-out harmless ones, which
demur fetches from where they are published (`--benchmark-dir` takes them from a folder). Each
query's rate is a mean over samples; intervals take the query as the
unit. Prints the table and keeps it in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from rich.console import Console

from common import run, write_results
from demur.chat import ChatModel, Condition
from demur.cli.screen import TerminalProgress
from demur.evaluation.measuring import measure
from demur.evaluation.statistics import rate_over_queries
from demur.judges import get_refusal_judge
from demur.optimization import OptimizeSettings, Run
from demur.prompts import SafetyPrompt
from demur.queries import QuerySet, load_benchmark
from demur.runs import Queries

BENCHMARKS = {
    "MaliciousInstruct (harmful)": "malicious-instruct",
    "AdvBench, first 100 (harmful)": "advbench",
    "held-out of the paper (harmless)": "dro-harmless-heldout",
}
MOST_QUERIES = 100


def main() -> None:
    """Measure a finished run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", help="where the model is, if not where the run had it")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--benchmark-dir", type=Path, help="with the benchmarks' files")
    parser.add_argument("--name", help="of the results file; the model's name by default")
    arguments = parser.parse_args()

    optimized_run = Run.load(arguments.run)
    sets = load_sets(arguments.benchmark_dir)
    settings = OptimizeSettings(
        **{name: optimized_run.settings[name] for name in OptimizeSettings.model_fields}
    )
    protocol = dataclasses.replace(
        settings.protocol,
        sampling=dataclasses.replace(settings.protocol.sampling, samples=arguments.samples, seed=1),
        kept=arguments.samples,
    )
    identity = optimized_run.settings["model"]
    model = ChatModel.load(arguments.model or identity["name"], dtype=identity["dtype"])
    judge = get_refusal_judge(settings.judge)
    basic = SafetyPrompt("basic", optimized_run.settings["basic_prompt"]["text"])
    optimized = dataclasses.replace(optimized_run.safety_prompt, name="optimized")
    results: dict[str, dict[str, str]] = {}
    for title, query_set in sets.items():
        queries = Queries(query_set.texts, (query_set.label == "harmful",) * len(query_set))
        results[title] = {}
        for prompt in (None, basic, optimized):
            condition = Condition(prompt, optimized_run.settings["system_prompt"])
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
            "preset": optimized_run.settings["preset"],
            "samples": arguments.samples,
            "tokens": settings.tokens_harmful,
            "refused": results,
            "threads": torch.get_num_threads(),
        },
    )


def load_sets(folder: Path | None) -> dict[str, QuerySet]:
    """The benchmarks' queries by title."""
    sets: dict[str, QuerySet] = {}
    for title, name in BENCHMARKS.items():
        (queries,) = load_benchmark(name, folder)
        sets[title] = queries.head(MOST_QUERIES)
    return sets


if __name__ == "__main__":
    run(main)
