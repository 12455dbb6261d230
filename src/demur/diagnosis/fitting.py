"""The queries that the probe of a diagnosis is fitted to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from demur.diagnosis.settings import ProbeSettings
from demur.optimization.recorded import QueriesRecord
from demur.queries import (
    QueryChoice,
    QuerySet,
    as_query_set,
    join_query_sets,
    labelled,
    require_one_label,
)
from demur.records import Label, Queries, Query, text_of

FITTING = "probe"

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Fitting:
    """Queries to fit a probe to; none of them is diagnosed.

    Attributes:
        queries: labelled queries, at least 20 of each label.
        sets: names of the harmful and of the harmless set; for people.
    """

    queries: Queries
    sets: tuple[str, str]

    @property
    def record(self) -> QueriesRecord:
        """What is recorded of them."""
        return QueriesRecord(*self.sets, self.queries.fingerprint)


def choose_fitting(
    settings: ProbeSettings,
    reported: Collection[Query],
    harmful: QueryChoice | None = None,
    harmless: QueryChoice | None = None,
) -> Fitting | None:
    """Choose what a probe is fitted to.

    Args:
        settings: names of the sets, and the largest number of queries. Half of them are harmful,
            and each set of a label has an equal share, spread over the whole set.
        reported: queries that the probe is tried on, whose texts are left out.
        harmful: harmful queries in place of those that the settings name.
        harmless: harmless queries, likewise.

    Returns:
        None where no probe is wanted, or fewer than 20 queries of a label are left.

    Raises:
        DemurError: a set cannot be read, or has the other label.
    """
    if not settings.headroom:
        return None
    left_out = {text_of(query) for query in reported}
    most = settings.probe_queries // 2
    others = settings.probe_queries - most
    chosen = (
        _chosen(settings.probe_harmful, harmful, "harmful", left_out, most),
        _chosen(settings.probe_harmless, harmless, "harmless", left_out, others),
    )
    from demur.geometry import LEAST_FITTED  # with torch: behind the mistakes in names

    if min(map(len, chosen)) < LEAST_FITTED:
        return None
    require_one_label(*chosen)
    return Fitting(labelled(FITTING, *chosen), (chosen[0].name, chosen[1].name))


def _chosen(
    names: Sequence[str],
    given: QueryChoice | None,
    label: Label,
    left_out: Collection[str],
    most: int,
) -> QuerySet:
    choices: Sequence[QueryChoice] = names if given is None else [given]
    sets = [_spread(as_query_set(one, label), left_out) for one in choices]
    return join_query_sets(sets, most)


def _spread(queries: QuerySet, left_out: Collection[str]) -> QuerySet:
    """The queries that are not left out, in an order whose every beginning covers the whole set.

    Sets are often sorted, so that their first queries are not like the others. The multiples of the
    golden ratio, modulo 1, lie evenly in [0, 1]. The n-th queries of two sets of one length, which
    are twins in the built-in sets, are the n-th afterwards, too.
    """
    order = sorted(range(len(queries)), key=lambda row: row * _GOLDEN % 1)
    rows = [row for row in order if text_of(queries.texts[row]) not in left_out]
    categories = queries.categories
    return replace(
        queries,
        texts=tuple(queries.texts[row] for row in rows),
        categories=None if categories is None else tuple(categories[row] for row in rows),
    )
