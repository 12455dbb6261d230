"""The work that lies in a folder, as `demur show` lists it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from demur.cli.screen import printable, show_command
from demur.errors import DemurError
from demur.records import RESULTS, folders_of_work, kind_of

MOST = 50
FINISHED = "finished"


@dataclass(frozen=True)
class FoundWork:
    """A folder of work.

    Attributes:
        path: the folder.
        kind: what it holds, for example `run`.
        state: `finished`, `not finished`, or `damaged` where that cannot be known.
        changed: when something in it was last written, in seconds since 1970.
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
    console.print(Text("Results here, the newest first", style="bold"))
    for work in works[:MOST]:
        # Each folder is alone on its line, from which it can be copied however long it is.
        console.print(Text(printable(str(work.path))), soft_wrap=True)
        when = f"{datetime.fromtimestamp(work.changed):%Y-%m-%d %H:%M}"
        console.print(Text(f"  {printable(work.kind)}, {work.state}, {when}", style="dim"))
    if len(works) > MOST:
        console.print(f"{len(works) - MOST} older ones are not listed.")
    shown = next((work for work in works if work.state == FINISHED), works[0])
    show_command("Look at one:", "show", [str(shown.path)])


def _look(path: Path) -> FoundWork | None:
    results = path / RESULTS
    changed = _last_change(path)
    try:
        kind = kind_of(path)
    except DemurError:
        return FoundWork(path, "unknown", "damaged", changed)
    if kind is None:  # settings of another program
        return None
    return FoundWork(path, kind, FINISHED if results.exists() else "not finished", changed)


def _last_change(path: Path) -> float:
    """When a folder or something directly in it was last written; 0 where it cannot be read."""
    try:
        return max(one.lstat().st_mtime for one in (path, *path.iterdir()))
    except OSError:
        return 0.0
