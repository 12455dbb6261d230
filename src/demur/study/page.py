"""The page of a study, with the pages of its cells behind it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from demur.report.writing import REPORT
from demur.study.formats import (
    TEST_HEADER,
    chance_counts,
    rank_note,
    rank_rows,
    test_cells,
    wide_tables,
)
from demur.study.record import Cell, Outcome, StudyRecord
from demur.study.table import StudyTable

MOST_TESTS = 200
_DRAWN = ".drawn { max-width: min(100%, 60rem); height: auto; background: #fff; }"
_TITLES = {
    "rates": "Refused, with 95 % intervals",
    "trade-off": "Harmful against harmless queries refused: a path a method",
    "ablations": "What variants of a method change",
}


@dataclass(frozen=True)
class ShownCell:
    """A cell as the page lists it.

    Attributes:
        kind: `run` or `evaluation`.
        model: name of the model.
        prompt: name of the basic prompt, or what stands for all prompts.
        method: name of the method.
        seed: the seed.
        told: what came of it.
        reason: why it failed; empty where it did not.
        link: address of its page; empty where there is none.
    """

    kind: str
    model: str
    prompt: str
    method: str
    seed: int
    told: str
    reason: str
    link: str


def study_page(
    path: Path,
    record: StudyRecord,
    outcomes: Mapping[str, Outcome],
    table: StudyTable,
    figures: Mapping[str, Mapping[str, bytes]],
) -> bytes:
    """The page as the bytes of an HTML file, which needs no network.

    Args:
        path: folder of the study; the pages of the cells lie in their folders.
        record: what the study is.
        outcomes: what came of the cells, by folder.
        table: the figures.
        figures: drawings by name, each with a `png`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = f"{_part('demur.report', 'report.css')}\n{_DRAWN}"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    tests = sorted(table.tests, key=lambda one: one.adjusted_p_value)
    shown = [one for one in tests if one.more_than_chance] or tests
    cells = [_shown(path, cell, outcomes.get(cell.folder)) for cell in record.cells]
    text = environment.from_string(_part("demur.study", "study.html.jinja")).render(
        title=record.name,
        date=datetime.now(timezone.utc).strftime("%d %B %Y").lstrip("0"),
        style=style,
        policy=(
            "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
            f"style-src 'sha256-{digest}'"
        ),
        statements=_statements(table, cells),
        wide=wide_tables(table),
        ranks=rank_rows(table) if table.ranks else None,
        figures=[
            (_TITLES[name], _address(kinds["png"]), _TITLES[name])
            for name, kinds in figures.items()
        ],
        tests=[test_cells(one) for one in shown[:MOST_TESTS]],
        tests_header=TEST_HEADER,
        rank_note=rank_note(table),
        tests_title=f"more than chance in {chance_counts(table)}",
        tests_note=f"The first {MOST_TESTS} are shown; all are in tests.csv."
        if len(shown) > MOST_TESTS
        else "All tests are in tests.csv.",
        cells=cells,
    )
    return text.encode("utf-8", "replace")


def _statements(table: StudyTable, cells: Sequence[ShownCell]) -> list[str]:
    failed = sum(bool(one.reason) for one in cells)
    left = sum(one.told == "left" for one in cells)
    found = []
    if table.ranks:
        best = table.ranks[0]
        found.append(
            f"Best mean rank: {best.arm.title} ({best.mean:.2f}; 1 is the best of {best.arms} "
            "prompts and methods)."
        )
    done = len(cells) - failed - left
    told = f"{done} of {len(cells)} cells are done"
    found.append(f"{told}, {failed} failed." if failed else f"{told}.")
    return found


def _shown(path: Path, cell: Cell, outcome: Outcome | None) -> ShownCell:
    has_page = (path / cell.folder / REPORT).is_file()
    if outcome is None:
        told, reason = "left", ""
    else:
        reason = outcome.reason
        told = f"failed: {reason}" if reason else f"done in {outcome.seconds:.0f} s"
    return ShownCell(
        cell.kind,
        cell.model,
        cell.prompt or "all",
        cell.method,
        cell.seed,
        told,
        reason,
        quote(f"{cell.folder}/{REPORT}") if has_page else "",
    )


def _address(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _part(package: str, name: str) -> str:
    return (resources.files(package) / "page" / name).read_text(encoding="utf-8")
