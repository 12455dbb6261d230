"""Arguments of whatever runs a model: one clear error for what does not fit."""

from __future__ import annotations

from demur.arguments import described
from demur.errors import DemurError
from demur.prompts import Condition, SafetyPrompt
from demur.records import Conversation, Query


def require_queries(queries: object) -> list[Query]:
    """The queries that a method of a model is given.

    Raises:
        DemurError: they are none, a single query, or something other than texts and conversations.
    """
    if isinstance(queries, str):
        raise DemurError(f"The queries are the single text {queries[:40]!r}: give a list of texts.")
    if isinstance(queries, (bytes, dict, Conversation)) or not hasattr(queries, "__iter__"):
        raise DemurError(f"The queries are {described(queries)}: give a list of texts.")
    found: list[Query] = []
    for place, query in enumerate(queries, start=1):
        if not isinstance(query, (str, Conversation)):
            raise DemurError(
                f"The query number {place} is {described(query)}: give a list of texts."
            )
        found.append(query)
    if not found:
        raise DemurError("The list of queries is empty: give at least one query.")
    return found


def require_condition(condition: object) -> None:
    """Check what stands before queries.

    Raises:
        DemurError: it is no condition.
    """
    if isinstance(condition, Condition):
        return
    if isinstance(condition, SafetyPrompt):
        raise DemurError("The condition is a SafetyPrompt: give Condition(prompt).")
    raise DemurError(
        f"The condition is {described(condition)}: give a Condition, such as "
        "Condition(load_prompt('long'))."
    )
