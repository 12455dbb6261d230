"""How long attacks take, said before and as soon as there is a pace to judge by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from demur.evaluation.answerers.protocol import Task
from demur.progress import Progress

_LEAST_TOLD = 60.0
_STORED = 1.0
"""Seconds within which only a measurement that was stored already is there."""


class Pace:
    """Says how much there is to do, and after the first measurement how long the others take.

    Args:
        tasks: everything that is measured, in order, searched suffixes aside.
        most_tokens: largest number of tokens in a response.
        progress: told both.
        clock: current time in seconds.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        most_tokens: int,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left = sum(task.total for task in tasks)
        self._clock, self._progress = clock, progress
        self._told = False
        self._since = clock()
        progress.message(
            f"{len(tasks)} measurements, {self._left:,.0f} responses of at most {most_tokens} "
            "tokens in all: --limit takes fewer queries, --attack fewer attacks."
        )

    def measured(self, task: Task) -> None:
        """Count a measurement that is done."""
        now = self._clock()
        took, self._since = now - self._since, now
        self._left -= task.total
        if self._told or took < _STORED or not task.total:
            return
        self._told = True
        left = took * self._left / task.total
        if left >= _LEAST_TOLD:
            self._progress.message(
                f"At this pace the others take about {in_words(left)}, and more where an attack "
                "makes queries longer. After Ctrl-C the same command goes on."
            )


def in_words(seconds: float) -> str:
    """A time for people, for example `12 minutes` or `3 hours`.

    Args:
        seconds: a minute or more.
    """
    minutes = max(1, round(seconds / 60))
    if minutes < 100:
        return f"{minutes} {'minute' if minutes == 1 else 'minutes'}"
    return f"{round(minutes / 60)} hours"
