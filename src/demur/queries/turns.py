"""Queries in a later turn: short harmless exchanges, written for demur, are put before them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Literal

from demur.errors import DemurError
from demur.queries.query_set import QuerySet
from demur.records import Exchange, Queries, Query, identity_of, in_conversation

FIRST, THIRD = 1, 3
TURNS = (FIRST, THIRD)
"""The turns of a conversation that a query can be measured in."""

Use = Literal["training", "measurement"]
"""What a history is for. No history serves both, so that a measurement reads none that a prompt
was trained on."""


@cache
def load_histories(use: Use) -> tuple[tuple[Exchange, ...], ...]:
    """The built-in histories for a use: twelve of two exchanges each, in a fixed order."""
    source = files("demur.queries") / "sets" / "histories.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    return tuple(
        tuple((asked, answered) for asked, answered in row["history"])
        for row in rows
        if row["use"] == use
    )


def in_turn(query_set: QuerySet, turn: int, seed: int = 0) -> QuerySet:
    """The same queries in a turn of a conversation.

    In the third turn, two short harmless exchanges stand before each query. Which ones follows from
    the query and the seed alone. A query with a history of its own keeps it, behind the exchanges.

    Args:
        query_set: the queries.
        turn: 1 for the queries as they are, or 3.
        seed: at least 0; another seed gives other exchanges.

    Returns:
        A query set of the same name, in the same order.

    Raises:
        DemurError: there is no such turn.

    Example:
        >>> third = in_turn(load_query_set("held-out", "harmful"), 3)  # doctest: +SKIP
        >>> len(third.texts[0].history)  # doctest: +SKIP
        2
    """
    _require_turn(turn)
    if turn == FIRST:
        return query_set
    return replace(query_set, texts=tuple(_third(query, seed) for query in query_set.texts))


def queries_in_turn(queries: Queries, turn: int, seed: int = 0) -> Queries:
    """The same labelled queries in a turn of a conversation, as `in_turn` puts them there.

    Args:
        queries: the queries.
        turn: 1 for the queries as they are, or 3.
        seed: at least 0; another seed gives other exchanges.

    Raises:
        DemurError: there is no such turn.
    """
    _require_turn(turn)
    if turn == FIRST:
        return queries
    texts = tuple(_third(query, seed) for query in queries.texts)
    return replace(queries, name=name_in_turn(queries.name, turn), texts=texts)


def name_in_turn(name: str, turn: int, *, tools: bool = False) -> str:
    """The name of a set in a turn, for people, for example `held-out, third turn, with tools`."""
    return name + ("" if turn == FIRST else ", third turn") + (", with tools" if tools else "")


def draw_of(purpose: str, query: Query, seed: int) -> int:
    """A random whole number from 0 to 2^64 - 1 that follows from its arguments alone."""
    key = f"{purpose}\0{seed}\0{identity_of(query)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


def _require_turn(turn: int) -> None:
    if turn not in TURNS:
        raise DemurError(
            f"Queries cannot be measured in turn {turn!r:.20}: give {' or '.join(map(str, TURNS))}."
        )


def _third(query: Query, seed: int) -> Query:
    histories = load_histories("measurement")
    return in_conversation(query, histories[draw_of("third turn", query, seed) % len(histories)])
