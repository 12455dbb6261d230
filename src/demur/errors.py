"""The one error that users are meant to read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST = 200
"""Characters of a name that are compared."""


class DemurError(Exception):
    """Something that the user can fix.

    The message is a single line that says what is wrong and how to fix it. The command line
    prints it without a traceback and exits with status 2.
    """


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint at the nearest of some names, for the end of a clause; empty where none is near.

    Example:
        >>> did_you_mean("papr", ["default", "paper"])
        " (did you mean 'paper'?)"
    """
    names = {name.casefold(): name for name in known}
    near = get_close_matches(given.casefold()[:_MOST], names, 1)
    found = names[near[0]] if near else given
    return "" if found == given else f" (did you mean {found!r}?)"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8, which names of files and answers may not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
