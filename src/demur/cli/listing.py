"""The work that lies in a folder, as `demur show` lists it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from demur.cli.screen import new_table, printable, show_command
from demur.errors import DemurError
from demur.records import RESULTS, SETTINGS, folders_of_work, kind_of

MOST = 50
FINISHED = "finished"


@dataclass(frozen=True)
class FoundWork:
    """A folder of work.

    Attributes:
        path: the folder.
        kind: what it holds, for example `run`.
        state: `finished`, `not finished`, or `damaged` where that cannot be known.
        changed: when its settings or results were last written, in seconds since 1970.
    """

    path: Path
    kind: str
    state: str
    changed: float


def find_work(place: Path) -> list[FoundWork]:
    """The folders of work in a folder and in those directly below it, the newest first."""
    below = [one for one in sorted(place.iterdir()) if one.is_dir() and one.name[0] != "."]
    found = {path: _look(path) for path in folders_of_work([place, *below])}
    works = [work for work in found.values() if work is not None]
    return sorted(works, key=lambda work: work.changed, reverse=True)


def print_work(console: Console, place: Path) -> None:
    """Print what work there is, and the command that shows one."""
    works = find_work(place)
    if not works:
        show_command("There are no results here. This makes some:", "optimize", [])
        return
    table = new_table("Results here, the newest first")
    for title in ("folder", "what", "state", "last change"):
        table.add_column(title, overflow="fold")
    for work in works[:MOST]:
        table.add_row(
            Text(printable(str(work.path))),
            printable(work.kind),
            work.state,
            f"{datetime.fromtimestamp(work.changed):%Y-%m-%d %H:%M}",
        )
    console.print(table)
    if len(works) > MOST:
        console.print(f"{len(works) - MOST} older ones are not listed.")
    shown = next((work for work in works if work.state == FINISHED), works[0])
    show_command("Look at one:", "show", [str(shown.path)])


def _look(path: Path) -> FoundWork | None:
    results = path / RESULTS
    files = [file for file in (path / SETTINGS, results) if file.exists()]
    changed = max((file.stat().st_mtime for file in files), default=0.0)
    try:
        kind = kind_of(path)
    except DemurError:
        return FoundWork(path, "unknown", "damaged", changed)
    if kind is None:  # settings of another program
        return None
    return FoundWork(path, kind, FINISHED if results.exists() else "not finished", changed)
