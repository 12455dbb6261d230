"""Checks of what judges are given."""

from __future__ import annotations

from collections.abc import Sequence

from demur.errors import DemurError
from demur.progress import Progress


def require_equal(what: str, texts: Sequence[str | None], responses: Sequence[str]) -> None:
    """Raise a `DemurError` where two lists of texts differ in length.

    Args:
        what: name of the first list, for example `queries`.
        texts: the first list.
        responses: the second list.
    """
    if len(texts) != len(responses):
        raise DemurError(
            f"There are {len(texts)} {what} and {len(responses)} responses: give as many of each."
        )


def say_missing(name: str, verdicts: Sequence[bool | None], progress: Progress) -> None:
    """Say on how many responses a judge has no verdict, where there are any."""
    missing = sum(verdict is None for verdict in verdicts)
    if missing:
        progress.message(f"{name}: no verdict on {missing} of {len(verdicts)} responses")


def require_queries(name: str, queries: Sequence[str | None]) -> list[str]:
    """The same queries.

    Args:
        name: name of the judge that needs them.
        queries: texts of the queries.

    Raises:
        DemurError: one of them is None.
    """
    known = [query for query in queries if query is not None]
    if len(known) < len(queries):
        raise DemurError(
            f"The judge {name!r} needs the query of each response: add the queries, or choose a "
            "judge that reads the response alone."
        )
    return known
