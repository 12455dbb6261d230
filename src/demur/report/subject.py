"""What a report shows of one run, diagnosis or evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from demur.evaluation.figures import PromptRates
from demur.evaluation.verdict import Kind
from demur.queries import queries_in_words
from demur.records import Harm, Label, Rate, Verdict
from demur.report.again import Again

FEW_QUERIES = 20
"""With fewer queries than this, their number says more than a percentage with its digits."""


@dataclass(frozen=True)
class Table:
    """A table of short texts.

    Attributes:
        title: title of the table.
        columns: names of the columns; those after the first hold numbers unless named in `words`.
        rows: rows, each as long as `columns`.
        note: how to read the table, or nothing.
        words: names of the columns of words beside the first.
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
        text: text of the query, or the transcript of its conversation; never trusted.
        label: label of the query, or None where it is not known.
        category: category of the query, or None.
        set: name of the query set, or None where nothing is told by it.
        own: whether the query is the user's own, neither built in nor of a public benchmark.
        use: what the query was used for, one of the subject's `uses`; empty where all are measured
            alike.
    """

    text: str
    label: Label | None
    category: str | None
    set: str | None
    own: bool = False
    use: str = ""


Showing = Literal["shown", "folded", "redacted"]
"""How the text of a response is shown; in the page's data each is its place here."""


@dataclass(frozen=True)
class ShownResponse:
    """One response in the table.

    Attributes:
        query: place of its query among the queries.
        condition: place of its condition among the conditions.
        text: text of the response; never trusted. Empty where it is redacted.
        verdict: what the response does, or None where the judge of refusal had no verdict.
        harm: verdict of the judge of harm, or None where it was not asked.
        showing: whether the text is shown, folded until it is opened, or left out.
    """

    query: int
    condition: int
    text: str
    verdict: Verdict | None
    harm: Harm | None
    showing: Showing = "shown"


@dataclass(frozen=True)
class Chart:
    """A line over epochs or layers: one of the small multiples.

    Attributes:
        title: what the chart shows.
        values: value of each epoch or layer, from 1.
        axis: what the horizontal axis counts.
        bounds: bounds of the vertical axis, or None to fit it.
        baseline: value to mark, or None.
        note: what the title means, or nothing.
    """

    title: str
    values: tuple[float | None, ...]
    axis: str
    bounds: tuple[float, float] | None = None
    baseline: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Dot:
    """A rate with its interval, one of the chart beside the verdict.

    Attributes:
        group: what the rate is over, for example `Harmful queries of the test set`.
        label: label of those queries, or None where it is not known.
        prompt: name of the prompt.
        place: place of the prompt among those of the chart, which gives its colour.
        rate: the rate of refusals.
    """

    group: str
    label: Label | None
    prompt: str
    place: int
    rate: Rate


@dataclass(frozen=True)
class Series:
    """The queries of a view under one condition, or at one time of the training.

    Attributes:
        name: name of the condition or the time.
        points: place of each query in the plane.
        refused: refusal rate of each query, or None where it is not known.
    """

    name: str
    points: Sequence[tuple[float, float]]
    refused: Sequence[float] | None


@dataclass(frozen=True)
class Arrow:
    """An arrow from the middle of one series to the middle of another.

    Attributes:
        start: place of the series where it starts.
        end: place of the series where it ends.
        dashed: whether it is dashed.
    """

    start: int
    end: int
    dashed: bool = False


@dataclass(frozen=True)
class View:
    """One view of the scatter: the same queries several times.

    Attributes:
        title: title of the view.
        queries: place of each query among the queries of the subject.
        series: series of the view.
        arrows: arrows between series.
        steps: whether the series are steps of the training, shown one at a time.
    """

    title: str
    queries: Sequence[int]
    series: Sequence[Series]
    arrows: Sequence[Arrow] = ()
    steps: bool = False


@dataclass(frozen=True)
class Line:
    """A boundary in the plane: `weight . g + bias = 0`.

    Attributes:
        weight: normal of the line.
        bias: constant term.
    """

    weight: tuple[float, float]
    bias: float


@dataclass(frozen=True)
class Frame:
    """What all views of a subject share.

    Attributes:
        axes: titles of the two axes.
        harmfulness: boundary between harmful and harmless queries.
        refusal: boundary between refused and answered queries, or None where it means nothing.
    """

    axes: tuple[str, str]
    harmfulness: Line
    refusal: Line | None


@dataclass(frozen=True)
class NextStep:
    """Something that can be done next.

    Attributes:
        purpose: what it is for, for example `Talk to the model under this prompt`.
        command: command for a POSIX shell.
    """

    purpose: str
    command: str


@dataclass(frozen=True)
class Subject:
    """One run, diagnosis or evaluation.

    Attributes:
        kind: `run`, `diagnosis`, `evaluation` or `attack`.
        title: model, and what was done with it.
        verdict: statements, the most important one first.
        outcome: what the verdict comes to, which gives its colour; empty for none.
        dots: rates of refusals, drawn beside the verdict, group by group.
        tables: tables; the first stands beside the verdict, the others below.
        conditions: names of the conditions in their order, no two alike.
        queries: queries of all sets.
        responses: responses to the queries.
        again: how the work is done again.
        left_out: number of responses that are in the folder and not here.
        shortened: number of characters that responses were cut to, or None.
        views: views of the scatter.
        frame: what the views share, or None without views.
        unplaced: sentences on what is not in the views, or why there are none.
        charts: small multiples.
        charts_title: title of the small multiples.
        compared: places of the two conditions between which it is shown at first what changed; None
            for the last two.
        uses: what queries were used for, each use with its meaning in a sentence; the first is that
            of the measurement which the verdict is about.
        steps: what can be done next, each with its command.
        facts: settings and versions by name.
        date: day on which it was finished.
    """

    kind: str
    title: str
    verdict: tuple[str, ...]
    tables: tuple[Table, ...]
    conditions: tuple[str, ...]
    queries: Sequence[Query]
    responses: Sequence[ShownResponse]
    again: Again
    left_out: int = 0
    shortened: int | None = None
    views: Sequence[View] = ()
    frame: Frame | None = None
    unplaced: Sequence[str] = ()
    charts: tuple[Chart, ...] = ()
    charts_title: str = ""
    compared: tuple[int, int] | None = None
    uses: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[NextStep, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    dots: tuple[Dot, ...] = ()
    outcome: Kind | Literal[""] = ""

    def number(self, showing: Showing) -> int:
        """The number of responses that are shown in a way."""
        return sum(one.showing == showing for one in self.responses)


def dots_of(rates: Sequence[tuple[str, PromptRates]]) -> tuple[Dot, ...]:
    """Rates of refusals as dots; those without a verdict are left out.

    Args:
        rates: each with the name of the set that it is over.
    """
    prompts = list(dict.fromkeys(one.prompt for _, one in rates))
    return tuple(
        Dot(
            capitalized(queries_in_words(name, one.label)),
            one.label,
            one.prompt,
            prompts.index(one.prompt),
            one.refused,
        )
        for name, one in rates
        if one.refused is not None
    )


def rate_text(rate: Rate | None) -> str:
    """A rate with its interval, for people; of few queries, how many they are."""
    if rate is None:
        return "no verdict"
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    if rate.queries < FEW_QUERIES and rate.count == round(rate.count):
        return f"{round(rate.count)} of {rate.queries} ({low:.0f} to {high:.0f} %)"
    return f"{100 * rate.value:.1f} % ({low:.0f} to {high:.0f})"


def percent(rate: Rate | None) -> str:
    """A rate without its interval, for people."""
    return "an unknown share" if rate is None else f"{100 * rate.value:.0f} %"


def whole_figures(cell: str) -> str:
    """A cell whose figure and interval are never broken in the middle, only between them."""
    return re.sub(r" (?=%|to )|(?<= to) |(?<=\d) (?=of \d)|(?<=\d of) (?=\d)", "\u00a0", cell)


def capitalized(text: str) -> str:
    """A text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def number_of_queries(rate: Rate | None) -> str:
    """The number of queries that a rate is over."""
    return "0" if rate is None else str(rate.queries)
