"""Labelled queries: what the directions are estimated from and what prompts are judged on."""

from demur.queries.loading import BUILT_IN, load_query_set
from demur.queries.query_set import MINIMUM_QUERIES, Label, QuerySet, require

__all__ = [
    "BUILT_IN",
    "MINIMUM_QUERIES",
    "Label",
    "QuerySet",
    "load_query_set",
    "require",
]
