"""One row of a file, and its fields by name: a column of a table, or a dotted path into JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import DemurError, did_you_mean
from demur.reading.text import check_text

_LISTED_COLUMNS = 12
_MISSING = ("NULL", "None", "NaN", "nan", "<NA>", "\\N")
"""What programs write into a table where they have no text, which has no other way to say so."""


@dataclass(frozen=True)
class Row:
    """A row of a table, a line or an item of a JSON file, or a sample of a log.

    Attributes:
        place: the file and the row, for messages.
        value: what stands there: for a table the cells by their columns.
        in_table: whether it is a row of a text table.
        implied: name of the list that it is an item of, where that was found and not named.
    """

    place: str
    value: object
    in_table: bool = False
    implied: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its fields; empty where it has none."""
        return tuple(map(str, self.value)) if isinstance(self.value, Mapping) else ()

    @property
    def is_blank(self) -> bool:
        """Whether nothing stands there, as in a row of delimiters that a spreadsheet adds."""
        if self.in_table and isinstance(self.value, Mapping) and len(self.value) > 1:
            return not any(cell.strip() for cell in self.value.values())
        return isinstance(self.value, str) and not self.value.strip()

    def has(self, *fields: str) -> bool:
        """Whether it has all of these fields, at its top."""
        return isinstance(self.value, Mapping) and all(field in self.value for field in fields)

    def get(self, *path: str) -> Any:
        """What stands at the end of a path of names; None where it leads nowhere."""
        found = self.value
        for name in path:
            if not isinstance(found, Mapping):
                return None
            found = found.get(name)
        return found

    def find(self, field: str, what: str = "texts") -> Any:
        """The value of a field.

        Args:
            field: name of a column, or a dotted path: `a.b`, with numbers for the items of a list
                (`choices.0.text`). A name that has dots itself comes first.
            what: what the field should hold, for messages.

        Raises:
            DemurError: there is no such field; the message lists those that there are.
        """
        if not isinstance(self.value, Mapping):
            raise DemurError(
                f"{self.place} is {_kind(self.value)} without fields: write one JSON object a row, "
                f"or leave out {field!r:.80}."
            )
        found = _look_up(self.value, field)
        if found is None:
            raise DemurError(
                f"{self.place} has no column {field!r:.80}{did_you_mean(field, self.columns)}: its "
                f"columns are {listed(self.columns)}."
            )
        if self.in_table and found[0] in _MISSING:
            raise DemurError(
                f"{self.place}: {field!r:.80} is {found[0]}, as programs write a value that is "
                "missing: drop the row, or give the texts as JSON if one says that."
            )
        return found[0]

    def text(self, field: str) -> str | None:
        """The text at the top of the row under a name; None where there is none.

        Raises:
            DemurError: it is no text.
        """
        value = self.get(field)
        return None if value is None else check_text(value, field, self.place)

    def name(self, field: str) -> str | None:
        """The same without white space around it; None also where it is blank."""
        return (self.text(field) or "").strip() or None


def listed(columns: Sequence[str]) -> str:
    """The names of columns for a message."""
    shown = ", ".join(f"{name!r:.60}" for name in columns[:_LISTED_COLUMNS]) or "none"
    more = len(columns) - _LISTED_COLUMNS
    return f"{shown} and {more} more" if more > 0 else shown


def _look_up(value: object, field: str) -> tuple[Any] | None:
    """The value at a dotted path, in a tuple; None where there is none."""
    if isinstance(value, Mapping):
        if field in value:
            return (value[field],)
        parts = field.split(".")
        for end in range(len(parts) - 1, 0, -1):
            head = ".".join(parts[:end])
            if head in value:
                found = _look_up(value[head], ".".join(parts[end:]))
                if found is not None:
                    return found
    elif isinstance(value, list):
        head, _, rest = field.partition(".")
        if head.removeprefix("-").isdecimal() and -len(value) <= int(head) < len(value):
            item = value[int(head)]
            return (item,) if not rest else _look_up(item, rest)
    return None


def _kind(value: object) -> str:
    return {str: "a text", list: "a list", type(None): "null"}.get(type(value), "a number")
