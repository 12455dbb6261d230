"""What a set of training queries teaches, in minutes: a linear probe instead of a trained prompt.

    python benchmarks/probe.py [MODEL] [--fit training] [--on validation] [--dtype bfloat16]

Reads the model's hidden states without a prompt, fits a probe to one of the built-in splits and
tries it on another. The layer and the penalty are chosen by cross-validation on the first. Prints
where the probe errs, by kind, category and form, so that a set can be grown there, and keeps the
numbers in `benchmarks/results/`. Use `validation` to grow the training set and `test` to report.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from rich.console import Console

from common import run, write_results
from demur import ChatModel, load_query_set
from demur.cli.screen import new_table, one_line
from demur.cli.stages import TerminalProgress
from demur.errors import DemurError
from demur.evaluation.statistics import rate_over_queries
from demur.geometry import ALLOWED, Probe, area_under_curve, fit_probe, found_at, paired_folds
from demur.queries import KINDS, SPLITS
from demur.records import Label, Query, transcript_of

FOLDS = 5
LEAST, MOST_SHOWN, DEEPEST = 4, 15, 20
"""Fewest queries of a group in the tables, groups in a table, and mistakes that are listed."""

FloatArray = NDArray[numpy.float64]


@dataclass(frozen=True)
class Asked:
    """A query of a built-in split."""

    query: Query
    kind: str
    category: str
    form: str

    @property
    def harmful(self) -> bool:
        """Whether it is harmful."""
        return self.kind == "harmful"


def main() -> None:
    """Read, fit, try, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="qwen2.5-coder-0.5b")
    parser.add_argument("--fit", default="training", choices=SPLITS)
    parser.add_argument("--on", default="validation", choices=SPLITS)
    parser.add_argument("--most", type=int, help="queries of each kind, at most")
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()

    model = ChatModel.load(arguments.model, dtype=arguments.dtype)
    fitted, tried = (load_split(name, arguments.most) for name in (arguments.fit, arguments.on))
    began = time.monotonic()
    states, others = read_states(model, fitted), read_states(model, tried)
    read = time.monotonic()
    harmful = [one.harmful for one in fitted]
    probe = fit_probe(states, harmful, paired_folds(tuple(harmful), FOLDS))
    results = {
        "model": model.name,
        "dtype": model.record.dtype,
        "device": model.record.device,
        "fitted": {"set": arguments.fit, **counts(fitted)},
        "tried": {"set": arguments.on, **counts(tried)},
        "layer": f"{probe.layer} of {probe.layers}",
        "penalty": probe.penalty,
        "auc_on_fitted_cross_validated": round(probe.auc, 3),
        "seconds": {
            "reading": round(read - began, 1),
            "fitting": round(time.monotonic() - read, 1),
        },
        **figures(probe, others, tried),
    }
    show(results)
    write_results(f"probe-{Path(model.name).name}", results)


def load_split(name: str, most: int | None) -> list[Asked]:
    """The queries of a built-in split: harmful ones, their twins in the same order, ordinary ones.

    Args:
        name: name of the split.
        most: largest number of queries of each kind; all of them by default.
    """
    source = files("demur.queries") / "sets" / f"{name}.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    found: list[Asked] = []
    for kind in ("harmful", *KINDS):
        label: Label = "harmful" if kind == "harmful" else "harmless"
        spec = name if kind == "harmful" else f"{name}:{kind}"
        own = [row for row in rows if row["kind"] == kind]
        queries = load_query_set(spec, label)
        found += [
            Asked(query, kind, row["category"], row["form"])
            for query, row in zip(queries, own, strict=True)
        ][:most]
    return found


def read_states(model: ChatModel, asked: Sequence[Asked]) -> Any:
    """(N, layers, d), the outputs of every layer without a prompt."""
    with TerminalProgress().stage("Reading every layer", len(asked), "queries") as stage:
        states = model.represent_layers([one.query for one in asked], None, stage)
    if states is None:
        raise DemurError(f"The layers of {model.name} cannot be told apart: use another model.")
    return states


def counts(asked: Sequence[Asked]) -> dict[str, int]:
    """How many queries there are of each kind."""
    return {kind: sum(one.kind == kind for one in asked) for kind in ("harmful", *KINDS)}


def figures(probe: Probe, states: Any, asked: Sequence[Asked]) -> dict[str, Any]:
    """How well the probe does on queries that it was not fitted to."""
    scores = probe.scores(states)
    sides = numpy.array([one.harmful for one in asked])
    wrong = (scores > 0) != sides
    found: dict[str, Any] = {"auc": {}, "found": {}}
    for name in ("all", *KINDS):
        chosen = numpy.array([one.harmful or name in ("all", one.kind) for one in asked])
        found["auc"][name] = round(area_under_curve(scores[chosen], sides[chosen]), 3)
        found["found"][name] = {
            f"{100 * share:.0f} %": round(
                float(found_at(scores[chosen], sides[chosen], share).mean()), 3
            )
            for share in ALLOWED
        }
    found["wrong"] = grouped(wrong, asked, lambda one: one.kind)
    for kind in ("harmful", *KINDS):
        rows = [row for row, one in enumerate(asked) if one.kind == kind]
        mine = [asked[row] for row in rows]
        found[f"wrong, {kind}, by category"] = grouped(wrong[rows], mine, lambda one: one.category)
        found[f"wrong, {kind}, by form"] = grouped(wrong[rows], mine, lambda one: one.form)
    order = [int(row) for row in numpy.argsort(-numpy.abs(scores)) if wrong[row]]
    found["deepest_mistakes"] = [
        {
            "kind": asked[row].kind,
            "category": asked[row].category,
            "query": transcript_of(asked[row].query),
            "logit": round(float(scores[row]), 2),
        }
        for row in order[:DEEPEST]
    ]
    return found


def grouped(
    wrong: NDArray[numpy.bool_], asked: Sequence[Asked], group: Callable[[Asked], str]
) -> dict[str, str]:
    """The rate of mistakes in each group with its interval and size, the worst first."""
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for mistake, one in zip(wrong, asked, strict=True):
        groups[group(one)].append(float(mistake))
    ordered = sorted(groups.items(), key=lambda item: (-numpy.mean(item[1]), item[0]))
    return {name: f"{rate_over_queries(values)} of {len(values)}" for name, values in ordered}


def show(results: dict[str, Any]) -> None:
    """Print the numbers."""
    console = Console()
    fitted, tried = results["fitted"], results["tried"]
    console.print(
        f"{results['model']} ({results['dtype']}): layer {results['layer']}, fitted to {fitted}, "
        f"tried on {tried}, {results['seconds']} seconds",
        markup=False,
    )
    table = new_table("Harmful queries against harmless ones")
    for column in ("harmless", "AUC", "found at 2 %", "found at 5 %"):
        table.add_column(column)
    for name, auc in results["auc"].items():
        table.add_row(
            name, str(auc), *(f"{100 * one:.0f} %" for one in results["found"][name].values())
        )
    console.print(table)
    for name, groups in results.items():
        if name.startswith("wrong"):
            table = new_table(f"{name} (the worst {MOST_SHOWN} with {LEAST} queries or more)")
            table.add_column("group")
            table.add_column("wrong")
            large = [item for item in groups.items() if int(item[1].split()[-1]) >= LEAST]
            for item in large[:MOST_SHOWN]:
                table.add_row(*item)
            console.print(table)
    for one in results["deepest_mistakes"]:
        console.print(
            f"{one['logit']:+.2f} {one['kind']}, {one['category']}: {one_line(one['query'], 90)}",
            markup=False,
        )


if __name__ == "__main__":
    run(main)
