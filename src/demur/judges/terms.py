"""Terms: single words and pairs of neighbouring words that speak for a refusal or against one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import fsum

import numpy as np
from numpy.typing import NDArray

from demur.judges.numbered import NumberedWords, Vocabulary, sum_once

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


class TermTable:
    """Adds up the weights of the terms of many responses at once, as a `TermFinder` does of one.

    Args:
        weights: the weights.
        vocabulary: has a number for each word of the terms.
    """

    def __init__(self, weights: Mapping[Term, float], vocabulary: Vocabulary) -> None:
        words = {term: weight for term, weight in weights.items() if isinstance(term, str)}
        pairs = {term: weight for term, weight in weights.items() if not isinstance(term, str)}
        firsts = list(dict.fromkeys(first for first, _ in pairs))
        seconds = list(dict.fromkeys(second for _, second in pairs))
        self._words = vocabulary.table(words)
        self._firsts, self._seconds = vocabulary.index(firsts), vocabulary.index(seconds)
        self._number = np.zeros((len(firsts) + 1, len(seconds) + 1), np.int64)
        self._pairs = np.array([0.0, *pairs.values()])
        for number, (first, second) in enumerate(pairs, 1):
            self._number[firsts.index(first) + 1, seconds.index(second) + 1] = number

    def sums(self, read: NumberedWords, most: int) -> NDArray[np.float64]:
        """For each response the sum of the weights of its terms, each counted once.

        Args:
            read: words of responses, by the vocabulary of this table.
            most: number of words, from the first on, whose terms count.
        """
        words = read.first(most)
        pairs = self._number[self._firsts.take(words[:-1]), self._seconds.take(words[1:])]
        return sum_once(read.rows, words, self._words, read.responses) + sum_once(
            read.rows[:-1], pairs, self._pairs, read.responses
        )


def words_in(terms: Iterable[Term]) -> set[str]:
    """The words that terms are made of."""
    return {word for term in terms for word in ((term,) if isinstance(term, str) else term)}


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
