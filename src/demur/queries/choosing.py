"""Query sets from what a caller gives: a name, texts, or query sets, alone or joined."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath

from demur.arguments import described
from demur.errors import DemurError
from demur.limits import MOST_QUERY_CHARACTERS
from demur.queries.loading import KINDS, SPLITS, is_name_of_set, load_query_set
from demur.queries.query_set import QuerySet
from demur.reading import check_text
from demur.records import Conversation, Label, Queries, Query, identity_of, text_of

QueryChoice = str | PathLike[str] | QuerySet | Sequence[str] | Sequence[Query] | Sequence[QuerySet]
"""A set by name (as `load_query_set` takes it), a `QuerySet`, the queries as texts and
`Conversation`, or several `QuerySet`, which are joined."""

OWN_NAME = "own queries"
"""Name of a set that is given as texts."""


def as_query_set(choice: QueryChoice, label: Label, most: int | None = None) -> QuerySet:
    """The query set that a caller gave.

    Args:
        choice: name of a set (see `load_query_set`), a `QuerySet` with the right label, a list of
            queries (texts, and `Conversation` for those with a history), or a list of `QuerySet`,
            which are joined.
        label: label that the queries must have.
        most: largest number of queries, as for `join_query_sets`; all of them by default.

    Raises:
        DemurError: the set cannot be read, has the other label, or holds something other than
            text; or the texts are names of sets, which a list of texts never is.

    Example:
        >>> as_query_set(["How do I kill a process?"], "harmless").texts
        ('How do I kill a process?',)
    """
    if isinstance(choice, (str, PathLike)):
        return join_query_sets([load_query_set(fspath(choice), label)], most)
    if isinstance(choice, QuerySet):
        if choice.label != label:
            raise DemurError(
                f"The query set {choice.name!r:.60} holds {choice.label} queries where {label} "
                f"ones are needed: give a set of {label} queries."
            )
        return join_query_sets([choice], most)
    given = _listed(choice, label)
    sets = [one for one in given if isinstance(one, QuerySet)]
    if sets and len(sets) == len(given):
        return join_query_sets([as_query_set(one, label) for one in sets], most)
    queries = _queries(given, label)
    return join_query_sets([QuerySet(OWN_NAME, label, tuple(dict.fromkeys(queries)))], most)


def join_query_sets(sets: Sequence[QuerySet], most: int | None = None) -> QuerySet:
    """Several query sets of one label as one; a query that repeats is kept once.

    Args:
        sets: at least one set, all with the same label.
        most: largest number of queries together; all of them by default. Each set has an equal
            share, and what a small set leaves goes to the others, so that a dozen queries of
            one's own are kept whole beside a large set.

    Returns:
        The queries in their order. The name joins the names with `+`. `categories` is set where
        any of the sets has some; a query of a set without categories has the category "".

    Raises:
        DemurError: there is no set, or labels differ.
    """
    if not sets:
        raise DemurError("There is no query set to join: give at least one.")
    if most is not None:
        shares = _shares([len(one) for one in sets], most)
        sets = [one.head(share) for one, share in zip(sets, shares, strict=True)]
    if len(sets) == 1:
        return sets[0]
    if len({one.label for one in sets}) > 1:
        raise DemurError(
            "Query sets of different labels cannot be joined: join those of one label."
        )
    category_of: dict[Query, str] = {}
    for one in sets:
        for query, category in zip(one.texts, one.categories or ("",) * len(one), strict=True):
            category_of.setdefault(query, category)
    categories = tuple(category_of.values())
    return QuerySet(
        name="+".join(dict.fromkeys(one.name for one in sets)),
        label=sets[0].label,
        texts=tuple(category_of),
        categories=categories if any(categories) else None,
        remark=" ".join(filter(None, dict.fromkeys(one.remark for one in sets))),
    )


def _shares(lengths: Sequence[int], most: int) -> list[int]:
    """How many queries each set gives, so that all together are at most `most`."""
    shares, left = [0] * len(lengths), most
    for done, place in enumerate(sorted(range(len(lengths)), key=lambda place: lengths[place])):
        shares[place] = min(lengths[place], left // (len(lengths) - done))
        left -= shares[place]
    return shares


def labelled(name: str, *sets: QuerySet) -> Queries:
    """Query sets of both labels together, in the order given.

    Args:
        name: name of the whole, for people.
        *sets: query sets, for example the harmful one and the harmless one.
    """
    return Queries(
        name=name,
        texts=tuple(query for one in sets for query in one.texts),
        labels=tuple(one.label for one in sets for _ in one.texts),
        categories=tuple(
            category or None for one in sets for category in (one.categories or ("",) * len(one))
        ),
        remarks=tuple(dict.fromkeys(one.remark for one in sets if one.remark)),
    )


def of_both_labels(sets: Sequence[QuerySet]) -> list[Query]:
    """The queries that are in a harmful set and in a harmless one, in the order of the latter."""
    harmful = {identity_of(query) for one in sets if one.label == "harmful" for query in one.texts}
    return [
        query
        for one in sets
        if one.label == "harmless"
        for query in one.texts
        if identity_of(query) in harmful
    ]


def labelled_pair(harmful: QuerySet, harmless: QuerySet) -> Queries:
    """The queries of both labels as one set, the harmful ones first.

    Raises:
        DemurError: a query is harmful and harmless.
    """
    require_one_label(harmful, harmless)
    return labelled(name_of_pair(harmful.name, harmless.name), harmful, harmless)


def name_of_pair(harmful: str, harmless: str) -> str:
    """The name of a harmful and a harmless set together, for people.

    Example:
        `test` and `test:borderline+test:ordinary` are all of `test`, and are called so; other sets
        are called, for example, `refuse.txt and answer.txt`.
    """
    if harmful in SPLITS and set(harmless.split("+")) == {f"{harmful}:{kind}" for kind in KINDS}:
        return harmful
    return " and ".join(dict.fromkeys((harmful, harmless)))


def require_one_label(*sets: QuerySet) -> None:
    """Check that no query is harmful and harmless, where sets of both labels are set apart.

    Raises:
        DemurError: one is.
    """
    both = of_both_labels(sets)
    if both:
        raise DemurError(
            f"The query {text_of(both[0])!r:.80} is among the harmful queries and among the "
            f"harmless ones{_and_more(len(both))}: give each query one label."
        )


def _and_more(count: int) -> str:
    more = count - 1
    return "" if not more else f", as {more} other{'s are' if more > 1 else ' is'}"


def _listed(choice: object, label: Label) -> list[object]:
    if isinstance(choice, (bytes, dict)) or not hasattr(choice, "__iter__"):
        raise DemurError(
            f"The {label} queries are {described(choice)}: give the name of a set, a QuerySet or a "
            "list of texts."
        )
    given = list(choice)
    if not given:
        raise DemurError(f"The list of {label} queries is empty: give at least one query.")
    return given


def _queries(given: Sequence[object], label: Label) -> list[Query]:
    queries: list[Query] = []
    for place, query in enumerate(given, start=1):
        if isinstance(query, Conversation):
            queries.append(query)
        elif isinstance(query, str) and query.strip():
            place_of = f"The {label} query number {place}"
            queries.append(check_text(query, "text", place_of, MOST_QUERY_CHARACTERS).strip())
        else:
            raise DemurError(
                f"The {label} query number {place} is not a text with something in it: give a list "
                "of texts."
            )
    texts = [query for query in queries if isinstance(query, str)]
    if len(texts) == len(queries) and all(map(is_name_of_set, texts)):
        shown = ", ".join(map(repr, texts))
        raise DemurError(
            f"A list of texts is the {label} queries themselves, and {shown:.120} "
            f"{'names a set' if len(texts) == 1 else 'are names of sets'}: give one name as a "
            f"text, or load_query_set(name, {label!r}) for each."
        )
    return queries
