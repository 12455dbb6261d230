"""Refusal under no prompt, the basic prompt and an optimized one, on queries it never saw.

    python benchmarks/quality.py RUN [--samples 5] [--name qwen2.5-coder-0.5b]

The queries are those of the paper's out-of-domain benchmarks and its held-out harmless ones, which
demur fetches from where they are published (`--benchmark-dir` takes them from a folder). Each
query's rate is a mean over samples; intervals take the query as the unit. Prints the table and
keeps it in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from common import run, write_results
from demur.chat.chosen import load_chosen
from demur.cli.stages import TerminalProgress
from demur.evaluation.measuring import measure
from demur.evaluation.statistics import rate_over_queries
from demur.judges import as_refusal_judge
from demur.optimization import Run
from demur.prompts import Condition, SafetyPrompt
from demur.queries import QuerySet, labelled, load_benchmark
from demur.records import MeasurementStore

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
    record = optimized_run.settings
    settings = record.settings
    protocol = settings.sampling.protocol(seed=1)
    protocol = dataclasses.replace(
        protocol,
        sampling=dataclasses.replace(protocol.sampling, samples=arguments.samples),
        kept=arguments.samples,
    )
    loading = record.load.model_copy(update={"model": arguments.model or record.load.model})
    progress = TerminalProgress()
    model = load_chosen(loading, progress)
    judge = as_refusal_judge(settings.judge)
    basic = SafetyPrompt("basic", record.basic_prompt.text)
    optimized = dataclasses.replace(optimized_run.safety_prompt, name="optimized")
    results: dict[str, dict[str, str]] = {}
    with TemporaryDirectory() as folder:
        store = MeasurementStore(Path(folder))
        for title, query_set in sets.items():
            queries = labelled(title, query_set)
            results[title] = {}
            for prompt in (None, basic, optimized):
                condition = Condition(prompt, record.basic_prompt.system_prompt)
                measured = measure(
                    model,
                    queries,
                    condition,
                    protocol,
                    judge,
                    store,
                    progress=progress,
                    description=title,
                )
                results[title][condition.name] = str(rate_over_queries(measured.refusal_rates()))
    console = Console()
    for title, rates in results.items():
        console.print(f"{title}: refused", *(f"\n    {name:10} {rates[name]}" for name in rates))
    write_results(
        f"quality-{arguments.name or Path(model.name).name}",
        {
            "model": record.model.name,
            "dtype": model.record.dtype,
            "preset": settings.preset,
            "samples": arguments.samples,
            "tokens": protocol.tokens_harmful,
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
