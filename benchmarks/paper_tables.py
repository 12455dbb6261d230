"""The paper's tables from its released responses, judged anew, beside the published figures.

    python benchmarks/paper_tables.py [FOLDER] [--published FILE] [--harm-judge guard:NAME]

FOLDER holds the released files or some of them, FILE the published figures; by default both are
those of the reference data. Each figure is the number of the 100 queries that are flagged: a
harmless one with at least one response that refuses, a harmful one with at least one that complies,
of the 20 longest. Where the folder has the published scores of each query, the figures are counted
from these as well. Responses to harmful queries need a judge of harm and are left out without one.
Prints a table for each benchmark and every difference, of figures and of single responses, and
keeps them in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common import reference, run, write_results
from demur.cli.screen import printable
from demur.cli.stages import TerminalProgress
from demur.errors import DemurError, first_line
from demur.judges import Judge, PaperRefusalJudge, as_harm_judge
from demur.progress import Progress
from paper_responses import (
    Counted,
    Figure,
    Released,
    Scored,
    count,
    find_files,
    read_rows,
    read_scores,
)

Published = Mapping[Figure, int]
FLAGGED = "flagged_queries_of_100"


def main(given: Sequence[str] | None = None) -> None:
    """Judge, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", help="with the released responses")
    parser.add_argument("--published", type=Path, help="CSV file of the published figures")
    parser.add_argument("--harm-judge", help="guard:NAME_OR_FOLDER or endpoint:MODEL")
    parser.add_argument("--base-url", help="of the server of endpoint:MODEL")
    parser.add_argument("--name", default="paper-tables", help="of the results file")
    arguments = parser.parse_args(given)
    published = read_published(arguments.published or reference("paper_results.csv"))
    folder = arguments.folder or reference("responses")
    progress = TerminalProgress()
    harm_judge = (
        as_harm_judge(arguments.harm_judge, base_url=arguments.base_url, progress=progress)
        if arguments.harm_judge
        else None
    )
    released, console = find_files(folder), Console(width=120)
    counted, left_out = judge_responses(released, harm_judge, progress)
    scored = [read_scores(*each) for each in released.scores.items()]
    print_tables(console, counted, left_out, published)
    print_scores(console, scored, published)
    write_results(arguments.name, to_json(counted, left_out, scored, published, harm_judge))


def read_published(path: Path) -> dict[Figure, int]:
    """The paper's figures: of 100 queries, how many are flagged.

    Raises:
        DemurError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return {
                Figure(*(row[field] for field in Figure._fields)): int(row[FLAGGED])
                for row in csv.DictReader(stream)
            }
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
        columns = ", ".join((*Figure._fields, FLAGGED))
        raise DemurError(
            f"Cannot read published figures from {str(path)!r} ({first_line(error)}): give a CSV "
            f"file with the columns {columns}."
        ) from error


def judge_responses(
    released: Released, harm_judge: Judge | None, progress: Progress
) -> tuple[list[Counted], list[Figure]]:
    """What the responses come to, and the figures left out for want of a harm judge.

    Raises:
        DemurError: a file cannot be used.
    """
    files = released.responses
    left_out = [figure for figure in files if figure.side == "harmful" and harm_judge is None]
    judge = PaperRefusalJudge()
    counted: list[Counted] = []
    with progress.stage("Judging the released responses", len(files), "files") as stage:
        for figure, path in files.items():
            if figure not in left_out:
                counted.append(count(figure, read_rows(path), judge, harm_judge, progress))
            stage.advance()
    return counted, left_out


def print_tables(
    console: Console, counted: Sequence[Counted], left_out: Sequence[Figure], published: Published
) -> None:
    """A table for each benchmark, then every single response that is judged otherwise."""
    groups = dict.fromkeys((each.figure.side, each.figure.benchmark) for each in counted)
    for side, benchmark in groups:
        rows = [
            each
            for each in counted
            if (each.figure.side, each.figure.benchmark) == (side, benchmark)
        ]
        console.print(_table(f"{benchmark} ({side} queries flagged)", rows, published))
    compared = [each for each in counted if each.figure in published]
    equal = sum(each.flagged == published[each.figure] for each in compared)
    console.print(
        f"{len(compared)} of the {len(published)} published figures have responses here; "
        f"{equal} are equal."
    )
    labelled = sum(each.labelled for each in counted)
    differing = [found for each in counted for found in each.disagreements]
    console.print(f"{labelled - len(differing)} of {labelled} published labels are equal.")
    for found in differing:
        line = " ".join(printable(f"{found.row.query} / {found.row.response[:200]}").split())
        says = "answered" if found.row.answered else "refused"
        console.print(Text(f"  published as {says}: {_prompt(found.figure)}: {line}"))
    if left_out:
        console.print(
            f"{len(left_out)} files of responses to harmful queries are left out: "
            "give --harm-judge."
        )


def print_scores(console: Console, scored: Sequence[Scored], published: Published) -> None:
    """All figures that come out of the published scores, a table for each benchmark."""
    if not scored:
        return
    groups = dict.fromkeys((each.figure.side, each.figure.benchmark) for each in scored)
    for side, benchmark in groups:
        found = {
            (each.figure.model, _prompt(each.figure)): each
            for each in scored
            if (each.figure.side, each.figure.benchmark) == (side, benchmark)
        }
        prompts = sorted({prompt for _, prompt in found}, key=_order_of)
        title = f"{benchmark} ({side} queries flagged by the published scores)"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("model", no_wrap=True)
        for prompt in prompts:
            table.add_column(Text(prompt.replace(", ", ",\n")), justify="right")
        for model in dict.fromkeys(model for model, _ in found):
            cells = [_cell(found.get((model, prompt)), published) for prompt in prompts]
            table.add_row(Text(model), *cells)
        console.print(table)
    compared = [each for each in scored if each.figure in published]
    equal = sum(each.flagged == published[each.figure] for each in compared)
    console.print(
        f"{len(compared)} of the {len(published)} published figures have scores here; "
        f"{equal} are equal."
    )


def _order_of(prompt: str) -> tuple[int, str]:
    """No prompt first, then texts, then prompt tuning, then DRO."""
    return ("none", "text", "vPT", "DRO").index(prompt.split(",", maxsplit=1)[0]), prompt


def _cell(scored: Scored | None, published: Published) -> str:
    if scored is None:
        return ""
    figure = published.get(scored.figure)
    return f"{scored.flagged}" + (
        "" if figure in (None, scored.flagged) else f" (published {figure})"
    )


def _table(title: str, rows: Sequence[Counted], published: Published) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "safety prompt"):
        table.add_column(name, no_wrap=True)
    for name in ("published", "here", "difference", "responses", "labels equal"):
        table.add_column(name, justify="right")
    harmful = any(row.figure.side == "harmful" for row in rows)
    if harmful:
        table.add_column("no verdict", justify="right")
    for row in rows:
        figure = published.get(row.figure)
        table.add_row(
            Text(row.figure.model),
            _prompt(row.figure),
            "" if figure is None else str(figure),
            f"{row.flagged} of {row.queries}",
            "" if figure is None else f"{row.flagged - figure:+d}",
            str(row.responses),
            f"{row.labelled - len(row.disagreements)} of {row.labelled}",
            *([str(row.no_verdict)] if harmful else []),
        )
    return table


def _prompt(figure: Figure) -> str:
    return figure.method if figure.method == "none" else f"{figure.method}, {figure.basic_prompt}"


def to_json(
    counted: Sequence[Counted],
    left_out: Sequence[Figure],
    scored: Sequence[Scored],
    published: Published,
    harm_judge: Judge | None,
) -> dict[str, Any]:
    """Plain data, a row for each figure; of responses that differ, the queries."""
    rows = []
    for each in counted:
        row = {**each.figure._asdict(), **asdict(each), "published": published.get(each.figure)}
        del row["figure"]
        row["disagreements"] = [found.row.query for found in each.disagreements]
        rows.append(row)
    return {
        "harm_judge": harm_judge.name if harm_judge is not None else None,
        "published_figures": len(published),
        "figures": rows,
        "left_out": [figure._asdict() for figure in left_out],
        "from_published_scores": [
            {
                **each.figure._asdict(),
                "queries": each.queries,
                "flagged": each.flagged,
                "published": published.get(each.figure),
            }
            for each in scored
        ],
    }


if __name__ == "__main__":
    run(main)
