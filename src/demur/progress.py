"""How long work reports its progress.

The library reports to a `Progress`. The command line draws its own; in Python bars appear in a
terminal and in a notebook (`demur.bars`), and `SilentProgress()` shows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stage of long work, with a known amount to do."""

    def advance(self, amount: float = 1) -> None:
        """Report that `amount` more units are done."""

    def note(self, text: str) -> None:
        """Show a short text beside the stage, for example the current loss."""


class Progress(Protocol):
    """Receives the stages of long work and remarks on it."""

    def plan(self, stages: Sequence[str]) -> None:
        """Announce all stages to come, so that each can be shown as the third of seven.

        Leave it out where the stages are not known: then none of them is numbered.

        Args:
            stages: descriptions in the order of the work. The planned stage `Reading` also stands
                for `Reading: long` and `Reading: short`. A new plan replaces the one before.
        """

    def stage(
        self, description: str, total: float, unit: str = ""
    ) -> AbstractContextManager[Stage]:
        """Begin a stage, which ends with the `with` block.

        Args:
            description: what is being done, for example `Training`.
            total: number of units to do.
            unit: name of a unit, for example `queries` or `bytes`.
        """

    def message(self, text: str) -> None:
        """Report something once, for example which number format was chosen."""


class StagePlan:
    """Numbers the stages of announced work.

    A stage that was not announced, or that belongs before the one reached, has no number. A stage
    that is left out because its work is done already keeps its place, so the numbers stay right
    when work goes on after an interruption.

    Args:
        stages: descriptions of all stages, as `Progress.plan` takes them.

    Example:
        >>> plan = StagePlan(["Reading", "Training"])
        >>> plan.number("Reading: long"), plan.number("Downloading"), plan.number("Training")
        ('1 of 2', '', '2 of 2')
    """

    def __init__(self, stages: Sequence[str] = ()) -> None:
        self._stages = tuple(stages)
        self._reached = 0

    def number(self, description: str) -> str:
        """The number of a stage that begins, for example `3 of 7`; empty where it has none."""
        for place in range(self._reached, len(self._stages)):
            planned = self._stages[place]
            if description == planned or description.startswith(f"{planned}: "):
                self._reached = place
                return f"{place + 1} of {len(self._stages)}"
        return ""


class SilentStage:
    """A stage that is not shown."""

    def advance(self, amount: float = 1) -> None:
        """Ignore the amount."""

    def note(self, text: str) -> None:
        """Ignore the text."""


class SilentProgress:
    """Shows nothing; the default where no person looks."""

    def plan(self, stages: Sequence[str]) -> None:
        """Ignore the plan."""

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        """Begin a stage that is not shown."""
        yield SilentStage()

    def message(self, text: str) -> None:
        """Ignore the text."""
