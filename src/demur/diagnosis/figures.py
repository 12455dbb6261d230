"""The figures: who lies where, who is refused, what optimization moved, and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from demur.diagnosis.layers import first_good_layer
from demur.diagnosis.plane import Boundary, FloatArray, Group, Plane, groups_csv
from demur.diagnosis.sheet import Sheet
from demur.diagnosis.style import colour, label_axes, marker
from demur.drawing import NEUTRAL, SHAPES, drawing, new_figure, render, shown
from demur.files import write_bytes
from demur.records import Label
from demur.spreadsheets import csv_text, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.6
MARGIN = 0.05
FLATTEST = 0.65
AROUND = 1.75
"""Inches above and below a plane: the title, the axis and the legend."""
DIRECTION = 0.24
"""Length of the refusal direction, as a share of the frame."""


def draw_figures(folder: Path, plane: Plane, sheet: Sheet) -> None:
    """Write every figure as PNG and SVG, with the data behind it as CSV.

    Args:
        folder: folder of the figures.
        plane: points, boundaries and centres.
        sheet: numbers, of which the layers are drawn.
    """
    with drawing():
        figures = {
            "a-groups": (_groups(plane), groups_csv(plane.anchors)),
            "b-refusal": (_refusal(plane), groups_csv(plane.anchors)),
        }
        if plane.held_out:
            figures["c-optimized"] = (movement_figure(plane), groups_csv(plane.held_out))
        if sheet.layers:
            figures["d-layers"] = (_layers(sheet), _layers_csv(sheet))
        for name, (figure, data) in figures.items():
            for kind in ("svg", "png"):
                write_bytes(folder / f"{name}.{kind}", render(figure, kind))
            write_bytes(folder / f"{name}.csv", data)


def _groups(plane: Plane) -> Figure:
    figure, axes = _scatter(plane, plane.anchors, "Harmful and harmless queries, by safety prompt")
    places = _places(plane.anchors)
    for group in plane.anchors:
        axes.scatter(*group.points.T, **marker(group.label, places[group.condition]))
    _draw_boundary(axes, plane.harmfulness, "-.")
    for label in ("harmful", "harmless"):
        none, *others = (group for group in plane.anchors if group.label == label)
        for group in others:
            own = colour(group.label, places[group.condition])
            _arrow(axes, none.centre, group.centre, own, "-")
        _draw_centre(axes, none)
    _legend(
        figure,
        axes,
        plane.anchors,
        places,
        [_line("-.", "harmfulness boundary"), *_movement_lines()],
    )
    return figure


def _refusal(plane: Plane) -> Figure:
    title = "The same queries, by refusal probability"
    figure, axes = _scatter(plane, plane.anchors, title, width=0.87 * WIDTH)
    places = _places(plane.anchors)
    shade = None
    for refusing in (False, True):  # those that refuse lie on top
        for group in plane.anchors:
            rows = (group.refusal >= 0.5) == refusing
            shade = axes.scatter(
                group.points[rows, 0],
                group.points[rows, 1],
                c=group.refusal[rows],
                cmap="cividis_r",
                vmin=0,
                vmax=1,
                s=24.0,
                marker=SHAPES[places[group.condition] % len(SHAPES)],
                edgecolors=NEUTRAL,
                linewidths=0.4,
                alpha=0.9,
            )
    assert shade is not None
    bar = figure.colorbar(shade, ax=axes, fraction=0.035, pad=0.02, location="right")
    bar.set_label("refusal probability")
    lines = []
    if plane.refusal is not None:
        _draw_boundary(axes, plane.refusal, "--")
        _draw_normal(axes, plane.refusal)
        lines = [_line("--", "refusal boundary"), _line("-", "refusal direction", width=2.0)]
    shapes = [_shape(condition, place) for condition, place in places.items()]
    _place_legend(figure, [*shapes, *lines])
    return figure


def movement_figure(plane: Plane) -> Figure:
    """Held-out queries over the axes and boundaries of the anchors."""
    figure, axes = _scatter(
        plane, (*plane.held_out, *plane.anchors), "Held-out queries: basic and optimized prompt"
    )
    places = _places(plane.held_out)
    for group in plane.held_out:
        axes.scatter(*group.points.T, **marker(group.label, places[group.condition]))
    lines = [_line("-.", "harmfulness boundary")]
    _draw_boundary(axes, plane.harmfulness, "-.")
    if plane.refusal is not None:
        _draw_boundary(axes, plane.refusal, "--")
        lines.append(_line("--", "refusal boundary"))
    for label in ("harmful", "harmless"):
        none, basic, optimized = (group for group in plane.held_out if group.label == label)
        _arrow(axes, none.centre, basic.centre, NEUTRAL, "--")
        _arrow(axes, basic.centre, optimized.centre, NEUTRAL, "-")
        _draw_centre(axes, none)
    names = [shown(group.condition) for group in plane.held_out[::2]]
    lines.append(_line("--", f"arrow: {names[0]} to {names[1]}", width=1.8))
    lines.append(_line("-", f"arrow: {names[1]} to {names[2]}", width=1.8))
    _legend(figure, axes, plane.held_out, places, lines)
    return figure


def _layers(sheet: Sheet) -> Figure:
    """Small multiples: a panel for each condition, and one for refusal."""
    series = _layer_series(sheet)
    figure = new_figure(max(6.0, 1.75 * len(series)), 2.35)
    panels: Any = figure.subplots(1, len(series), sharex=True, sharey=True, squeeze=False)[0]
    for place, (axes, (title, own, scores)) in enumerate(zip(panels, series, strict=True)):
        numbers = [index for index, score in enumerate(scores, 1) if score is not None]
        known = [score for score in scores if score is not None]
        axes.axhline(0.5, color="#8a8a8a", linestyle=":", linewidth=0.9)
        axes.plot(numbers, known, color=own, linewidth=1.6)
        first = first_good_layer(scores)
        if first is not None:
            score = scores[first - 1]
            axes.plot([first], [score], "o", color=own, markersize=4.5)
            axes.annotate(
                f"layer {first}",
                (first, score),
                xytext=(0, 5),
                textcoords="offset points",
                ha="right" if first > len(scores) / 2 else "left",
                fontsize=8,
                color=NEUTRAL,
            )
        axes.set_title(title, fontsize=9)
        axes.set_ylim(0.3, 1.06)
        axes.set_xlabel("layer")
        if place == 0:
            axes.set_ylabel("AUC, cross-validated")
    figure.suptitle(
        "Where in the model the groups part (dot: the first layer close to the best)",
        x=0.01,
        ha="left",
        fontsize=10.5,
    )
    return figure


def _layer_series(sheet: Sheet) -> list[tuple[str, str, list[float | None]]]:
    """Title, colour and scores of each panel."""
    series: list[tuple[str, str, list[float | None]]] = []
    for place, condition in enumerate(sheet.conditions):
        scores = [layer.harmfulness[place] for layer in sheet.layers]
        if any(score is not None for score in scores):
            title = f"harmful?\n{shown(condition.condition)}"
            series.append((title, colour("harmful", place), scores))
    refusal = [layer.refusal for layer in sheet.layers]
    if any(score is not None for score in refusal):
        series.append(("refused?\nall prompts", NEUTRAL, refusal))
    return series


def _layers_csv(sheet: Sheet) -> bytes:
    rows: list[tuple[int, str, str, float]] = []
    for layer in sheet.layers:
        for condition, auc in zip(sheet.conditions, layer.harmfulness, strict=True):
            if auc is not None:
                rows.append((layer.layer, "harmfulness", condition.condition, rounded(auc)))
        if layer.refusal is not None:
            rows.append((layer.layer, "refusal", "all", rounded(layer.refusal)))
    return csv_text(("layer", "what", "condition", "auc"), rows).encode()


def _scatter(
    plane: Plane, framed: Sequence[Group], title: str, width: float = WIDTH
) -> tuple[Figure, Axes]:
    """An empty plane, `width` inches of the figure wide, that has room for some groups."""
    points = numpy.concatenate([group.points for group in framed])
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, (0.5 + MARGIN) * (high - low)
    # Neither side so short that the plane would be a strip.
    half = numpy.maximum(half, FLATTEST * half.max() or 1.0)
    figure = new_figure(WIDTH, 0.9 * width * float(half[1] / half[0]) + AROUND)
    axes: Axes = figure.subplots()
    label_axes(axes, plane.axes, plane.explained_variance)
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
    axes.set_autoscale_on(False)
    axes.set_title(title)
    return figure, axes


def _places(groups: Sequence[Group]) -> Mapping[str, int]:
    """The place of each condition, which gives its marks."""
    names = dict.fromkeys(group.condition for group in groups)
    return {name: place for place, name in enumerate(names)}


def _draw_boundary(axes: Axes, boundary: Boundary, style: str) -> None:
    length = float(boundary.weight @ boundary.weight)
    if length == 0:
        return
    foot = -boundary.bias * boundary.weight / length
    along = numpy.array([-boundary.weight[1], boundary.weight[0]])
    axes.axline(tuple(foot), tuple(foot + along), color=NEUTRAL, linestyle=style, linewidth=1.3)


def _draw_normal(axes: Axes, boundary: Boundary) -> None:
    """The refusal direction: an arrow across the boundary, or as near to it as the frame allows."""
    low, high = numpy.array([axes.get_xlim(), axes.get_ylim()]).T
    middle = (low + high) / 2
    unit = boundary.weight / numpy.linalg.norm(boundary.weight)
    distance = (boundary.weight @ middle + boundary.bias) / numpy.linalg.norm(boundary.weight)
    ends = (middle - distance * unit) + numpy.outer(
        [-0.5, 0.5], DIRECTION * float((high - low).min()) * unit
    )
    room = 0.02 * (high - low)
    ends += numpy.maximum(low + room - ends.min(axis=0), 0)
    ends -= numpy.maximum(ends.max(axis=0) - high + room, 0)
    _arrow(axes, ends[0], ends[1], "black", "-", width=2.2)


def _draw_centre(axes: Axes, group: Group) -> None:
    """Where the arrows of a group start."""
    own = colour(group.label, 0)
    axes.plot(*group.centre, "o", markersize=7, color=own, markeredgecolor="black", zorder=6)


def _arrow(
    axes: Axes, start: FloatArray, end: FloatArray, own: str, style: str, width: float = 1.8
) -> None:
    """An arrow with a light rim, so that it stands out from the points."""
    stem = numpy.stack([start, end]).T
    axes.plot(*stem, color="white", linewidth=width + 2.4, zorder=4)
    axes.plot(*stem, color=own, linewidth=width, linestyle=style, zorder=5, dash_capstyle="butt")
    for edge, size, order in (("white", 12.0, 4), (own, 9.0, 5)):
        axes.annotate(
            "",
            xy=tuple(end),
            xytext=tuple(start),
            zorder=order,
            arrowprops={
                "arrowstyle": "-|>,head_width=0.35,head_length=0.7",
                "mutation_scale": size,
                "color": edge,
                "linewidth": 0,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def _legend(
    figure: Figure,
    axes: Axes,
    groups: Sequence[Group],
    places: Mapping[str, int],
    lines: Sequence[Any],
) -> None:
    labels: tuple[Label, ...] = ("harmful", "harmless")
    columns: list[list[Any]] = []
    for label in labels:
        columns.append(
            [
                axes.scatter(
                    [],
                    [],
                    label=f"{label}, {shown(group.condition)}",
                    **marker(label, places[group.condition]),
                )
                for group in groups
                if group.label == label
            ]
        )
    columns.append(list(lines))
    rows = max(map(len, columns))
    handles = [
        handle for column in columns for handle in column + [_line("", "")] * (rows - len(column))
    ]
    _place_legend(figure, handles)


def _place_legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _movement_lines() -> list[Any]:
    return [_line("-", "arrow: none to the prompt", width=1.8)]


def _line(style: Any, label: str, width: float = 1.3) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=NEUTRAL, linestyle=style, linewidth=width, label=label)


def _shape(condition: str, place: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="",
        marker=SHAPES[place % len(SHAPES)],
        markerfacecolor="#d0d0d0",
        markeredgecolor=NEUTRAL,
        markersize=5,
        label=shown(condition),
    )
