"""The figures of a study as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from demur.markdown import escaped
from demur.report.subject import capitalized
from demur.spreadsheets import Cell, csv_text
from demur.study.figures import (
    Group,
    PairedTest,
    StudyCost,
    StudyFigure,
    StudyFigures,
    StudyMeasure,
)
from demur.study.record import UNTRAINED
from demur.study.rows import Arm

STAR = "*"
CAPTIONS: dict[StudyMeasure, str] = {
    "refused": "Refused, in percent",
    "answered": "Answered, in percent",
    "complied harmfully": "Complied with harmfully, in percent",
    "wrong at least once": "Queries with at least one wrong response, in percent",
}
COST_CAPTION = "Cost to harmless queries, KL in nats"
COST_NOTE = (
    "How far a prompt moves the next token after harmless queries: mean KL divergence from the "
    "model without a safety prompt"
)
COST_SPAN = "; a mean over seeds, with the least and the greatest of them."
_MOST_FEWER = 10

_SEVERAL_SEEDS = "Means over seeds and queries with 95 % bootstrap intervals over both."
_ONE_SEED = (
    "Means over queries, of one seed, with 95 % bootstrap intervals over the queries: they say "
    "nothing about other seeds."
)
_STAR_NOTE = (
    "A star: differs from {other} by more than chance, paired test with Holm's correction for all "
    "{count} tests of this measure."
)

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class WideTable:
    """The means of one measure: a row an arm and model, a column a group of queries.

    Attributes:
        caption: title of the table.
        columns: names of the columns behind model, prompt and method.
        rows: model, arm and the cells of each row.
        note: how to read it.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, Arm, tuple[str, ...]], ...]
    note: str

    @property
    def header(self) -> tuple[str, ...]:
        """Names of all columns."""
        return ("model", "prompt", "method", *self.columns)

    @property
    def texts(self) -> Iterator[tuple[str, ...]]:
        """All cells of each row."""
        for model, arm, cells in self.rows:
            yield (model, arm.prompt, _method(arm), *cells)


def wide_tables(table: StudyFigures) -> list[WideTable]:
    """A table for each measure, and one of the costs where they were measured."""
    found = [_wide(table, measure) for measure in table.measures]
    return [*found, _cost_table(table)] if table.costs else found


def _cost_table(table: StudyFigures) -> WideTable:
    sets = tuple(dict.fromkeys(one.set for one in table.costs))
    places = {(one.model, one.arm, one.set): one for one in table.costs}
    rows = []
    for model, arm in product(table.models, table.arms):
        found = [places.get((model, arm, name)) for name in sets]
        if any(found):
            rows.append((model, arm, tuple(map(_nats, found))))
    several = any(one.seeds > 1 for one in table.costs)
    return WideTable(COST_CAPTION, sets, tuple(rows), COST_NOTE + (COST_SPAN if several else "."))


def _nats(cost: StudyCost | None) -> str:
    if cost is None:
        return ""
    mean, low, high = (f"{one:.2f}" for one in (cost.mean, cost.low, cost.high))
    return mean if cost.seeds == 1 else f"{mean} ({low} to {high})"


def _wide(table: StudyFigures, measure: StudyMeasure) -> WideTable:
    known = {(one.set, one.label) for one in table.figures if one.measure == measure}
    groups = [group for group in table.groups if group in known]
    stars = {
        (one.model, one.second, (one.set, one.label))
        for one in table.tests
        if one.measure == measure and one.more_than_chance and _is_first(one.first, one.second)
    }
    rows = []
    for model in table.models:
        for arm in table.arms:
            found = [table.find(model, arm, group, measure) for group in groups]
            if any(found):
                marks = [STAR if (model, arm, group) in stars else "" for group in groups]
                cells = (_cell(*pair) for pair in zip(found, marks, strict=True))
                rows.append((model, arm, tuple(cells)))
    note = f"{_how_read(table, measure)} {_of_fewer_seeds(table, measure)}".rstrip()
    return WideTable(
        CAPTIONS[measure],
        tuple(title_of(group) for group in groups),
        tuple(rows),
        f"{capitalized(table.judged)}. {note}" if table.judged else note,
    )


def _how_read(table: StudyFigures, measure: StudyMeasure) -> str:
    """What the means and intervals of a table are over, and what its stars mean."""
    seeds = max((one.seeds for one in table.figures if one.measure == measure), default=0)
    note = _SEVERAL_SEEDS if seeds > 1 else _ONE_SEED
    tests = sum(one.measure == measure for one in table.tests)
    if not tests:
        return note
    trains = any(arm.method != UNTRAINED for arm in table.arms)
    other = "its basic prompt (an untrained prompt: from no prompt)" if trains else "no prompt"
    return f"{note} {_STAR_NOTE.format(other=other, count=tests)}"


def _of_fewer_seeds(table: StudyFigures, measure: StudyMeasure) -> str:
    """Which means are of fewer seeds than others, because cells failed; empty where none is."""
    figures = [one for one in table.figures if one.measure == measure]
    most = max((one.seeds for one in figures), default=0)
    fewer = {(one.model, one.arm.title): one.seeds for one in figures if one.seeds < most}
    shown = [f"{model}, {arm}: {seeds} of {most}" for (model, arm), seeds in fewer.items()]
    more = f"; and {len(shown) - _MOST_FEWER} more" if len(shown) > _MOST_FEWER else ""
    return f"Of fewer seeds: {'; '.join(shown[:_MOST_FEWER])}{more}." if shown else ""


def _is_first(first: Arm, second: Arm) -> bool:
    """Whether an arm is what another one is marked against."""
    return first.method == UNTRAINED and (second.method != UNTRAINED or first.prompt == "none")


def title_of(group: Group) -> str:
    """What a group of queries is called."""
    return f"{group[0]}, {group[1]}"


def _cell(figure: StudyFigure | None, mark: str) -> str:
    if figure is None:
        return ""
    low, high = 100 * figure.interval.low, 100 * figure.interval.high
    return f"{100 * figure.mean:.1f}{mark} ({low:.1f} to {high:.1f})"


def _method(arm: Arm) -> str:
    return "" if arm.method == UNTRAINED else arm.method


def plain_table(table: StudyFigures) -> str:
    """All means as text for a terminal."""
    parts: list[str] = []
    for one in wide_tables(table):
        rows = [one.header, *one.texts]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        parts.append("\n".join([one.caption, *lines]))
    return "\n\n".join(parts)


def markdown(table: StudyFigures) -> str:
    """All means, the ranks and the differences that are more than chance, as Markdown."""
    parts: list[str] = []
    for one in wide_tables(table):
        rows = [[escaped(cell) for cell in row] for row in one.texts]
        parts += [f"### {one.caption}", _markdown_table(one.header, rows), escaped(one.note)]
    if table.ranks:
        header, ranks = rank_rows(table)
        ranked = [[escaped(cell) for cell in row] for row in ranks]
        parts += ["### Mean ranks", _markdown_table(header, ranked)]
        parts.append("1 is best: most harmful and fewest harmless queries refused.")
    if note := rank_note(table):
        parts.append(escaped(note))
    shown = [one for one in table.tests if one.more_than_chance]
    parts.append(f"### Differences more than chance: {chance_counts(table)}")
    if shown:
        rows = [[escaped(cell) for cell in row] for row in map(test_cells, shown)]
        parts.append(_markdown_table(TEST_HEADER, rows))
    return "\n\n".join(parts) + "\n"


TEST_HEADER = ("model", "queries", "measure", "from", "to", "points", "95 % interval", "p")


def test_cells(one: PairedTest) -> tuple[str, ...]:
    """A test as the cells of a row."""
    low, high = 100 * one.interval.low, 100 * one.interval.high
    return (
        one.model,
        title_of((one.set, one.label)),
        one.measure,
        one.first.title,
        one.second.title,
        f"{100 * one.difference:+.1f}",
        f"{low:+.1f} to {high:+.1f}",
        f"{one.adjusted_p_value:.2g}",
    )


def chance_counts(table: StudyFigures) -> str:
    """How many tests of each measure are more than chance, for example `3 of 12 tests`."""
    measures = list(dict.fromkeys(one.measure for one in table.tests))
    parts: list[str] = []
    for measure in measures:
        tests = [one for one in table.tests if one.measure == measure]
        told = f"{sum(one.more_than_chance for one in tests)} of {len(tests)} tests"
        parts.append(told if len(measures) == 1 else f"{told} of {measure!r}")
    return ", ".join(parts) or "0 of 0 tests"


def rank_note(table: StudyFigures) -> str:
    """Where there are no ranks, because prompts were not measured; empty where there are all."""
    gaps: dict[tuple[str, tuple[Arm, ...]], list[Group]] = {}
    for model, group in product(table.models, table.groups):
        missing = tuple(arm for arm in table.arms if table.find(model, arm, group) is None)
        if missing:
            gaps.setdefault((model, missing), []).append(group)
    parts: list[str] = []
    for (model, missing), groups in gaps.items():
        place = [model, *(map(title_of, groups) if len(groups) < len(table.groups) else ())]
        names = [
            f"{arm.prompt} + {_method(arm)}" if _method(arm) else arm.prompt for arm in missing
        ]
        more = f" and {len(names) - _MOST_FEWER} more" if len(names) > _MOST_FEWER else ""
        parts.append(f"{', '.join(place)} (without {', '.join(names[:_MOST_FEWER])}{more})")
    if not parts:
        return ""
    more = f"; and {len(parts) - _MOST_FEWER} more" if len(parts) > _MOST_FEWER else ""
    return (
        "No ranks where a prompt was not measured, or has no verdict: "
        f"{'; '.join(parts[:_MOST_FEWER])}{more}."
    )


def rank_rows(table: StudyFigures) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the ranks."""
    header = ("prompt", "method", "mean rank", "harmful", "harmless")
    rows: list[tuple[str, ...]] = [
        (
            one.arm.prompt,
            _method(one.arm),
            f"{one.mean:.2f} of {one.arms}",
            "" if one.harmful is None else f"{one.harmful:.2f}",
            "" if one.harmless is None else f"{one.harmless:.2f}",
        )
        for one in table.ranks
    ]
    return header, rows


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def latex(table: StudyFigures) -> str:
    """All means as LaTeX tables, which need the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    parts += [_latex_table(one, len(table.models) > 1) for one in wide_tables(table)]
    return "\n\n".join(parts) + "\n"


def _latex_table(table: WideTable, several: bool) -> str:
    columns = len(table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.caption)}. {_latex(table.note)}}}",
        rf"\begin{{tabular}}{{ll{'r' * columns}}}",
        r"\toprule",
        " & ".join(("prompt", "method", *map(_latex, table.columns))) + r" \\",
    ]
    before = ""
    for model, arm, cells in table.rows:
        if model != before:
            lines.append(r"\midrule")
            if several:
                lines.append(
                    rf"\multicolumn{{{columns + 2}}}{{l}}{{\textit{{{_latex(model)}}}}} \\"
                )
        before = model
        shown = [_latex(arm.prompt), _latex(_method(arm)), *map(_latex_cell, cells)]
        lines.append(" & ".join(shown) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _latex_cell(cell: str) -> str:
    mean, _, interval = cell.partition(" ")
    if not interval:
        return _latex(cell)
    mark = r"$^{*}$" if mean.endswith(STAR) else ""
    low, _, high = interval.strip("()").partition(" to ")
    return rf"{mean.rstrip(STAR)}{mark} {{\scriptsize [{low}, {high}]}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(one, one if one.isprintable() else " ") for one in text)


def figures_csv(table: StudyFigures) -> bytes:
    """Every mean, a row each."""
    header = (
        *("model", "prompt", "method", "set", "label", "measure"),
        *("mean", "low", "high", "seeds", "queries"),
    )
    rows = (
        (
            *(one.model, *one.arm, one.set, one.label, one.measure),
            *(one.mean, one.interval.low, one.interval.high, one.seeds, one.queries),
        )
        for one in table.figures
    )
    return _csv(header, rows)


def costs_csv(table: StudyFigures) -> bytes:
    """Every cost in nats with the span of the seeds, a row each."""
    header = ("model", "prompt", "method", "set", "mean", "low", "high", "seeds", "queries")
    rows = (
        (one.model, *one.arm, one.set, one.mean, one.low, one.high, one.seeds, one.queries)
        for one in table.costs
    )
    return _csv(header, rows)


def tests_csv(table: StudyFigures) -> bytes:
    """Every paired test, a row each."""
    header = (
        *("model", "set", "label", "measure"),
        *("first_prompt", "first_method", "second_prompt", "second_method"),
        *("difference", "low", "high", "queries", "p", "adjusted_p"),
    )
    rows = (
        (
            *(one.model, one.set, one.label, one.measure, *one.first, *one.second),
            *(one.difference, one.interval.low, one.interval.high),
            *(one.queries, one.p_value, one.adjusted_p_value),
        )
        for one in table.tests
    )
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    return csv_text(header, rows).encode("utf-8", "replace")
