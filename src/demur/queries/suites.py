"""Suites: a balanced choice of harmful, borderline and ordinary queries under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from demur.errors import DemurError, did_you_mean
from demur.queries.loading import load_query_set
from demur.queries.query_set import QuerySet
from demur.records import Label

STANDARD = "standard"


@dataclass(frozen=True)
class Suite:
    """What a suite holds.

    Attributes:
        sets: built-in sets, each with its label.
        most: queries of each, at most.
    """

    sets: tuple[tuple[str, Label], ...]
    most: int


SUITES: Mapping[str, Suite] = {
    STANDARD: Suite(
        (("test", "harmful"), ("test:borderline", "harmless"), ("test:ordinary", "harmless")), 100
    )
}
"""Every suite by its name. `standard` needs no network: its queries are written for demur."""


def load_suite(name: str) -> tuple[QuerySet, ...]:
    """The query sets of a suite.

    Args:
        name: a name in `SUITES`.

    Returns:
        One set of each kind, the harmful one first.

    Raises:
        DemurError: there is no such suite.

    Example:
        >>> [len(one) for one in load_suite("standard")]
        [100, 100, 100]
    """
    if name not in SUITES:
        raise DemurError(
            f"There is no suite {name!r:.100}{did_you_mean(name, SUITES)}: choose "
            f"{', '.join(SUITES)}."
        )
    suite = SUITES[name]
    return tuple(load_query_set(spec, label).head(suite.most) for spec, label in suite.sets)
