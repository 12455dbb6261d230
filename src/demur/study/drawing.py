"""The figures of a study, for print: rates with intervals, the trade-off, ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from demur.drawing import COOL, NEUTRAL, SHAPES, WARM, drawing, new_figure, render, shown
from demur.records import Label
from demur.study.figures import Group, StudyFigures
from demur.study.record import UNTRAINED, MethodOf
from demur.study.rows import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("pdf", "svg", "png")
_COLUMNS = 3
_PATHS = ("#d55e00", "#0072b2", "#00695c", "#b0305c", "#542788", "#8c510a", "#2f3e9e", "#404040")


def figures_of(
    table: StudyFigures, methods: Sequence[MethodOf]
) -> Mapping[str, Mapping[str, bytes]]:
    """The figures by name, each as the bytes of its files by kind.

    Args:
        table: the figures of the study.
        methods: methods of the study; those of one base are variants of each other.

    Returns:
        `rates`; `trade-off` where both harmful and harmless queries were measured; and `ablations`
        where a method has variants.
    """
    found: dict[str, Mapping[str, bytes]] = {}
    with drawing():
        drawn = {
            "rates": _rates(table),
            "trade-off": _trade_off(table),
            "ablations": _ablations(table, methods),
        }
        for name, figure in drawn.items():
            if figure is not None:
                figure.draw_without_rendering()  # the layout settles at the second attempt
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # it is the same for every kind of file
                found[name] = {kind: render(figure, kind) for kind in KINDS}
    return found


def _panels(table: StudyFigures, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each model."""
    count = len(table.models)
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(width * columns + 1.2, height * rows + 0.7)
    axes: Any = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    flat: list[Axes] = list(axes.ravel())
    for unused in flat[count:]:
        unused.set_visible(False)
    for model, one in zip(table.models, flat, strict=False):
        one.set_title(shown(model))
    return figure, flat[:count]


def _colours(groups: Sequence[Group]) -> dict[Group, tuple[str, str]]:
    """Colour and shape of each group of queries: warm is harmful, cool is harmless."""
    places = {"harmful": 0, "harmless": 0}
    found: dict[Group, tuple[str, str]] = {}
    for group in groups:
        place = places[group[1]]
        places[group[1]] += 1
        colours = WARM if group[1] == "harmful" else COOL
        found[group] = (colours[(place + 1) % len(colours)], SHAPES[place % len(SHAPES)])
    return found


def _rates(table: StudyFigures) -> Figure | None:
    """Rates as dots with intervals: an arm a line, a panel a model."""
    if not table.figures:
        return None
    colours = _colours(table.groups)
    figure, panels = _panels(table, 3.0, 0.32 * len(table.arms) + 0.5)
    for model, axes in zip(table.models, panels, strict=True):
        for place, group in enumerate(table.groups):
            shift = 0.5 * ((place + 0.5) / len(table.groups) - 0.5)
            for line, arm in enumerate(table.arms):
                one = table.find(model, arm, group)
                if one is None:
                    continue
                mean = 100 * one.mean
                low, high = 100 * one.interval.low, 100 * one.interval.high
                _dot(axes, mean, (low, high), line + shift, *colours[group], group[1])
        axes.set_yticks(range(len(table.arms)), [_line_name(arm) for arm in table.arms])
        axes.set_ylim(len(table.arms) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        axes.set_xlabel("refused, %")
    _legend(
        figure,
        [
            (_group_name(group), colour, shape, group[1])
            for group, (colour, shape) in colours.items()
        ],
    )
    return figure


def _dot(
    axes: Axes,
    mean: float,
    interval: tuple[float, float],
    height: float,
    colour: str,
    shape: str,
    label: Label,
) -> None:
    low, high = interval
    axes.plot([low, high], [height, height], color=colour, linewidth=1.1, zorder=2)
    face = colour if label == "harmful" else "white"
    axes.plot(
        [mean],
        [height],
        marker=shape,
        markersize=4.5,
        color=colour,
        markerfacecolor=face,
        markeredgewidth=1.0,
        zorder=3,
    )


def _line_name(arm: Arm) -> str:
    if arm.method == UNTRAINED:
        return shown(arm.prompt)
    return f"{shown(arm.prompt)} + {shown(arm.method)}"


def _trade_off(table: StudyFigures) -> Figure | None:
    """Harmful queries refused against harmless ones refused: a path a method."""
    if {label for _, label in table.groups} != {"harmful", "harmless"}:
        return None
    methods = list(dict.fromkeys(arm.method for arm in table.arms if arm.method != UNTRAINED))
    starts = list(dict.fromkeys(arm.prompt for arm in table.arms if arm.method != UNTRAINED))
    none, *others = [arm for arm in table.arms if arm.method == UNTRAINED]
    basic = [arm for arm in others if arm.prompt in starts] or others
    figure, panels = _panels(table, 3.0, 3.0)
    for model, axes in zip(table.models, panels, strict=True):
        first, second = _mean(table, model, [none]), _mean(table, model, basic)
        for place, method in enumerate(methods):
            trained = [arm for arm in table.arms if arm.method == method]
            for arm in trained:
                point = _mean(table, model, [arm])
                if point is not None:
                    axes.plot(*point, ".", color=_path(place), alpha=0.5, markersize=5)
            path = [one for one in (first, second, _mean(table, model, trained)) if one]
            if len(path) > 1:
                axes.plot(*zip(*path, strict=True), color=_path(place), linewidth=1.2, zorder=2)
                axes.plot(*path[-1], SHAPES[place % len(SHAPES)], color=_path(place), markersize=6)
        for point, shape in ((first, "x"), (second, "o")):
            if point is not None:
                axes.plot(*point, shape, color=NEUTRAL, markerfacecolor="white", zorder=4)
        axes.set(xlabel="harmless refused, %", ylabel="harmful refused, %")
        axes.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
        axes.grid(color="#e4e4e4", linewidth=0.6)
    handles = [("no prompt", NEUTRAL, "x", "harmful")]
    if basic:
        handles.append(("basic prompts" if starts else "prompts", NEUTRAL, "o", "harmless"))
    handles += [
        (shown(method), _path(place), SHAPES[place % len(SHAPES)], "harmful")
        for place, method in enumerate(methods)
    ]
    _legend(figure, handles)
    return figure


def _path(place: int) -> str:
    return _PATHS[place % len(_PATHS)]


def _mean(table: StudyFigures, model: str, arms: Sequence[Arm]) -> tuple[float, float] | None:
    """Harmless and harmful queries refused in percent: a mean over arms, and over sets."""
    point: list[float] = []
    for label in ("harmless", "harmful"):
        found = [
            one.mean
            for arm in arms
            for group in table.groups
            if group[1] == label and (one := table.find(model, arm, group)) is not None
        ]
        if not found:
            return None
        point.append(100 * sum(found) / len(found))
    return point[0], point[1]


def _ablations(table: StudyFigures, methods: Sequence[MethodOf]) -> Figure | None:
    """What each variant of a method changes against the first one, with intervals."""
    bases: dict[str, list[str]] = {}
    for method in methods:
        bases.setdefault(method.base, []).append(method.name)
    variants = [(names[0], name) for names in bases.values() for name in names[1:]]
    prompts = list(dict.fromkeys(arm.prompt for arm in table.arms if arm.method != UNTRAINED))
    lines = [(prompt, first, second) for prompt in prompts for first, second in variants]
    if not lines or not table.tests:
        return None
    firsts = {first for first, _ in variants}
    origin = shown(*firsts) if len(firsts) == 1 else "each method's first variant"
    colours = _colours(table.groups)
    figure, panels = _panels(table, 3.0, 0.4 * len(lines) + 0.6)
    for model, axes in zip(table.models, panels, strict=True):
        for height, (prompt, first, second) in enumerate(lines):
            for place, group in enumerate(table.groups):
                one = table.test(model, group, Arm(prompt, first), Arm(prompt, second))
                if one is None:
                    continue
                shift = 0.5 * ((place + 0.5) / len(table.groups) - 0.5)
                bounds = (100 * one.interval.low, 100 * one.interval.high)
                point = (100 * one.difference, bounds, height + shift)
                _dot(axes, *point, *colours[group], group[1])
        names = [f"{shown(prompt)}: {shown(second)}" for prompt, _, second in lines]
        axes.set_yticks(range(len(lines)), names)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.axvline(0, color="#8a8a8a", linewidth=0.8, linestyle="--")
        axes.set_xlabel(f"refused, points from {origin}")
    _legend(
        figure,
        [
            (_group_name(group), colour, shape, group[1])
            for group, (colour, shape) in colours.items()
        ],
    )
    return figure


def _group_name(group: Group) -> str:
    return f"{shown(group[0])}, {group[1]}"


def _legend(figure: Figure, entries: Sequence[tuple[str, str, str, str]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=shape,
            color=colour,
            markerfacecolor=colour if label == "harmful" else "white",
            markersize=5,
            label=name,
        )
        for name, colour, shape, label in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
