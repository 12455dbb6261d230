"""Progress on the terminal: a line for the stage that runs; lines with time stamps in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from demur.cli.screen import errors, printable, short_name
from demur.progress import Stage, StagePlan

LOG_SECONDS = 60.0
"""Least time between two lines on one stage in a log."""

_LEAST_NAME, _LEAST_BAR, _MOST_BAR = 10, 8, 30
_GAP = "  "


class ShownStage:
    """A stage as it is shown: what is done, and how long it takes.

    Args:
        number: which stage it is, for example `3 of 7`; may be empty.
        title: what is being done.
        total: number of units to do.
        unit: name of a unit.
        clock: current time in seconds.
        moved: called after every change.
    """

    def __init__(
        self,
        number: str,
        title: str,
        total: float,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
        moved: Callable[[ShownStage], None] = lambda _: None,
    ) -> None:
        self.number, self.title, self.total, self.unit = number, printable(title), total, unit
        self.done = 0.0
        self.remark = ""
        self.ended = False
        self._clock, self._moved = clock, moved
        self._start = self._base = clock()
        self._before = self._resumed = 0.0
        self._reported = False

    def begin(self) -> None:
        """Start the clock."""
        self._start = self._base = self._clock()

    def advance(self, amount: float = 1) -> None:
        """Count more units. What is reported at once was done before and took no time now."""
        now = self._clock()
        if not self._reported and now - self._start < 0.05:
            self._base, self._before = now, amount
            # No work is as fast as that.
            self._resumed = amount if now - self._start < 0.001 else 0
        self._reported = True
        self.done += amount
        self._moved(self)

    def note(self, text: str) -> None:
        """Show a text beside the stage."""
        self.remark = " ".join(printable(text).split())

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._start

    @property
    def left(self) -> float | None:
        """Seconds that are left at the pace so far; None where too little is done to tell."""
        done, rest = self.done - self._before, self.total - self.done
        passed = self._clock() - self._base
        if done <= 0 or passed < 2 or done < 0.1 * (done + rest):
            return None
        return max(0.0, passed * rest / done)

    @property
    def amount(self) -> str:
        """How much is done, for example `40/400 responses`."""
        if self.unit == "bytes":
            return f"{self.done / 1e6:.1f}/{self.total / 1e6:.1f} MB"
        return f"{self.done:.0f}/{self.total:.0f} {self.unit}".rstrip()

    @property
    def counted(self) -> float | None:
        """Number of units that the clock counted; None where these are all or none of them.

        Others were done before, or are left for a later stage.
        """
        here = self.done - self._resumed
        return None if here in (0, self.total) or self.unit == "bytes" else here

    @property
    def time(self) -> str:
        """One clock, which says what it counts."""
        if self.ended:
            here = "" if self.counted is None else f"{self.counted:.0f} "
            return f"{here}took {duration(self.seconds)}"
        left = self.left
        return (
            f"{duration(self.seconds)} so far" if left is None else f"about {duration(left)} left"
        )

    def line(self, width: int) -> Text:
        """The stage in one line of at most `width` columns.

        The bar and the remark are left out first, then the name in the title is shortened, so that
        what is being done, numbers and clock stay whole.
        """
        head = f"{self.number}{_GAP}" if self.number else ""
        parts = [self.amount, self.time, *([self.remark] if self.remark else [])]

        def room() -> int:
            return width - cell_len(head) - sum(cell_len(part) + len(_GAP) for part in parts)

        if self.remark and room() < cell_len(self.title):
            parts.pop()
        title = _fitted(self.title, max(1, room()))
        title = set_cell_size(title, max(0, min(room(), cell_len(title))))
        bar = min(_MOST_BAR, room() - cell_len(title) - len(_GAP))
        line = Text(head, style="dim", no_wrap=True)
        line.append(title, style="not dim")
        if bar >= _LEAST_BAR:
            filled = round(bar * min(1.0, self.done / self.total)) if self.total else bar
            line.append(
                _GAP + "━" * filled, style="not dim green" if self.ended else "not dim cyan"
            )
            line.append("━" * (bar - filled))
        for part, style in zip(parts, ("not dim", "not dim cyan", "not dim"), strict=False):
            line.append(_GAP + part, style=style)
        line.truncate(width)
        return line


def _fitted(title: str, width: int) -> str:
    """A title in about `width` columns; what is cut is the name behind its colon, where it can be.

    For example `Held-out queries: my-...txt`.
    """
    if cell_len(title) <= width:
        return title
    words, colon, name = title.partition(": ")
    if not colon or width < 2 * _LEAST_NAME:
        return short_name(title, width)
    left = max(width - cell_len(words) - cell_len(colon), min(_LEAST_NAME, cell_len(name)))
    name = short_name(name, left)
    return f"{short_name(words, max(1, width - len(name) - len(colon)))}{colon}{name}"


class TerminalProgress:
    """Shows the stage that runs as one line; in a log a line at its start, end and every minute.

    Args:
        console: where it is shown.
        clock: current time in seconds.
    """

    def __init__(
        self, console: Console = errors, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._clock = console, clock
        self._plan = StagePlan()
        self._shown: list[ShownStage] = []
        self._told: dict[ShownStage, float] = {}

    def plan(self, stages: Sequence[str]) -> None:
        """Announce the stages to come; see `demur.progress.Progress`."""
        self._plan = StagePlan(stages)

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        """Begin a stage; see `demur.progress.Progress`. Stages may lie within each other."""
        shown = ShownStage(
            self._plan.number(description), description, total, unit, self._clock, self._log_minute
        )
        with self._drawn(shown) if self._console.is_interactive else self._logged(shown):
            shown.begin()
            yield shown

    def message(self, text: str) -> None:
        """Print a remark."""
        if self._console.is_interactive:
            self._console.print(Text(printable(text), style="dim"))
        else:
            self._log(" ".join(printable(text).split()))

    @contextmanager
    def _drawn(self, shown: ShownStage) -> Iterator[None]:
        self._shown.append(shown)
        if len(self._shown) > 1:  # drawn below the stage that it belongs to
            try:
                yield
            finally:
                self._shown.remove(shown)
            return
        try:
            with Live(console=self._console, get_renderable=self._lines, refresh_per_second=8):
                yield
                shown.ended = True
        finally:
            self._shown.clear()

    def _lines(self) -> Group:
        return Group(*(one.line(self._console.width) for one in self._shown))

    @contextmanager
    def _logged(self, shown: ShownStage) -> Iterator[None]:
        what = f"{shown.number}{_GAP}{shown.title}" if shown.number else shown.title
        self._log(f"{what}: begins")
        self._told[shown] = self._clock()
        ending = "stopped after"
        try:
            yield
            ending = "done in"
        finally:
            del self._told[shown]
            part = "" if shown.counted is None else f"{shown.counted:.0f} {shown.unit} "
            self._log(f"{what}: {part}{ending} {duration(shown.seconds)}")

    def _log_minute(self, shown: ShownStage) -> None:
        if shown not in self._told or self._clock() - self._told[shown] < LOG_SECONDS:
            return
        self._told[shown] = self._clock()
        what = f"{shown.number}{_GAP}{shown.title}" if shown.number else shown.title
        remark = f", {shown.remark}" if shown.remark else ""
        self._log(f"{what}: {shown.amount}, {shown.time}{remark}")

    def _log(self, text: str) -> None:
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        self._console.print(f"{stamp}{_GAP}{text}", soft_wrap=True)


def duration(seconds: float) -> str:
    """A time as a clock shows it, for example `0:07`, `12:05` or `1:02:03`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
