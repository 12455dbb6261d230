"""Rows of a table whose cells stand in the wrong columns although their number is right.

A comma in a text without quotes makes one cell more. Where the row also lacks a cell, the number
is right by accident, and every cell behind the comma is that of another column.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.errors import DemurError


class Shifts:
    """Watches the rows of a table for texts that a delimiter without quotes took apart.

    In a sentence a space follows the comma, and between cells none does. What begins with a space
    for another reason is told apart by the column: its name has a space before it as well, or
    others of its cells stand in quotes and begin with a space.

    Args:
        header: the cells of the header, as they stand in the file.
        name: the file in quotes, for messages.
        mark: what stands between the cells, in words.
    """

    def __init__(self, header: Sequence[str], name: str, mark: str) -> None:
        self._spaced = {
            place for place, cell in enumerate(header) if cell.startswith(" ") and cell.strip()
        }
        self._nameless = {place for place, cell in enumerate(header) if place and not cell.strip()}
        self._name = name
        self._mark = mark
        self._suspects: dict[int, int] = {}

    def check(self, number: int, cells: Sequence[str], quoted: Sequence[bool]) -> None:
        """Look at a row.

        Args:
            number: line that it begins on.
            cells: its cells, one for every column.
            quoted: whether each of them stands in quotes.

        Raises:
            DemurError: something stands in a column without a name, behind the named ones.
        """
        for place, cell in enumerate(cells):
            if place in self._nameless and cell.strip():
                raise DemurError(
                    f"{self._name} line {number} has text in column {place + 1}, which has no "
                    f"name: name it, or put texts that hold {self._mark} in quotes."
                )
            if not place or not cell.startswith(" ") or not cell.strip():
                continue
            if quoted[place]:
                self._spaced.add(place)
            elif not quoted[place - 1] and cells[place - 1].strip():
                self._suspects.setdefault(place, number)

    def finish(self) -> None:
        """Say which row is shifted, once all of them were seen.

        Raises:
            DemurError: one is.
        """
        numbers = [line for place, line in self._suspects.items() if place not in self._spaced]
        if numbers:
            raise DemurError(
                f"{self._name} line {min(numbers)} has a space behind {self._mark}, as within a "
                f"text: put texts that hold {self._mark} in quotes, or remove the space."
            )
