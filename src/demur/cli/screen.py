"""What the terminal shows: texts that cannot drive it, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from demur.cli.names import NamesTable
from demur.cli.plain import PlainConsole, plain

console = PlainConsole()
errors = PlainConsole(stderr=True)


def printable(text: str) -> str:
    """A text without control characters and without white space around it."""
    return plain(text).strip()


def one_line(text: str, most: int = 40) -> str:
    """A printable text in one line of at most `most` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[:most]}..."


def short_name(name: str, most: int = 40) -> str:
    """A name in one line of at most `most` characters.

    A long one is cut in the middle: what tells two names apart, `(2)` or `.txt`, is at the end.
    """
    line = " ".join(printable(name).split())
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail - 3]}...{line[-tail:]}"


def new_table(title: str | None = None, caption: str | None = None) -> NamesTable:
    """An empty table in the style that all tables have."""
    return NamesTable(
        title=None if title is None else Text(title),
        title_justify="left",
        caption=None if caption is None else Text(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )


def with_notes(table: Table, notes: Sequence[str]) -> Group:
    """A table with lines below it, which may be longer than the table is wide."""
    return Group(table, *(Text(printable(note), style="dim") for note in notes if note), "")


def show_line(text: Text, console: Console = console, indent: int = 2) -> None:
    """Print a text in one line; on a terminal that is narrower in several, the others indented.

    Args:
        text: the text.
        console: where to print.
        indent: columns that further lines are indented by.
    """
    if not console.is_terminal:  # a line of a log is found again as a whole
        console.print(text, soft_wrap=True)
        return
    for place, line in enumerate(text.wrap(console, console.width - indent)):
        line.rstrip()
        console.print(Text(" " * indent if place else "").append_text(line), soft_wrap=True)


def show_path(text: str, path: Path) -> None:
    """Print a line of text and a path below it."""
    console.print(text)
    console.print(Text(printable(str(path)), style="bold"), soft_wrap=True)


def show_command(text: str, verb: str, items: Sequence[str], console: Console = console) -> None:
    """Print a line of text and a command of demur below it, quoted for a shell."""
    from demur.settings import command_line

    console.print(text)
    console.print(Text(printable(command_line(verb, items)), style="bold"), soft_wrap=True)


def print_again(console: Console, folder: Path, what: str) -> None:
    """Print where results are, their report if there is one, and how to see them again."""
    console.print(f"{what} are in:")
    console.print(Text(printable(str(folder)), style="bold"), soft_wrap=True)
    report = folder / "report.html"
    if report.is_file():
        console.print("Open the report in a browser:")
        console.print(Text(printable(str(report)), style="bold"), soft_wrap=True)
    show_command("See this again with:", "show", [str(folder)], console)


def show_error(message: str) -> None:
    """Print a message in one red line on the error stream."""
    line = " ".join(printable(message).split())
    errors.print(Text(line, style="red"), soft_wrap=True)
