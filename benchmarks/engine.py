"""The engine against the straightforward way: time, memory and disk, as ratios in one run.

    python benchmarks/engine.py [MODEL ...] [--shape NAME] [--growth] [--dtype bfloat16]
        [--device cuda] [--only step]

The straightforward way is what a research script does: whole conversations with the logits and
hidden states of all positions; one query at a time for representations; `generate` at a fixed
length, one query at a time, for responses; one whole conversation at a time for the scores of four
refusal openings behind each query, and for a training step on them. PEFT's prompt tuning stands
beside the training step. So do fair peers (`engine_peers.py`): a training step on one padded batch
without logits, and `generate` on all queries at once, padded on the left. demur's processes keep
freed memory, as its command line does; the others leave the allocator alone.
`--shape` takes a model of random weights (`engine_shapes.py`), for a machine without a network.
Each measurement runs in a process of its own, so that its peak memory is its own, and the two of a
comparison run one after the other. Prints the ratios and keeps them in `benchmarks/results/`; with
`--growth` also how the cost of a training step grows, as a table and a plot.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common import write_results
from engine_shapes import PREFIX, SHAPES
from growth import growth_table, plot_growth

Result = dict[str, Any]

WAYS = Path(__file__).with_name("engine_ways.py")
SETTINGS = (
    "queries",
    "prompt",
    "samples",
    "tokens",
    "few",
    "repetitions",
    "dtype",
    "device",
    "only",
)
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
ASKED = {
    "training step": 6.5,
    "training step against a padded batch": 6.0,
    "training step against PEFT": 9.0,
    "peak memory of a step": 2.0,
    "representations": 8.0,
    "disk of representations": 100.0,
    "responses a second": 6.0,
    "responses a second against a batch": 4.0,
    "verdicts that agree": 0.995,
    "share of the matrix-product peak": 0.75,
}


def measure(what: str, way: str, **task: Any) -> Result:
    """Run one measurement; its error in one line where it failed (out of memory, for example)."""
    described = json.dumps({"what": what, "way": way, "begun": time.time(), **task})
    done = subprocess.run(
        [sys.executable, WAYS, described],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        if done.returncode < 0:
            return {"error": f"killed by signal {-done.returncode}, usually because memory ran out"}
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        return {"error": last[:200]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(console: Console, **task: Any) -> Result:
    """All comparisons on one model."""
    found: Result = {}
    wanted = [
        ("step", "straightforward"),
        ("step", "batched"),
        ("step", "demur"),
        ("step", "peft"),
        ("represent", "straightforward"),
        ("represent", "demur"),
        ("score", "straightforward"),
        ("score", "demur"),
        ("likelihood", "straightforward"),
        ("likelihood", "demur"),
        ("sample", "straightforward"),
        ("sample", "batched"),
        ("sample", "demur"),
    ]
    wanted = [one for one in wanted if task["only"] in (None, one[0])]
    for what, way in wanted:
        with console.status(f"{task['model']}: {what}, {way}"):
            found[f"{what} {way}"] = one = measure(what, way, **task)
        told = one.get("error") or f"{one['seconds']:.2f} s, {one['peak'] / 2**30:.2f} GiB"
        console.print(f"{task['model']}: {what}, {way}: {told}", markup=False, highlight=False)
    return found


def ratios(found: Result) -> dict[str, float | None]:
    """What the comparisons come to; None where a measurement failed."""

    def value(name: str, key: str) -> float:
        return float(found.get(name, {}).get(key, "nan"))

    def faster(what: str, amount: str, other: str = "straightforward") -> float:
        rates = [
            value(f"{what} {way}", amount) / value(f"{what} {way}", "seconds")
            for way in ("demur", other)
        ]
        return rates[0] / rates[1]

    step, plain = "step demur", "step straightforward"
    both = {
        "training step": value(plain, "seconds") / value(step, "seconds"),
        "training step against a padded batch": value("step batched", "seconds")
        / value(step, "seconds"),
        "training step against PEFT": value("step peft", "seconds") / value(step, "seconds"),
        "peak memory of a step": value(plain, "peak") / value(step, "peak"),
        "representations": value("represent straightforward", "seconds")
        / value("represent demur", "seconds"),
        "disk of representations": value("represent straightforward", "bytes")
        / value("represent demur", "bytes"),
        "scores a second": faster("score", "scores"),
        "likelihood step": faster("likelihood", "scores"),
        "responses a second": faster("sample", "responses"),
        "responses a second against a batch": faster("sample", "responses", "batched"),
        "verdicts that agree": value("sample demur", "agreement"),
        "share of the matrix-product peak": value(step, "operations")
        / value(step, "seconds")
        / value(step, "matrix peak"),
    }
    return {name: None if number != number else number for name, number in both.items()}


def show(console: Console, model: str, found: Result, summary: dict[str, float | None]) -> None:
    """Draw a table of the ratios beside what was asked, and the errors."""
    table = Table("what", "asked", "measured", title=f"{model}: demur against the straightforward")
    for name, number in summary.items():
        asked = f"{ASKED[name]:g}" if name in ASKED else "-"
        table.add_row(name, asked, "-" if number is None else f"{number:.3g}")
    console.print(table)
    starts = [result["started"] for result in found.values() if "started" in result]
    if starts:
        console.print(f"From start to a loaded model: {min(starts):.1f} to {max(starts):.1f} s.")
    for name, result in found.items():
        if "error" in result:
            console.print(f"{name}: {result['error']}", markup=False)


def main() -> None:
    """Compare, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", default=[])
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        choices=sorted(SHAPES),
        help="a model of random weights by its shape",
    )
    parser.add_argument("--only", choices=("step", "represent", "score", "likelihood", "sample"))
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--prompt", type=int, default=100, help="tokens of the safety prompt")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--few", type=int, default=8, help="queries for `generate`")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--growth", action="store_true", help="how cost grows, too")
    parser.add_argument("--name", default="engine", help="of the results file")
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    arguments.models += [f"{PREFIX}{shape}" for shape in arguments.shape]
    arguments.models = arguments.models or list(MODELS)
    console = Console()
    results: Result = {"settings": settings, "asked": ASKED, "models": {}}
    for model in arguments.models:
        found = compare(console, **settings, model=model)
        summary = ratios(found)
        show(console, model, found, summary)
        results["models"][model] = {"ratios": summary, "measured": found}
        write_results(arguments.name, results)
    if arguments.growth:
        growth = growth_table(console, measure, arguments.models, settings)
        results["growth"] = growth
        write_results(arguments.name, results)
        plot_growth(growth, Path(__file__).parent / "results" / f"{arguments.name}-growth.svg")


if __name__ == "__main__":
    main()
