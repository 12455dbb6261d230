"""`QuerySet`: queries of one label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import get_args

from demur.errors import DemurError
from demur.records import Label, Query, to_plain

#: Fewer queries of a label than this say nothing about a prompt.
MINIMUM_QUERIES = 10


@dataclass(frozen=True)
class QuerySet:
    """Queries of one label, in a fixed order.

    Attributes:
        name: where the queries come from, for tables and run folders: a built-in name, a file's
            name (with its column), or a dataset's name.
        label: "harmful" or "harmless", the label of every query in the set.
        texts: the queries: each is one message of the user, or a `Conversation` whose last
            message it is.
        categories: one category a query, or None where the source names none.
        source: what tells where the queries were read from, to see which sets of both labels
            belong together; None for queries of your own, whose name does.
        remark: what was left out when the queries were read, as a sentence; empty for nothing.

    Raises:
        DemurError: the label is neither of the two, or categories and texts differ in number.
    """

    name: str
    label: Label
    texts: tuple[Query, ...]
    categories: tuple[str, ...] | None = None
    source: str | None = field(default=None, compare=False, repr=False)
    remark: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.label not in get_args(Label):
            raise DemurError(
                f"The label of a query set is not {self.label!r:.40}: give 'harmful' or 'harmless'."
            )
        if self.categories is not None and len(self.categories) != len(self.texts):
            raise DemurError(
                f"Query set {self.name!r} has {len(self.texts)} queries but "
                f"{len(self.categories)} categories: give one category a query, or none at all."
            )

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[Query]:
        return iter(self.texts)

    def head(self, n: int) -> QuerySet:
        """The first `n` queries, or all of them where there are fewer.

        Raises:
            DemurError: `n` is negative.
        """
        if n < 0:
            raise DemurError(f"Cannot take the first {n} queries: give a number of 0 or more.")
        categories = None if self.categories is None else self.categories[:n]
        return replace(self, texts=self.texts[:n], categories=categories)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the label and the queries in order, whatever the name."""
        plain = [query if isinstance(query, str) else to_plain(query) for query in self.texts]
        content = json.dumps([self.label, *plain], sort_keys=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()


def require(query_set: QuerySet, most: int | None = None) -> QuerySet:
    """Return `query_set` if it holds enough queries: 10, or `most` where that is less.

    Args:
        query_set: the queries.
        most: number of queries that are asked for, at most; None for all of them.

    Raises:
        DemurError: it holds fewer.
    """
    minimum = MINIMUM_QUERIES if most is None else min(most, MINIMUM_QUERIES)
    if len(query_set) < minimum:
        raise DemurError(
            f"Query set {query_set.name!r} holds {len(query_set)} distinct {query_set.label} "
            f"queries: give at least {minimum}, or a built-in set beside it."
        )
    return query_set
