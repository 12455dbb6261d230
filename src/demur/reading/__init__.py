"""Files that people have: tables, JSON and the outputs of other tools, read strictly, row by row.

Queries and responses are named in the same way, `FILE` or `FILE:FIELD`, and are read by the same
reader. A row that is damaged is an error that names it; no text is shortened, merged or dropped.
"""

from demur.reading.files import NoWatch, TextFile, Watch
from demur.reading.given import GivenRequest, GivenResponse
from demur.reading.messages import check_query
from demur.reading.queries import GivenQueries, read_given_queries
from demur.reading.responses import ResponseReader, read_requests
from demur.reading.row import listed
from demur.reading.rows import open_rows
from demur.reading.spec import ENDINGS, FileSpec, exists
from demur.reading.table import read_table_columns
from demur.reading.text import check_text, read_text_lines

__all__ = [
    "ENDINGS",
    "FileSpec",
    "GivenQueries",
    "GivenRequest",
    "GivenResponse",
    "NoWatch",
    "ResponseReader",
    "TextFile",
    "Watch",
    "check_query",
    "check_text",
    "exists",
    "listed",
    "open_rows",
    "read_given_queries",
    "read_requests",
    "read_table_columns",
    "read_text_lines",
]
