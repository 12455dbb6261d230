"""Terms: single words and pairs of neighbouring words that speak for a refusal or against one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import fsum

Term = str | tuple[str, str]
"""A word, or two words that follow each other."""


def terms_of(words: Sequence[str]) -> set[Term]:
    """The terms in a list of normalized words."""
    return {*words, *pairwise(words)}


class TermFinder:
    """Adds up the weights of the terms in a list of words."""

    def __init__(self, weights: Mapping[Term, float]) -> None:
        self._weights = weights
        self._words = frozenset(term for term in weights if isinstance(term, str))
        self._pairs = frozenset(term for term in weights if not isinstance(term, str))

    def sum(self, words: Sequence[str]) -> float:
        """The sum of the weights of the terms in `words`, each counted once."""
        found: list[Term] = [
            *self._words.intersection(words),
            *self._pairs.intersection(pairwise(words)),
        ]
        # In whatever order the sets give them, this sum is the same.
        return fsum(map(self._weights.__getitem__, found))


def read_terms(text: str) -> dict[Term, float]:
    """The weights in a table with a weight and a term a line.

    Args:
        text: lines such as `-0.21 here are`, as `write_terms` makes them.
    """
    weights: dict[Term, float] = {}
    for line in text.splitlines():
        weight, first, *second = line.split(" ")
        weights[(first, second[0]) if second else first] = float(weight)
    return weights


def write_terms(weights: Mapping[Term, float]) -> str:
    """The table that `read_terms` reads."""
    lines = sorted((_text(term), weight) for term, weight in weights.items())
    return "".join(f"{weight:g} {text}\n" for text, weight in lines)


def _text(term: Term) -> str:
    return term if isinstance(term, str) else " ".join(term)
