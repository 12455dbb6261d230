"""How long work tells the outside world where it stands.

The library never prints: it reports to a `Progress`, which the command line draws and scripts may
ignore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stage of long work, entered with a known amount to do."""

    def advance(self, amount: float = 1) -> None:
        """Say that `amount` more units are done."""

    def note(self, text: str) -> None:
        """Show a short figure beside the stage, for example the current loss."""


class Progress(Protocol):
    """Receives the stages of long work and remarks on it."""

    def stage(
        self, description: str, total: float, unit: str = ""
    ) -> AbstractContextManager[Stage]:
        """Open a stage of `total` units; the stage ends with the `with` block."""

    def message(self, text: str) -> None:
        """Say something once, for example which dtype was chosen."""


class SilentStage:
    """A stage that nobody watches."""

    def advance(self, amount: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class SilentProgress:
    """The default outside the command line: says nothing."""

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        yield SilentStage()

    def message(self, text: str) -> None:
        pass
