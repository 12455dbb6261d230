"""How long work reports its progress.

The library never prints. It reports to a `Progress`, which the command line draws and scripts may
ignore.
"""

from __future__ import annotations

from collections.abc import Iterator
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

    def stage(
        self, description: str, total: float, unit: str = ""
    ) -> AbstractContextManager[Stage]:
        """Begin a stage, which ends with the `with` block.

        Args:
            description: what is being done, for example `Training the prompt`.
            total: number of units to do.
            unit: name of a unit, for example `queries` or `bytes`.
        """

    def message(self, text: str) -> None:
        """Report something once, for example which number format was chosen."""


class SilentStage:
    """A stage that is not shown."""

    def advance(self, amount: float = 1) -> None:
        """Ignore the amount."""

    def note(self, text: str) -> None:
        """Ignore the text."""


class SilentProgress:
    """Shows nothing; the default outside the command line."""

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        """Begin a stage that is not shown."""
        yield SilentStage()

    def message(self, text: str) -> None:
        """Ignore the text."""
