"""The words of many responses as numbers in arrays, so that a rule looks at all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class NumberedWords:
    """The words of a batch of responses end to end, with an unknown word behind each response.

    Attributes:
        responses: number of responses.
        words: number of each word; 0 for one that the vocabulary lacks.
        rows: index of the response of each word.
        places: how many words of its response stand before each word.
    """

    responses: int
    words: Numbers
    rows: Numbers
    places: Numbers

    def first(self, most: int) -> Numbers:
        """The numbers of the words, with 0 for all but the first `most` of each response."""
        return np.where(self.places < most, self.words, 0)


class Vocabulary:
    """Numbers, from 1 on, for the words that a rule knows.

    Args:
        words: the words, in any order and any number of times.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._numbers = {word: number for number, word in enumerate(dict.fromkeys(words), 1)}

    def table(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """The value of each number's word, 0.0 where it has none (words known + 1)."""
        table = np.zeros(len(self._numbers) + 1)
        for word, value in values.items():
            table[self._numbers[word]] = value
        return table

    def index(self, words: Iterable[str]) -> Numbers:
        """For each number the place of its word in `words`, from 1 on; 0 where it has none."""
        return self.table({word: place for place, word in enumerate(words, 1)}).astype(np.int64)

    def read(self, responses: Sequence[Sequence[str]]) -> NumberedWords:
        """The words of responses as numbers.

        Args:
            responses: the normalized words of each response.
        """
        words: list[str] = []
        for response in responses:
            words += response
            words.append("")
        lengths = np.fromiter(map(len, responses), np.int64, len(responses)) + 1
        starts = np.cumsum(lengths) - lengths
        return NumberedWords(
            len(responses),
            np.fromiter(map(self._numbers.get, words, repeat(0)), np.int64, len(words)),
            np.repeat(np.arange(len(responses)), lengths),
            np.arange(len(words)) - np.repeat(starts, lengths),
        )


def sum_once(
    rows: Numbers, items: Numbers, weights: NDArray[np.float64], responses: int
) -> NDArray[np.float64]:
    """For each response the sum of the weights of its items, each counted once.

    Args:
        rows: index of the response that has an item.
        items: index of the weight of each item, as many as rows.
        weights: the weights. Items with the weight 0 cost least.
        responses: number of responses.
    """
    counted = np.flatnonzero(weights.take(items))
    rows, items = rows.take(counted), items.take(counted)
    cells = rows * len(weights) + items
    order = np.arange(len(cells), dtype=np.int32)
    # Of an item that a response has several times, one is written last and found again.
    last = np.empty(responses * len(weights), np.int32)
    last[cells] = order
    once = np.flatnonzero(last.take(cells) == order)
    sums = np.bincount(rows.take(once), weights.take(items.take(once)), minlength=responses)
    return sums.astype(np.float64)  # numpy counts in integers where nothing was found
