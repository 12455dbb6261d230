"""Texts in tables: names that are broken between their parts where a column is too narrow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import (
    Console,
    ConsoleOptions,
    JustifyMethod,
    OverflowMethod,
    RenderableType,
    RenderResult,
)
from rich.containers import Lines
from rich.table import Table
from rich.text import Text

_WORD = re.compile(r"\s*\S+\s*")
_PART = re.compile(r".*?(?:[-_:/\\@,=+]+(?=\w)|\.(?=[^\W\d]))|.+", re.DOTALL)


class NameText(Text):
    """A text that is broken between words, and within one only where it fits on no line.

    Such a word is broken behind a hyphen, point, colon or slash: `test:` and `borderline` rather
    than `test:borderl` and `ine`. Parts that are still too long are broken anywhere.
    """

    @classmethod
    def of(cls, text: Text) -> NameText:
        """The same text with the same styles."""
        name = cls(
            text.plain,
            style=text.style,
            justify=text.justify,
            overflow=text.overflow,
            no_wrap=text.no_wrap,
            end=text.end,
        )
        name.spans = list(text.spans)
        return name

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """The lines of the text, each of at most `width` columns; see `rich.text.Text.wrap`."""
        if no_wrap or (no_wrap is None and self.no_wrap):
            return super().wrap(
                console,
                width,
                justify=justify,
                overflow=overflow,
                tab_size=tab_size,
                no_wrap=no_wrap,
            )
        wrapped = Lines()
        for line in self.split(allow_blank=True):
            lines = line.divide(_breaks(line.plain, width))
            for one in lines:
                one.rstrip_end(width)
            if justify or self.justify:
                lines.justify(console, width, justify=justify or self.justify or "default")
            wrapped.extend(lines)
        return wrapped


class NamesTable(Table):
    """A table whose cells and headings break names between their parts.

    Its title may be wider than the table is.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title over the whole width of the terminal, and the table."""
        title, self.title = self.title, None
        try:
            if title is not None:
                yield NameText.of(Text(str(title), style="table.title"))
            yield from super().__rich_console__(console, options)
        finally:
            self.title = title

    def add_column(self, header: RenderableType = "", *options: Any, **named: Any) -> None:
        """Add a column; see `rich.table.Table.add_column`."""
        super().add_column(_as_name(header), *options, **named)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row; see `rich.table.Table.add_row`."""
        super().add_row(*map(_as_name, cells), **options)


def _as_name(cell: RenderableType | None) -> RenderableType:
    """A cell as text; anything but text stays as it is."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return NameText(cell)
    return NameText.of(cell) if isinstance(cell, Text) else cell


def _breaks(text: str, width: int) -> list[int]:
    """The places at which lines of at most `width` columns begin, but for the first."""
    places: list[int] = []
    used = 0
    for start, piece in _pieces(text, width):
        if used and used + cell_len(piece.rstrip()) > width:
            places.append(start)
            used = 0
        used += cell_len(piece)
    return places


def _pieces(text: str, width: int) -> Iterator[tuple[int, str]]:
    """What is not broken, each piece with its place: words, or parts of those that are too long."""
    for word in _WORD.finditer(text):
        start = word.start()
        for piece in _parts(word.group(), width):
            yield start, piece
            start += len(piece)


def _parts(word: str, width: int) -> Iterable[str]:
    """The parts of a word with the white space around it; the word itself where it fits."""
    if cell_len(word.strip()) <= width:
        return [word]
    parts: list[str] = []
    for part in _PART.findall(word):
        fits = cell_len(part.rstrip()) <= width
        parts += [part] if fits else chop_cells(part, width)
    return parts
