"""What a report shows of one folder, as plain data that a page can be made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of short texts.

    Attributes:
        title: what it is about.
        columns: their names; those after the first hold numbers unless named in `words`.
        rows: each as long as `columns`.
        note: how to read it, or nothing.
        words: columns of words beside the first.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query:
    """One query that responses belong to.

    Attributes:
        text: never trusted.
        label: `harmful`, `harmless` or nothing.
        category: or nothing.
        set: the name of the query set.
    """

    text: str
    label: str
    category: str
    set: str


@dataclass(frozen=True)
class ShownResponse:
    """One response in the table.

    Attributes:
        query: its place among the queries.
        condition: its place among the conditions.
        text: never trusted.
        refused: the judge's verdict.
        harm: the harm judge's verdict, or nothing.
    """

    query: int
    condition: int
    text: str
    refused: bool
    harm: str = ""


@dataclass(frozen=True)
class Chart:
    """A line over epochs or layers; the data of one of the small multiples.

    Attributes:
        title: what it shows.
        values: one for each epoch or layer, from 1.
        axis: what the horizontal axis counts.
        bounds: of the vertical axis, or None to fit it.
        baseline: a value to mark, or None.
    """

    title: str
    values: tuple[float | None, ...]
    axis: str
    bounds: tuple[float, float] | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class Subject:
    """One run, diagnosis or evaluation.

    Attributes:
        kind: `run`, `diagnosis` or `evaluation`.
        title: of the model and what was done with it.
        verdict: statements, the first one first.
        tables: the first stands beside the verdict, the others below.
        conditions: the names of the safety prompts, in their order.
        queries: of all sets.
        responses: to them.
        left_out: how many responses are in the folder and not here.
        shortened: how many characters a response was cut to, or None.
        views: of the scatter, see `demur.report.scatter`.
        frame: what all views share: axes and boundaries.
        charts: small multiples.
        charts_title: what they show.
        facts: settings and versions.
        date: when it was finished.
        command: how to do it again.
    """

    kind: str
    title: str
    verdict: tuple[str, ...]
    tables: tuple[Table, ...]
    conditions: tuple[str, ...]
    queries: Sequence[Query] = ()
    responses: Sequence[ShownResponse] = ()
    left_out: int = 0
    shortened: int | None = None
    views: Sequence[Mapping[str, Any]] = ()
    frame: Mapping[str, Any] | None = None
    charts: tuple[Chart, ...] = ()
    charts_title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    command: str = ""


def rate_text(rate: Mapping[str, Any] | None) -> str:
    """A stored rate with its interval, for people."""
    if rate is None:
        return ""
    value, interval = rate["count"] / rate["queries"], rate["interval"]
    return f"{100 * value:.1f} % ({100 * interval['low']:.0f} to {100 * interval['high']:.0f})"


def percent(rate: Mapping[str, Any]) -> str:
    """A stored rate without its interval."""
    return f"{100 * rate['count'] / rate['queries']:.0f} %"


def flat_facts(settings: Mapping[str, Any], versions: Mapping[str, Any]) -> dict[str, str]:
    """Settings and versions as a list of names and short texts."""
    facts: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            for key, inner in value.items():
                facts[f"{name.replace('_', ' ')}: {key.replace('_', ' ')}"] = _fact(inner)
        elif isinstance(value, list):
            names = [_named(one) for one in value]
            facts[name.replace("_", " ")] = ", ".join(names) or "none"
        else:
            facts[name.replace("_", " ")] = _fact(value)
    for name, value in versions.items():
        facts[f"version of {name}"] = _fact(value)
    return facts


def _named(value: Any) -> str:
    return _fact(value.get("name")) if isinstance(value, Mapping) else _fact(value)


def _fact(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
