"""Rates of a comparison as dots with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.drawing import COOL, NEUTRAL, SHAPES, WARM, drawing, new_figure, render, shown
from demur.errors import DemurError
from demur.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (NEUTRAL, WARM[1], COOL[1], COOL[3], WARM[2], COOL[0], WARM[5], COOL[6])
_ROW = 0.75
"""The part of a row's height over which its dots are spread."""


@dataclass(frozen=True)
class Dot:
    """A rate of one prompt on one set.

    Attributes:
        row: title of the set.
        prompt: name of the prompt.
        value: the rate, in [0, 1].
        low: lower end of its interval.
        high: upper end of its interval.
    """

    row: str
    prompt: str
    value: float
    low: float
    high: float


class Plot:
    """A figure, which a notebook shows by itself.

    Attributes:
        figure: the figure of matplotlib.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | Path) -> None:
        """Write the figure; the ending `.png`, `.svg` or `.pdf` says in which format.

        Raises:
            DemurError: the ending is another one, or the file cannot be written.
        """
        kind = Path(path).suffix.lstrip(".").lower()
        if kind not in ("png", "svg", "pdf"):
            raise DemurError(
                f"A figure cannot be written to {str(path)!r:.200}: end it in .png, .svg or .pdf."
            )
        with drawing():
            write_bytes(Path(path), render(self.figure, kind))

    def _repr_png_(self) -> bytes:
        with drawing():
            return render(self.figure, "png")


def draw_dots(dots: Sequence[Dot], label: str) -> Plot:
    """A row for each set, and in it a dot with an interval for each prompt.

    Args:
        dots: the rates, in the order of the rows and of the prompts.
        label: title of the axis.
    """
    rows = list(dict.fromkeys(dot.row for dot in dots))
    prompts = list(dict.fromkeys(dot.prompt for dot in dots))
    with drawing():
        step = _ROW / max(3, len(prompts))
        figure = new_figure(7.2, 1.0 + (0.35 + 0.2 * len(prompts)) * max(1, len(rows)))
        axes: Axes = figure.subplots()
        for place, prompt in enumerate(prompts):
            own = [dot for dot in dots if dot.prompt == prompt]
            axes.errorbar(
                [100 * dot.value for dot in own],
                [-rows.index(dot.row) - step * (place - (len(prompts) - 1) / 2) for dot in own],
                xerr=[
                    [100 * (dot.value - dot.low) for dot in own],
                    [100 * (dot.high - dot.value) for dot in own],
                ],
                fmt=SHAPES[place % len(SHAPES)],
                color=_COLOURS[place % len(_COLOURS)],
                label=shown(prompt),
                capsize=3,
                markersize=6,
            )
        axes.set_yticks([-row for row in range(len(rows))], [shown_title(row) for row in rows])
        axes.set_xlim(0, 100)
        axes.set_xlabel(label)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        axes.grid(axis="x", color="#e3e5e8")
        axes.set_axisbelow(True)
        if prompts:
            figure.legend(loc="outside upper center", ncols=min(4, len(prompts)))
    return Plot(figure)


def shown_title(title: str) -> str:
    """The title of a set as text in a figure, each of its lines shortened."""
    return "\n".join(shown(line) for line in title.split("\n"))
