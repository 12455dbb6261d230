"""Gathers queries and responses, and keeps a report small enough to open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from demur.queries import BUILT_IN, load_query_set
from demur.report.subject import Query, ShownResponse
from demur.runs import Measurement

MOST_RESPONSES = 10_000
MOST_CHARACTERS = 3_000_000
"""Of all responses together; beyond that each is cut to an equal share."""


@dataclass
class Collection:
    """Queries, conditions and responses as they are added.

    Attributes:
        queries: each once.
        conditions: each once.
        responses: at most `MOST_RESPONSES`.
        left_out: how many more there were.
    """

    queries: list[Query] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    responses: list[ShownResponse] = field(default_factory=list)
    left_out: int = 0
    _places: dict[tuple[str, str], int] = field(default_factory=dict)

    def query(self, query: Query) -> int:
        """The place of a query, which is added where it is new."""
        key = (query.set, query.text)
        if key not in self._places:
            self._places[key] = len(self.queries)
            self.queries.append(query)
        return self._places[key]

    def condition(self, name: str) -> int:
        """The place of a condition, which is added where it is new."""
        if name not in self.conditions:
            self.conditions.append(name)
        return self.conditions.index(name)

    def respond(self, query: Query, condition: str, text: str, refused: bool, harm: str) -> None:
        """Add a response."""
        if len(self.responses) >= MOST_RESPONSES:
            self.left_out += 1
            return
        place = self.query(query)
        self.responses.append(ShownResponse(place, self.condition(condition), text, refused, harm))

    def add(self, name: str, measurement: Measurement, categories: Mapping[str, str]) -> None:
        """Add a measurement's queries and responses under the name of a set."""
        self.condition(measurement.condition)
        queries = measurement.queries
        for text, harmful, responses in zip(
            queries.texts, queries.harmful, measurement.responses, strict=True
        ):
            label = "harmful" if harmful else "harmless"
            query = Query(text, label, categories.get(text, ""), name)
            self.query(query)
            for response in responses:
                self.respond(query, measurement.condition, response.text, response.refused, "")

    def places(self, name: str) -> dict[str, int]:
        """The place of each query of a set, by its text."""
        return {text: place for (owner, text), place in self._places.items() if owner == name}

    def shortened(self) -> tuple[list[ShownResponse], int | None]:
        """The responses, cut where they are too long together; and to how many characters."""
        characters = sum(len(response.text) for response in self.responses)
        if characters <= MOST_CHARACTERS:
            return self.responses, None
        most = max(100, MOST_CHARACTERS // len(self.responses))
        return [
            response
            if len(response.text) <= most
            else replace(response, text=f"{response.text[:most]}...")
            for response in self.responses
        ], most


def built_in_categories() -> dict[str, str]:
    """The category of each built-in query, by its text."""
    categories: dict[str, str] = {}
    for name in BUILT_IN:
        for queries in (load_query_set(name, "harmful"), load_query_set(name, "harmless")):
            categories |= dict(zip(queries.texts, queries.categories or (), strict=True))
    return categories
