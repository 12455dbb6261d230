"""The figure of the README: refused before and after, from committed results.

    python benchmarks/readme_figure.py [--model qwen2.5-coder-1.5b]

Reads `benchmarks/results/standard-MODEL.json` and writes `docs/images/refused.svg`.
"""

from __future__ import annotations

import argparse
import json

import matplotlib as mpl

mpl.use("svg")

from matplotlib.figure import Figure

from common import RESULTS

IMAGE = RESULTS.parents[1] / "docs" / "images" / "refused.svg"
SETS = {
    "test, harmful": "harmful\n(more is better)",
    "test:borderline, harmless": "borderline\n(less is better)",
    "test:ordinary, harmless": "ordinary\n(less is better)",
}
PROMPTS = {
    "none": ("no safety prompt", "#8a8f98", "o"),
    "long": ("hand-written prompt", "#c77700", "s"),
    "optimized": ("trained by demur", "#1f5fbf", "D"),
}


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    model = parser.parse_args().model
    found = json.loads((RESULTS / f"standard-{model}.json").read_text(encoding="utf-8"))["refused"]
    mpl.rcParams.update({"svg.hashsalt": "demur", "svg.fonttype": "none", "font.size": 11})
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    axes = figure.subplots()
    for place, (name, (label, colour, marker)) in enumerate(PROMPTS.items()):
        heights = [-row + 0.24 - 0.24 * place for row in range(len(SETS))]
        rows = [found[one][name] for one in SETS]
        values = [100 * row["refused"] / row["queries"] for row in rows]
        low = [value - 100 * row["interval"][0] for value, row in zip(values, rows, strict=True)]
        high = [100 * row["interval"][1] - value for value, row in zip(values, rows, strict=True)]
        axes.errorbar(
            values,
            heights,
            xerr=[low, high],
            fmt=marker,
            color=colour,
            label=label,
            capsize=3,
            markersize=6,
        )
    axes.set_yticks([-row for row in range(len(SETS))], list(SETS.values()))
    axes.set_xlim(0, 100)
    axes.set_xlabel("queries refused (%), with intervals of 95 %")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#e3e5e8")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.patch.set_facecolor("white")
    figure.savefig(IMAGE, metadata={"Date": None})
    print(f"{IMAGE.name} shows {model}.")


if __name__ == "__main__":
    main()
