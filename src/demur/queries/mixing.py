"""Training queries in conversations as applications have them: a history, a text, some tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.resources import files

from demur.errors import DemurError
from demur.queries.tools import some_tools
from demur.queries.turns import draw_of, load_histories
from demur.records import (
    Conversation,
    Queries,
    Query,
    history_of,
    in_conversation,
    tools_before,
    with_tools,
)


@cache
def load_applications() -> tuple[str, ...]:
    """The ten built-in system texts of applications, written for demur, in a fixed order."""
    source = files("demur.queries") / "sets" / "applications.txt"
    lines = source.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def mix_conversations(
    queries: Queries,
    *,
    histories: float = 0.0,
    applications: float = 0.0,
    tools: float = 0.0,
    seed: int = 0,
) -> Queries:
    """Put some queries behind a short harmless history, an application's text, or some tools.

    Of each label the same share is changed. Which queries are, and what stands before them, follows
    from the queries and the seed alone. A history has one exchange or two. A query with a history
    or tools of its own keeps them, and counts as one of the share.

    Args:
        queries: N queries.
        histories: share of the queries that get a history, 0 to 1.
        applications: share of the queries that get the system text of an application, 0 to 1; leave
            it at 0 where the condition has such a text.
        tools: share of the queries before which the template lists tools, 0 to 1; leave it at 0
            where it cannot list any.
        seed: seed of the choice, at least 0.

    Returns:
        The N queries in their order, with their labels and categories, under the same name.

    Raises:
        DemurError: a share is not from 0 to 1.

    Example:
        >>> mixed = mix_conversations(anchors, histories=0.3, applications=0.3)  # doctest: +SKIP
    """
    shares = {"histories": histories, "applications": applications, "tools": tools}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise DemurError(f"The share of {name} is {share!r:.20}: give a number from 0 to 1.")
    texts = list(queries.texts)
    for row in _rows(queries, "history", histories, seed):
        if not history_of(texts[row]):
            texts[row] = in_conversation(texts[row], _history(queries.texts[row], seed))
    for row in _rows(queries, "application", applications, seed):
        texts[row] = _in_application(texts[row], queries.texts[row], seed)
    for row in _rows(queries, "tools", tools, seed):
        if not tools_before(texts[row]):
            texts[row] = with_tools(texts[row], some_tools(queries.texts[row], "training", seed))
    return replace(queries, texts=tuple(texts))


def _rows(queries: Queries, purpose: str, share: float, seed: int) -> Iterator[int]:
    """A share of the queries of each label, first those that have what is meant already."""
    own = {"history": history_of, "tools": tools_before}.get(purpose)
    for harmful in (True, False):
        rows = queries.rows(harmful=harmful)
        drawn = sorted(
            rows,
            key=lambda row: (
                own is not None and not own(queries.texts[row]),
                draw_of(purpose, queries.texts[row], seed),
                row,
            ),
        )
        yield from drawn[: round(share * len(rows))]


def _history(query: Query, seed: int) -> tuple[tuple[str, str], ...]:
    """One exchange or two."""
    known, drawn = load_histories("training"), draw_of("which history", query, seed)
    history = known[drawn % len(known)]
    return history[: 1 + drawn // len(known) % 2]


def _in_application(query: Query, original: Query, seed: int) -> Query:
    if isinstance(query, Conversation) and query.system_prompt is not None:
        return query
    known = load_applications()
    text = known[draw_of("which application", original, seed) % len(known)]
    if isinstance(query, str):
        return Conversation(query, system_prompt=text)
    return replace(query, system_prompt=text)
