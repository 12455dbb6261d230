"""What a message says about an error in users' own code."""

from __future__ import annotations

from demur.errors import first_line

_MOST_CHARACTERS = 200


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
