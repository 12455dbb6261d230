"""The largest sizes that demur reads. They are generous, and stop a mistake early.

A device, a damaged file or the wrong file then ends in one line, not in gigabytes of memory.
"""

from __future__ import annotations

MOST_QUERY_CHARACTERS = 1_000_000
"""In one query, or one message of a conversation."""

MOST_TEXT_CHARACTERS = 1 << 24
"""In one response, and in one cell of a table (16.8 million)."""

MOST_LINE_BYTES = 1 << 26
"""In one line of a file: one object of JSON Lines, one line of a table (67 MB)."""

MOST_LINES_TOGETHER = 1_000_000
"""Lines of one cell of a table, and blank lines in a row."""

MOST_CELLS = 100_000
"""In one row of a table, and columns of a table."""

MOST_WHOLE_BYTES = 1 << 27
"""In a file that is read whole, which is JSON of one document (134 MB)."""

MOST_UNPACKED_BYTES = 1 << 33
"""In what a `.gz` file or an archive unpacks to (8.6 GB)."""

MOST_JSON_PARTS = 8_000_000
"""Commas, colons and opening brackets in one JSON document, which bound its size in memory."""

MOST_QUERIES = 1_000_000
"""In one query set, or one file of requests."""

MOST_SET_CHARACTERS = 1 << 28
"""In all queries of one set together, or all requests of one file."""

MOST_PROMPT_BYTES = 1_000_000
"""In the text file of a safety prompt or a system prompt."""

MOST_SETTINGS_BYTES = 1_000_000
"""In a TOML file of settings."""

MOST_RECORD_BYTES = 1 << 28
"""In a JSON file that demur wrote (268 MB)."""
