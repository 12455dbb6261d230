"""How all figures look: legible in print, in grey and to colour-blind eyes.

Warm is harmful and cool is harmless. No window is opened, and matplotlib's own settings stay.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARM = ("#e6a11f", "#d55e00", "#b0305c", "#6d2a12", "#f07c5a", "#8c510a", "#c51b7d", "#402014")
COOL = ("#56b4e9", "#0072b2", "#2f3e9e", "#00695c", "#7fa8d9", "#35978f", "#542788", "#12303f")
SHAPES = ("o", "^", "s", "D", "v", "P", "X", "*")
NEUTRAL = "#404040"

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": NEUTRAL,
    "xtick.color": NEUTRAL,
    "ytick.color": NEUTRAL,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "demur",  # the same figure is the same file
}

_LONGEST_NAME = 22


def shown(name: str) -> str:
    """A name from the user as text in a figure: short, printable, and no formula."""
    text = "".join(one if one.isprintable() else "?" for one in name)
    if len(text) > _LONGEST_NAME:
        # The end tells two names apart: `(2)`, or the ending of a file.
        text = f"{text[: 2 * _LONGEST_NAME // 3]}...{text[-_LONGEST_NAME // 3 :]}"
    return text.replace("$", r"\$")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the style of all figures, whatever the user's own settings are."""
    # A window is never opened, and a name that matplotlib does not know would end the import.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of names in rare scripts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches. No window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png`, `svg` or `pdf` file, without a date in it."""
    target = io.BytesIO()
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # the layout settles at the second attempt
    dates = {"svg": "Date", "pdf": "CreationDate", "png": "Software"}
    metadata = {dates[kind]: None}
    figure.savefig(target, format=kind, dpi=200, facecolor="white", metadata=metadata)
    return target.getvalue()
