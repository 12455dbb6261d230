"""Commands that several processes run together, of which the first talks to the user."""

from __future__ import annotations

import os
import sys
import time

from demur import processes
from demur.cli.screen import show_error
from demur.cli.summaries import OPTIMIZE
from demur.errors import DemurError

TOGETHER = (OPTIMIZE, "evaluate", "diagnose")
"""Commands in which processes can share the model."""

_PAUSE = 10.0
"""Seconds in which the first process ends all others, where it made the same mistake."""


def quiet_others() -> None:
    """Let all processes but the first show nothing."""
    if not processes.is_first():
        sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def require_together(verb: str) -> None:
    """Make sure that a command can be run by as many processes as were started.

    Raises:
        DemurError: it is one that a single process runs.
    """
    if processes.count() > 1 and verb not in TOGETHER:
        raise DemurError(
            f"demur {verb} runs in one process, and {processes.count()} were started: run it "
            f"without torchrun or accelerate launch, which are for {', '.join(TOGETHER)}."
        )


def show_failure(message: str) -> None:
    """Print why a command ends, in one line; once where all processes end for the same reason."""
    if processes.is_first():
        show_error(message)
        return
    time.sleep(_PAUSE)
    sys.stderr = sys.__stderr__
    show_error(f"process {processes.place() + 1} of {processes.count()}: {message}")
