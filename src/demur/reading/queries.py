"""Queries from a file."""

from __future__ import annotations

from dataclasses import dataclass

from demur.errors import DemurError
from demur.limits import MOST_QUERIES, MOST_SET_CHARACTERS
from demur.reading.given import Format
from demur.reading.messages import CONVERSATION_FIELDS, check_query, is_conversation
from demur.reading.row import Row, listed
from demur.reading.rows import format_of, open_rows
from demur.reading.spec import FileSpec
from demur.records import Query, text_of

USUAL_FIELDS = ("query", *CONVERSATION_FIELDS)
"""Fields that hold the queries where none is named."""


@dataclass(frozen=True)
class GivenQueries:
    """The queries of a file.

    Attributes:
        queries: the queries in their order, without white space around them; some may repeat.
        blank: number of rows that were passed over because no query stands in them.
    """

    queries: tuple[Query, ...]
    blank: int


def read_given_queries(spec: FileSpec) -> GivenQueries:
    """The queries in a file.

    Args:
        spec: the file: `.txt` with a query a line, or another one with the field of its rows that
            holds the queries, by default `query` or `messages`. No field is needed either where the
            rows are texts or conversations, or of a tool that is known: see
            `demur.reading.formats`.

    Raises:
        DemurError: the file cannot be read, or a row is damaged or has no such field.
    """
    rows, field = open_rows(spec)
    queries: list[Query] = []
    blank = size = 0
    tool: Format | None = None
    first = True
    for row in rows:
        if row.is_blank:
            blank += 1
            continue
        is_query = isinstance(row.value, str) or is_conversation(row.value)
        if first and field is None and not is_query:
            tool = format_of(row)
            field = _usual_field(row, tool)
        first = False
        query = _query(row, field, tool)
        if query is None or not text_of(query).strip():
            blank += 1
            continue
        queries.append(query.strip() if isinstance(query, str) else query)
        size += len(text_of(query))
        if len(queries) > MOST_QUERIES or size > MOST_SET_CHARACTERS:
            raise DemurError(
                f"{str(spec.path)!r:.300} holds more than {MOST_QUERIES:,} queries, or "
                f"{MOST_SET_CHARACTERS:,} characters, above what is read: give a part of them."
            )
    return GivenQueries(tuple(queries), blank)


def _query(row: Row, field: str | None, tool: Format | None) -> Query | None:
    if tool is not None:
        if not tool.fits(row):
            raise DemurError(f"{row.place} is not of {tool.name}, as the first row: drop it.")
        return tool.query(row)
    if field is None:
        return check_query(row.value, "query", row.place)
    return check_query(row.find(field), field, row.place)


def _usual_field(row: Row, tool: Format | None) -> str | None:
    """The field that holds the queries where none is named; None where the tool knows it."""
    if tool is not None:
        return None
    for name in USUAL_FIELDS:
        if row.has(name):
            return name
    if row.columns:
        raise DemurError(
            f"{row.place} needs the name of the column with the queries, after a colon "
            f"(FILE:COLUMN): its columns are {listed(row.columns)}."
        )
    raise DemurError(f"{row.place} is not a JSON object: write one JSON object a row.")
