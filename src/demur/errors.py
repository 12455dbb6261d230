"""The one error that users are meant to read."""

from __future__ import annotations


class DemurError(Exception):
    """Something that the user can fix.

    The message is a single line that says what is wrong and how to fix it. The command line
    prints it without a traceback and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
