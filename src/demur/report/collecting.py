"""Gathers queries and responses, and keeps a report small enough to open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from demur.queries import KINDS, SPLITS, is_own_set
from demur.records import (
    JudgedResponse,
    Label,
    Measurement,
    identity_of,
    may_harm,
    transcript_of,
)
from demur.report.subject import Query, Showing, ShownResponse

MOST_RESPONSES = 10_000
MOST_CHARACTERS = 3_000_000
"""Number of characters of all responses together; beyond that each is cut to an equal share."""


@dataclass
class Collection:
    """Queries, conditions and responses as they are added.

    Attributes:
        full: whether responses that may do harm are folded; they are redacted otherwise.
        queries: queries, each once in its use or set.
        conditions: names of the conditions, no two alike.
        responses: at most `MOST_RESPONSES` responses.
        left_out: number of responses beyond these.
    """

    full: bool = False
    queries: list[Query] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    responses: list[ShownResponse] = field(default_factory=list)
    left_out: int = 0
    _places: dict[tuple[str, str], int] = field(default_factory=dict)
    _conditions: dict[str, int] = field(default_factory=dict)

    def query(self, query: Query, identity: str) -> int:
        """The place of a query, which is added where it is new.

        Args:
            query: the query.
            identity: what tells it from others of its use or set, whose texts may look the same.
        """
        key = (query.use or query.set or "", identity)
        if key not in self._places:
            self._places[key] = len(self.queries)
            self.queries.append(query)
        return self._places[key]

    def condition(self, identity: str, name: str) -> int:
        """The place of a condition, which is added where it is new.

        Args:
            identity: fingerprint of the condition, or its name where that is all there is.
            name: name of the condition; another condition of that name gets a number.
        """
        if identity not in self._conditions:
            shown, number = name, 2
            while shown in self.conditions:
                shown, number = f"{name} ({number})", number + 1
            self._conditions[identity] = len(self.conditions)
            self.conditions.append(shown)
        return self._conditions[identity]

    def name_of(self, measurement: Measurement) -> str:
        """The name of a measurement's condition in the report."""
        place = self.condition(measurement.condition.fingerprint, measurement.name)
        return self.conditions[place]

    def add(
        self,
        use: str,
        measurement: Measurement,
        names: Mapping[Label, tuple[str, ...]] | None = None,
        *,
        by_set: bool = False,
    ) -> None:
        """Add the queries and responses of a measurement.

        Args:
            use: what the queries were used for.
            measurement: measurement whose queries and responses are added.
            names: names of the sets of each label that the queries come from.
            by_set: whether the category of a query is the name of its set where there are several.
        """
        condition = self.condition(measurement.condition.fingerprint, measurement.name)
        queries = measurement.queries
        for query, label, category, responses in zip(
            queries.texts, queries.labels, queries.categories, measurement.responses, strict=True
        ):
            known = () if names is None else names[label]
            name = known[0] if len(known) == 1 else None
            shown_category = category
            if by_set and category in known and len(known) > 1:
                name, shown_category = category, None
            shown = Query(
                text=transcript_of(query),
                label=label,
                category=shown_category,
                set=_set_among(name, known),
                own=name is not None and is_own_set(name),
                use=use,
            )
            place = self.query(shown, identity_of(query))
            for one in responses:
                self._respond(place, condition, one)

    def add_rows(self, rows: Iterable[JudgedResponse]) -> None:
        """Add judged responses one by one.

        A query whose text is not known is told apart by the number of its row.
        """
        for number, row in enumerate(rows, start=1):
            if len(self.responses) >= MOST_RESPONSES:
                self.left_out += 1
                continue
            query = row.query if row.query is not None else f"(query {number})"
            own = row.query is not None and is_own_set(row.set)
            shown = Query(transcript_of(query), row.label, row.category, row.set, own)
            place = self.query(shown, identity_of(query))
            self._respond(place, self.condition(row.condition or row.prompt, row.prompt), row)

    def places(self, use: str, measurement: Measurement) -> list[int]:
        """The place of each query of a measurement that was added for a use."""
        return [self._places[use, identity_of(query)] for query in measurement.queries.texts]

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

    def _respond(self, query: int, condition: int, row: JudgedResponse) -> None:
        if len(self.responses) >= MOST_RESPONSES:
            self.left_out += 1
            return
        text, showing = self._shown(row)
        self.responses.append(ShownResponse(query, condition, text, row.verdict, row.harm, showing))

    def _shown(self, row: JudgedResponse) -> tuple[str, Showing]:
        """The text of a response that goes into the report, and how it is shown."""
        if row.response and may_harm(row.label, row.verdict, row.harm):
            return (row.response, "folded") if self.full else ("", "redacted")
        if row.label != "harmful" or self.full or not row.answer:
            return row.response, "shown"
        # A model may spell out in its reasoning what it then refuses.
        return row.answer, "shown"


def _set_among(name: str | None, known: Sequence[str]) -> str | None:
    """What a set is called among those of its label.

    The only set has no name where it is built in or public, and a kind of one split has that of
    the kind.
    """
    if name is None or is_own_set(name):
        return name
    if len(known) < 2:
        return None
    split, _, kind = name.partition(":")
    same = all(one.partition(":")[0] == split for one in known if not is_own_set(one))
    return kind if same and split in SPLITS and kind in KINDS else name
