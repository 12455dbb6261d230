"""How the figures of a diagnosis mark groups of queries.

Warm is harmful and cool is harmless, filled is harmful and hollow is harmless, and the shape is the
condition: no two groups differ by colour alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demur.drawing import COOL, SHAPES, WARM
from demur.records import Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def colour(label: Label, place: int) -> str:
    """The colour of a label under the `place`-th condition."""
    colours = WARM if label == "harmful" else COOL
    return colours[place % len(colours)]


def marker(label: Label, place: int, size: float = 17.0) -> dict[str, Any]:
    """Keyword arguments of `Axes.scatter` for a group."""
    own = colour(label, place)
    return {
        "marker": SHAPES[place % len(SHAPES)],
        "s": size,
        "facecolors": own if label == "harmful" else "none",
        "edgecolors": own,
        "linewidths": 0.9,
        "alpha": 0.65,
    }


def label_axes(axes: Axes, names: tuple[str, str], explained_variance: tuple[float, float]) -> None:
    """Name the axes of a plane; both have one scale, so that angles are true."""
    first, second = explained_variance
    axes.set_xlabel(f"{names[0]} ({100 * first:.0f} % of the variance)")
    axes.set_ylabel(f"{names[1]} ({100 * second:.0f} %)")
    axes.set_aspect("equal", adjustable="box")
