"""Tables with a header row: CSV with commas, semicolons, tabs or bars, read strictly.

Python's `csv` module takes a row apart without saying which cells were quoted, and lets a quote
stand anywhere outside of quoted cells. A damaged row then becomes a shorter text, or swallows the
rows that follow. Here it is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from demur.errors import DemurError, did_you_mean
from demur.limits import MOST_CELLS, MOST_LINES_TOGETHER, MOST_TEXT_CHARACTERS
from demur.reading.files import TextFile
from demur.reading.row import Row, listed
from demur.reading.shifted import Shifts

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_DECLARED = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)
_DOUBLED = 'write a quote within a text as ""'
_LEAST_END = 4  # a delimiter and three letters
_MOST_DIGITS = 20
_MOST_REMEMBERED = 1000
_LONGEST_FIRST = 80
_NOT_ESCAPED = ', not as \\"'


@dataclass(frozen=True)
class Table:
    """A table whose header row has been read.

    Attributes:
        name: the file in quotes, for messages.
        header: names of the columns, stripped of white space.
        records: line and cells of each row below the header that is not blank.
    """

    name: str
    header: tuple[str, ...]
    records: Iterator[tuple[int, list[str]]]

    def rows(self) -> Iterator[Row]:
        """The rows by the names of their columns.

        Raises:
            DemurError: a row is damaged; the message names it.
        """
        for number, cells in self.records:
            place = f"{self.name} line {number}"
            yield Row(place, dict(zip(self.header, cells, strict=True)), in_table=True)


def open_table(file: TextFile, column: str | None = None, *, known: bool = False) -> Table:
    """Read the header of a table and find what stands between its cells.

    Args:
        file: the file; one whose name ends in `.tsv` has tabs, unless its header has others.
        column: a column that is asked for, which helps to tell what stands between the cells.
        known: whether the content is known to be as published; then no row is taken for shifted.

    Raises:
        DemurError: the file cannot be read, or its header is damaged, has a name twice or lacks the
            column.
    """
    lines = file.lines()
    first, skipped = next(lines, ""), 0
    declared = _DECLARED.fullmatch(first.strip("\r\n"))
    if declared:  # as spreadsheets write it
        first, skipped = next(lines, ""), 1
        delimiter = declared[1]
    elif _is_tabbed(file.path.name.lower(), first):
        delimiter = "\t"
    else:
        delimiter = _delimiter_of(first, column)
    reader = _Reader(chain((first,), lines), delimiter, file.name, skipped)
    written = next(reader, (0, []))[1]
    header = tuple(cell.strip() for cell in written)
    for name, times in Counter(header).items():
        if name and times > 1:
            raise DemurError(f"{file.name} has more than one column {name!r:.80}: rename one.")
    if column is not None:
        _require_column(column, header, file.name)
    records = _checked(reader, header, file.name)
    # Texts do not hold tabs, so that a space behind one says nothing.
    if delimiter != "\t" and not known:
        shifts = Shifts(written, file.name, _DELIMITERS[delimiter])
        records = _unshifted(records, reader, shifts)
    return Table(file.name, header, records)


def read_table_columns(file: TextFile, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The cells of some columns, in their order, for every row of a table that is not blank.

    The content is known to be as published, so that no row is taken for shifted.

    Raises:
        DemurError: a column is missing, or the table is damaged.
    """
    table = open_table(file, known=True)
    for column in columns:
        _require_column(column, table.header, table.name)
    places = [table.header.index(column) for column in columns]
    return [tuple(cells[place] for place in places) for _, cells in table.records]


def _require_column(column: str, header: Sequence[str], name: str) -> None:
    if not header:
        raise DemurError(f"{name} is empty: give a table with a header row.")
    if column not in header:
        raise DemurError(
            f"{name} has no column {column!r:.80}{did_you_mean(column, header)}: its columns are "
            f"{listed(header)}."
        )


def _is_tabbed(name: str, header: str) -> bool:
    """Whether a file is one of tabs by its name, and its header does not say otherwise."""
    others = "\t" not in header and ("," in header or ";" in header)
    return name.endswith((".tsv", ".tsv.gz")) and not others


def _delimiter_of(header: str, column: str | None) -> str:
    """The delimiter that finds the column, else the one that finds most; a comma in doubt."""

    def found(delimiter: str) -> tuple[bool, int]:
        try:
            _, cells = next(_Reader(iter((header,)), delimiter, "", 0), (0, [""]))
        except DemurError:  # which is said when the delimiter is known
            return False, header.count(delimiter) + 1
        return column in [cell.strip() for cell in cells], len(cells)

    return max(_DELIMITERS, key=found)


def _checked(reader: _Reader, header: Sequence[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with a cell for every column."""
    cells_of = f"{len(header)} cell{'s' * (len(header) != 1)}"
    for number, cells in reader:
        if len(cells) > len(header):
            raise DemurError(
                f"{name} line {number} has {len(cells)} cells and the header {len(header)}: put "
                f"texts that hold {_DELIMITERS[reader.delimiter]} in quotes"
                f"{reader.about_backslashes}."
            )
        if len(cells) < len(header):
            raise DemurError(
                f"{name} line {number} has {len(cells)} cell{'s' * (len(cells) != 1)} and the "
                f"header {len(header)}: give "
                f"every row {cells_of}, and put texts of several lines in quotes."
            )
        yield number, cells


def _unshifted(
    records: Iterator[tuple[int, list[str]]], reader: _Reader, shifts: Shifts
) -> Iterator[tuple[int, list[str]]]:
    """The rows, none of which has cells in the wrong columns."""
    for number, cells in records:
        shifts.check(number, cells, reader.quoted)
        yield number, cells
    shifts.finish()


class _Reader:
    """The rows of a table that are not blank, each with the line that it begins on.

    Attributes:
        delimiter: what stands between the cells.
        quoted: whether each cell of the last row stands in quotes.
    """

    def __init__(self, lines: Iterator[str], delimiter: str, name: str, skipped: int) -> None:
        self.delimiter = delimiter
        self.quoted: list[bool] = []
        self._firsts: set[str] = set()
        self._numbers: set[str] = set()
        self._multiline: list[tuple[int, int, set[str]]] = []
        self._lines = lines
        self._name = name
        self._number = skipped
        self._escaped = False

    @property
    def about_backslashes(self) -> str:
        """A remark on the last row, where backslashes stand before its quotes."""
        return f", and {_DOUBLED}{_NOT_ESCAPED}" if self._escaped else ""

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        for line in self._lines:
            self._number += 1
            if line.strip():
                begun, self._escaped = self._number, '\\"' in line
                return begun, self._cells(line)
        for opened, closed, firsts in self._multiline:
            if firsts <= self._firsts:
                self._escaped = False
                raise DemurError(self._rows_within(opened, closed))
        raise StopIteration

    def _cells(self, line: str) -> list[str]:
        cells: list[str] = []
        self.quoted = []
        at = 0
        while True:
            self.quoted.append(line.startswith('"', at))
            if self.quoted[-1]:
                opened = self._number
                cell, line, at = self._quoted(line, at + 1)
                if self._number > opened:
                    self._check_rows_within(opened, cells, cell, line[at:].rstrip("\r\n"))
            else:
                end = line.find(self.delimiter, at)
                cell = line[at:] if end < 0 else line[at:end]
                at += len(cell)
                cell = cell if end >= 0 else cell.rstrip("\r\n")
                self._check_plain(cell)
            cells.append(cell)
            if len(cells) == 1:
                self._remember(cell)
            if not line.startswith(self.delimiter, at):
                return cells
            if len(cells) > MOST_CELLS:
                raise DemurError(
                    f"{self._name} line {self._number} has more than {MOST_CELLS:,} cells: check "
                    "that this is the right file."
                )
            at += 1

    def _remember(self, first: str) -> None:
        """Keep the first cell of a row; of numbers those that repeat, since others only count."""
        if len(first) > _LONGEST_FIRST or len(self._firsts) > _MOST_REMEMBERED:
            return
        if not first.isdecimal() or first in self._numbers:
            self._firsts.add(first)
        elif len(self._numbers) < _MOST_REMEMBERED:
            self._numbers.add(first)

    def _quoted(self, line: str, at: int) -> tuple[str, str, int]:
        """A cell in quotes, with the line that it ends on and the place behind it."""
        opened, parts, size = self._number, [], 0
        while True:
            end = line.find('"', at)
            if end < 0:
                parts.append(line[at:])
                size += len(parts[-1])
                line, at = next(self._lines, ""), 0
                self._number += 1
                self._escaped = self._escaped or '\\"' in line
                many = self._number - opened > MOST_LINES_TOGETHER
                if not line or many or size > MOST_TEXT_CHARACTERS:
                    raise DemurError(
                        f"{self._name} line {opened} opens a quote that is never closed: close it"
                        f"{self.about_backslashes or f', and {_DOUBLED}'}."
                    )
                continue
            parts.append(line[at:end])
            if line.startswith('"', end + 1):
                parts.append('"')
                at = end + 2
                continue
            if line[end + 1 :].strip("\r\n") and not line.startswith(self.delimiter, end + 1):
                raise DemurError(self._beside(opened))
            return "".join(parts), line, end + 1

    def _beside(self, opened: int) -> str:
        """What to say of text beside a closing quote."""
        if opened == self._number:
            return (
                f"{self._name} line {opened} has text beside a closing quote: {_DOUBLED}"
                f"{_NOT_ESCAPED if self._escaped else ''}, and put the whole text in quotes."
            )
        return (
            f"{self._name} line {opened} opens a quote that is not closed before the text on line "
            f"{self._number}: close it{self.about_backslashes or f', and {_DOUBLED}'}."
        )

    def _check_rows_within(self, opened: int, before: list[str], cell: str, after: str) -> None:
        """Check that a quote which is closed some lines on did not swallow whole rows.

        It did where the lines go on counting as the first cell does, or all end as the row does.
        Where they begin as other rows do, is known once those are read.
        """
        lines = [line.rstrip("\r") for line in cell.split("\n")]
        number = before[0].strip() if before else ""
        counts = (
            number.isdecimal()
            and len(number) < _MOST_DIGITS
            and all(
                line.startswith(f"{int(number) + more}{self.delimiter}")
                for more, line in enumerate(lines[1:], start=1)
            )
        )
        ends = len(after) >= _LEAST_END and all(line.endswith(after) for line in lines[:-1])
        if counts or ends:
            raise DemurError(self._rows_within(opened, self._number))
        begun = {_first_cell(line, self.delimiter) for line in lines[1:]}
        if number and "" not in begun and len(self._multiline) < _MOST_REMEMBERED:
            self._multiline.append((opened, self._number, begun))

    def _rows_within(self, opened: int, closed: int) -> str:
        """What to say of a quote that swallowed rows."""
        return (
            f"{self._name} line {opened} opens a quote that is closed only on line {closed}, and "
            "what is between looks like rows: close it"
            f"{self.about_backslashes or f', and {_DOUBLED}'}."
        )

    def _check_plain(self, cell: str) -> None:
        """Check a cell without quotes around it."""
        if '"' not in cell:
            return
        if cell.lstrip().startswith('"'):
            raise DemurError(
                f"{self._name} line {self._number} has a space before a quote: remove the space."
            )
        if cell.count('"') % 2:
            raise DemurError(
                f"{self._name} line {self._number} has a quote within a text that is not in "
                f"quotes: put the text in quotes, and {_DOUBLED}."
            )


def _first_cell(line: str, delimiter: str) -> str:
    """The first cell of a line that looks like a row; empty where it looks like a text."""
    first, found, rest = line.partition(delimiter)
    is_row = found and len(first) <= _LONGEST_FIRST and not rest.startswith(" ")
    return first if is_row else ""
