"""Queries in a conversation that offers tools, as an application does that lets the model act."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path

from demur.errors import DemurError
from demur.queries.query_set import QuerySet
from demur.queries.turns import Use, draw_of
from demur.reading import TextFile, exists, parse_json
from demur.records import Query, tools_before, tools_of, with_tools

BUILT_IN_TOOLS = "built-in"
"""What stands for the tools written for demur where the tools of an application are named."""

_MOST_BYTES = 1 << 20


@cache
def load_tools(use: Use) -> tuple[tuple[str, ...], ...]:
    """The built-in lists of tools for a use, one to three tools each, in a fixed order.

    Eight are for training and four for measurement; no tool serves both.
    """
    source = files("demur.queries") / "sets" / "tools.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    return tuple(tools_of(row["tools"]) for row in rows if row["use"] == use)


def read_tools(file: str | PathLike[str]) -> tuple[str, ...]:
    """The tools in a JSON file: a list, or an object with a list `tools`, as in a request.

    Raises:
        DemurError: there is no such file, it is no JSON, above 1 MB, or describes no tools.
    """
    path = Path(file)
    if not exists(path):
        raise DemurError(f"There is no file {str(path)!r:.300}: give a JSON file with tools.")
    text = TextFile(path)
    described = parse_json(text.text(_MOST_BYTES), text.name)
    if isinstance(described, dict) and "tools" in described:
        described = described["tools"]
    try:
        return tools_of(described)
    except DemurError as error:
        raise DemurError(f"{text.name}: {error}") from error


def offering(query_set: QuerySet, tools: tuple[str, ...] | None, seed: int = 0) -> QuerySet:
    """The same queries in conversations that offer tools.

    A query whose own conversation offers tools keeps those.

    Args:
        query_set: the queries.
        tools: tools as `tools_of` returns them, the same before every query; None for built-in
            ones, which follow from the query and the seed.
        seed: at least 0; another seed gives other built-in tools.

    Returns:
        A query set of the same name, in the same order.
    """
    return replace(
        query_set, texts=tuple(_offering(query, tools, seed) for query in query_set.texts)
    )


def _offering(query: Query, tools: tuple[str, ...] | None, seed: int) -> Query:
    if tools_before(query):
        return query
    if tools is None:
        tools = some_tools(query, "measurement", seed)
    return with_tools(query, tools)


def some_tools(query: Query, use: Use, seed: int) -> tuple[str, ...]:
    """Built-in tools that follow from a query and a seed."""
    known = load_tools(use)
    return known[draw_of("which tools", query, seed) % len(known)]
