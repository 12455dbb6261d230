"""What an attack is: it rewrites a query so that a model may answer what it would refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from demur.records import Conversation, Query


@runtime_checkable
class Attack(Protocol):
    """A rewriting of queries, known from the literature or of your own.

    An attack wraps a query; it never answers one. One of your own needs only `apply`, in a class
    that can be called without arguments, and is named as `file.py:Class`.

    Example:
        An attack of one's own, complete, in a file `mine.py`:

            class Politely:
                name = "politely"
                source = "mine"

                def apply(self, query):
                    return f"Would you be so kind? {query}"
    """

    @property
    def name(self) -> str:
        """What results call the attack."""

    @property
    def source(self) -> str:
        """Where the attack is described: authors, title, year and address."""

    @property
    def opening(self) -> str | None:
        """What every answer is made to begin with; None for nothing.

        Only whoever controls the decoding can do that, so no server is attacked in this way.
        """

    @property
    def disguises(self) -> bool:
        """Whether the query's words are disguised.

        A model that cannot read them answers something else, so such a success says less.
        """

    def apply(self, query: Query) -> Query:
        """The query as the model is asked it.

        Args:
            query: a text, or a `Conversation` whose last message is the query.

        Returns:
            The attacked query, always the same for the same query; two queries never become the
            same one.
        """


def with_text(query: Query, text: str) -> Query:
    """A query with another last message of the user; what stands before it stays."""
    return text if isinstance(query, str) else replace(query, text=text)


def with_system_text(query: Query, text: str) -> Query:
    """A query behind an application's system text, which follows one that it has already."""
    if isinstance(query, str):
        return Conversation(query, system_prompt=text)
    own = query.system_prompt
    return replace(query, system_prompt=text if own is None else f"{own}\n\n{text}")
