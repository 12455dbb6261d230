"""Looking into decoded JSON that is not trusted: nothing is of the type that it should have."""

from __future__ import annotations

from collections.abc import Mapping

_MOST_DIGITS = 15


def member(value: object, *names: str) -> object:
    """The member of nested objects by its names; None where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def objects_in(value: object) -> list[Mapping[str, object]]:
    """The objects in a list; none where it is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """A text, with a replacement character for half of a surrogate pair; empty for another type."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def whole_number(value: object) -> int | None:
    """A whole number, also in digits; None for another value or a number of too many digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _MOST_DIGITS:
        return int(value)
    return value if isinstance(value, int) and abs(value) < 10**_MOST_DIGITS else None
