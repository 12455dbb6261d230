"""Texts as they stand in files, and files with a text a line."""

from __future__ import annotations

from collections.abc import Iterator

from demur.errors import DemurError
from demur.limits import MOST_QUERY_CHARACTERS, MOST_TEXT_CHARACTERS
from demur.reading.files import TextFile


def check_text(value: object, column: str, place: str, most: int = MOST_TEXT_CHARACTERS) -> str:
    """`value`, if it is text that can be written as UTF-8.

    Args:
        value: what stands in the file.
        column: name of its column, for messages.
        place: the row, for messages.
        most: largest number of characters.

    Raises:
        DemurError: it is a number, a list, nothing at all, too long, or holds half a surrogate
            pair.
    """
    if not isinstance(value, str):
        if value is None:
            raise DemurError(
                f"{place}: {column!r:.80} is empty (null): fill it in, drop the row, or give "
                "another column."
            )
        raise DemurError(
            f"{place}: {column!r:.80} is not text but {type(value).__name__}: give a column of "
            "text."
        )
    if len(value) > most:
        raise DemurError(
            f"{place}: {column!r:.80} has {len(value)} characters and at most {most} are read: "
            "shorten it."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DemurError(
            f"{place}: {column!r:.80} holds a broken character (a lone surrogate): remove it."
        ) from error
    return value


def read_text_lines(file: TextFile) -> Iterator[tuple[str, str]]:
    """The lines of a text file: the place of each for messages, and its text without its end.

    Raises:
        DemurError: the file cannot be read, or a line is too long for a query.
    """
    for number, line in enumerate(file.lines(), start=1):
        place = f"{file.name} line {number}"
        if len(line) > MOST_QUERY_CHARACTERS:
            raise DemurError(
                f"{place} has {len(line)} characters, too many for a query: write one query a line."
            )
        yield place, line.rstrip("\r\n")
