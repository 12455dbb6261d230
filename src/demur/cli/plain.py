"""The one way to the terminal: whatever demur did not write itself is made plain there.

Names, settings, models, templates, servers and other packages may hold control characters that
drive a terminal, and brackets that `rich` takes for markup. Texts reach the terminal through a
`PlainConsole`, or through a stream of another package, which is a `PlainStream`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain(text: str) -> str:
    """A text without characters that could drive the terminal; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else REPLACEMENT for one in text)


class PlainConsole(Console):
    """A console that shows every text as it is: no markup in it, and no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def file(self) -> IO[str]:
        """Where the console writes: the stream itself, past everything that stands before it.

        While something moves on the terminal, `rich` puts a stream of its own before `PlainStream`,
        and looks behind that one alone; the console's own colours and moves would be made plain.
        """
        found = super().file
        while (inner := getattr(found, "rich_proxied_file", None)) is not None:
            found = inner
        return found

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The pieces of what is shown; those of `rich` itself, such as colours, stay."""
        for piece in super().render(renderable, options):
            if piece.control or piece.text.isprintable():
                yield piece
            else:
                yield Segment(plain(piece.text), piece.style)

    def out(self, *objects: Any, **options: Any) -> None:
        """Write texts as they are, without a line break of `rich`."""
        super().out(*(plain(str(one)) for one in objects), **options)


class PlainStream:
    """A stream of the terminal that shows what other packages write without control characters.

    Args:
        stream: stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.rich_proxied_file = stream
        """Where a console of `rich` writes, whose texts are plain already."""

    def write(self, text: str) -> int:
        """Write a text; the carriage return that a progress bar begins with stays."""
        start = "\r" if text.startswith("\r") else ""
        rest = text[len(start) :]
        self._stream.write(start + "\t".join(map(plain, rest.split("\t"))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_streams_plain() -> None:
    """Let everything that this process writes to its two streams be plain."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, PlainStream):
            setattr(sys, name, PlainStream(stream))
