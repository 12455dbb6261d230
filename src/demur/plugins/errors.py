"""What a message says about an error in users' own code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from demur.errors import DemurError, first_line
from demur.markdown import printable

PLUGIN = "demur_plugin_"
"""What the names of the modules begin with that users' files become."""

_MOST_CHARACTERS = 200
_MOST_OF_TRACEBACK = 200_000


def describe_error(error: BaseException) -> str:
    """Kind and first line of an error, for example `ValueError: no such label`.

    Args:
        error: raised by code that demur did not write, so its text is not trusted.

    Returns:
        One line of at most 200 printable characters.
    """
    kind, line = type(error).__name__, first_line(error)
    text = kind if line == kind else f"{kind}: {line}"
    return "".join(filter(str.isprintable, text))[:_MOST_CHARACTERS]


def traceback_of_bug(error: BaseException) -> str:
    """Where a bug is: the traceback of an error that no message was written for.

    That is any error but a `DemurError`, and a `DemurError` that tells of one in users' own code.

    Args:
        error: an error that was caught.

    Returns:
        Several lines of plain text, at most 200,000 characters; empty for a `DemurError` whose
        message says all.
    """
    bug = next((one for one in _chain(error) if not isinstance(one, DemurError)), None)
    if bug is None or (isinstance(error, DemurError) and not _is_own(bug)):
        return ""
    text = "".join(traceback.format_exception(error))
    return printable(text)[-_MOST_OF_TRACEBACK:]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _is_own(error: BaseException) -> bool:
    """Whether users' own code runs where an error was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__")).startswith(PLUGIN) for frame, _ in frames)
