"""Files and data sets that people have: tables, JSON and the outputs of other tools.

Queries and responses are named in the same way, `FILE`, `FILE:FIELD` or `hf:ORG/NAME:COLUMN`, and
are read row by row by the same reader, strictly. A row that is damaged is an error that names it;
no text is shortened, merged or dropped.
"""

from demur.reading.data_sets import FORM, HUB_PREFIX, DataSet, without_waiting
from demur.reading.files import NoWatch, TextFile, Watch
from demur.reading.given import GivenRequest, GivenResponse
from demur.reading.messages import check_query
from demur.reading.objects import parse_json
from demur.reading.queries import GivenQueries, read_given_queries
from demur.reading.responses import ResponseReader, read_requests
from demur.reading.row import listed
from demur.reading.rows import open_rows
from demur.reading.spec import ENDINGS, FileSpec, exists
from demur.reading.table import read_table_columns
from demur.reading.text import check_text, read_text_lines

__all__ = [
    "ENDINGS",
    "FORM",
    "HUB_PREFIX",
    "DataSet",
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
    "parse_json",
    "read_given_queries",
    "read_requests",
    "read_table_columns",
    "read_text_lines",
    "without_waiting",
]
