"""What the terminal shows while work goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from demur.progress import Stage

console = Console()
errors = Console(stderr=True)


def printable(text: str) -> str:
    """Model output without control characters, so that it cannot drive the terminal."""
    return without_controls(text).strip()


def without_controls(text: str) -> str:
    """The same with the white space around it, for a piece of an output."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def print_report(console: Console, folder: Path) -> None:
    """Where the report of a folder lies, if it has one."""
    report = folder / "report.html"
    if report.is_file():
        console.print("To look at it, open in a browser")
        console.print(Text(str(report), style="bold"), soft_wrap=True)


class TerminalProgress:
    """Stages as bars with the time left; as plain lines where nobody watches."""

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        """Open a stage; see `demur.progress.Progress`."""
        started = time.monotonic()
        if not errors.is_terminal:
            errors.print(f"{description} ...", markup=False, highlight=False)
        amount: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            amount,
            TextColumn(unit if unit != "bytes" else "", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=errors,
            disable=not errors.is_terminal,
        )
        with bars:
            task = bars.add_task(description, total=total, note="")
            yield _BarStage(bars, task)
        if not errors.is_terminal:
            seconds = time.monotonic() - started
            errors.print(f"{description}: {seconds:.0f} s", markup=False, highlight=False)

    def message(self, text: str) -> None:
        """Print a remark."""
        errors.print(text, style="dim", markup=False, highlight=False)


class _BarStage:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, amount: float = 1) -> None:
        self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)
