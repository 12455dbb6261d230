"""Small charts, drawn as SVG when the page is made, so that they need no script."""

from __future__ import annotations

from collections.abc import Sequence

from demur.report.subject import Chart, Dot

WIDTH, HEIGHT = 240.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 30.0


def chart_svg(chart: Chart) -> dict[str, object]:
    """Places of all parts of a chart in units of its view box; the page's template draws them."""
    known = [(place, value) for place, value in enumerate(chart.values, 1) if value is not None]
    values = [value for _, value in known]
    low, high = chart.bounds or _bounds(values)
    count = max(len(chart.values), 2)

    def x(place: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place - 1) / (count - 1)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    best = max(known, key=lambda one: one[1]) if known else (1, low)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "line": " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in known),
        "dots": [(round(x(place), 1), round(y(value), 1)) for place, value in known]
        if len(known) <= 12
        else [(round(x(best[0]), 1), round(y(best[1]), 1))],
        "ticks": [(round(y(value), 1), _short(value)) for value in (low, (low + high) / 2, high)],
        "first": 1,
        "last": len(chart.values),
        "baseline": None if chart.baseline is None else round(y(chart.baseline), 1),
        "summary": f"{chart.title}: " + _summary(chart, known),
    }


def dot_groups(dots: Sequence[Dot]) -> list[tuple[str, list[Dot]]]:
    """The dots of each group with its title, in their order."""
    groups: dict[str, list[Dot]] = {}
    for dot in dots:
        groups.setdefault(dot.group, []).append(dot)
    return list(groups.items())


def share(value: float) -> str:
    """A rate as a place along an axis, for example `56.3%`."""
    return f"{100 * value:.1f}%"


def _bounds(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(0.0, *values), max(values)
    return low, high if high > low else low + 1.0


def _summary(chart: Chart, known: list[tuple[int, float]]) -> str:
    if not known:
        return "no values"
    first, last = known[0], known[-1]
    best = max(known, key=lambda one: one[1])
    return (
        f"{_short(first[1])} at {chart.axis} {first[0]}, {_short(last[1])} at {chart.axis} "
        f"{last[0]}, highest {_short(best[1])} at {chart.axis} {best[0]}"
    )


def _short(value: float) -> str:
    """A value with two digits that count, for example `0.38`, `0.015` or `12`."""
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
