"""How the cost of a training step grows with the prompt, the queries and the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Result = dict[str, Any]

PROMPTS = (25, 50, 100, 200, 400)
QUERIES = (50, 100, 200, 400, 800)
SECONDS = (2, 5, 10, 20, 50, 100)


def growth_table(
    console: Console, measure: Callable[..., Result], models: Sequence[str], settings: Result
) -> list[Result]:
    """Measure steps of the engine over prompt lengths and query counts; print a table."""
    points = [("prompt", length) for length in PROMPTS]
    points += [("queries", count) for count in QUERIES]
    table = Table("model", "prompt tokens", "queries", "seconds a step", "peak GiB", title="Growth")
    rows = []
    for model in models:
        for name, value in points:
            task = {**settings, "model": model, "repetitions": 1, name: value}
            with console.status(f"{model}: {value} {name}"):
                found = measure("step", "demur", **task)
            rows.append({"model": model, "varied": name, "value": value, **found})
            seconds, peak = found.get("seconds"), found.get("peak")
            table.add_row(
                model,
                str(task["prompt"]),
                str(task["queries"]),
                "-" if seconds is None else f"{seconds:.2f}",
                "-" if peak is None else f"{peak / 2**30:.2f}",
            )
    console.print(table)
    return rows


def plot_growth(rows: Sequence[Result], file: Path) -> None:
    """Draw seconds a step over prompt length and over queries, a line for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    titles = {"prompt": "tokens of the prompt", "queries": "queries a step"}
    for axis, (varied, title) in zip(axes, titles.items(), strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            of_model = [
                row
                for row in rows
                if row["model"] == model and row["varied"] == varied and "seconds" in row
            ]
            axis.plot(
                [row["value"] for row in of_model],
                [row["seconds"] for row in of_model],
                marker="o",
                label=model,
            )
        axis.set(xscale="log", yscale="log", xlabel=title)
        ticks = PROMPTS if varied == "prompt" else QUERIES
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_yticks(SECONDS, [str(tick) for tick in SECONDS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds a step")
    axes[1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
