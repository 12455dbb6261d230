"""Run `demur` as a user does, in this process."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from demur.cli.app import main


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


def demur(*arguments: object) -> Result:
    """Run a command."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        patch.object(sys, "argv", ["demur", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
    return Result(status if isinstance(status, int) else 1, out.getvalue(), err.getvalue())


def done(result: Result) -> str:
    """What a command that succeeded printed."""
    assert result.status == 0, result.err
    return result.out


def mistake(result: Result) -> str:
    """The one line of a user's mistake."""
    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].endswith(".")
    return lines[0]
