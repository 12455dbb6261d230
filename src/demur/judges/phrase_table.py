"""Families of phrases in the words of many responses at once."""

from __future__ import annotations

import numpy as np

from demur.judges.numbered import NumberedWords, Numbers, Vocabulary
from demur.judges.phrases import FILLERS, PhraseFinder


class PhraseTable:
    """The nodes of a `PhraseFinder` as a table, which finds the same.

    A node is a row and a word that goes on from a node is a column; the entry is the node behind
    it. Row 0 is no node, and column 0 is every other word.

    Args:
        finder: the phrases.
        vocabulary: has a number for each word of `words_of(finder)`.
    """

    def __init__(self, finder: PhraseFinder, vocabulary: Vocabulary) -> None:
        nodes = [finder.start, *(node for node in finder.nodes if node is not finder.start)]
        row_of = {id(node): row for row, node in enumerate(nodes, 1)}
        words = words_of(finder)
        column_of = {word: column for column, word in enumerate(words, 1)}
        self._columns = vocabulary.index(words)
        self._is_filler = np.array([False, *(word in FILLERS for word in words)])
        self._width = len(words) + 1
        table = np.zeros((len(nodes) + 1, self._width), np.min_scalar_type(len(nodes)))
        self._ends = np.zeros((len(table), max(len(ends) for ends, _ in nodes)), np.int64)
        for row, (ends, behind) in enumerate(nodes, 1):
            self._ends[row, : len(ends)] = np.add(ends, 1)
            for word, node in behind.items():
                table[row, column_of[word]] = row_of[id(node)]
        self._table = table.ravel()

    def find(self, read: NumberedWords) -> tuple[Numbers, Numbers]:
        """Where phrases begin, and of which family each of them is.

        Args:
            read: words of responses, by the vocabulary of this table.

        Returns:
            Indices of words, and as many indices of families. Some come several times.
        """
        columns = self._columns.take(read.words)
        nodes = self._behind(np.int64(1), columns)
        at = begins = np.flatnonzero(nodes)
        nodes = nodes[at]
        found = [self._ended(begins, nodes)]
        while len(at):
            at = at + 1
            following = self._behind(nodes, columns.take(at))
            skipped = np.flatnonzero((following == 0) & self._is_filler.take(columns.take(at)))
            at[skipped] += 1
            following[skipped] = self._behind(nodes[skipped], columns.take(at[skipped]))
            goes_on = np.flatnonzero(following)
            at, begins, nodes = at[goes_on], begins[goes_on], following[goes_on]
            found.append(self._ended(begins, nodes))
        places, families = zip(*found, strict=True)
        return np.concatenate(places), np.concatenate(families)

    def _behind(self, nodes: Numbers | np.int64, columns: Numbers) -> Numbers:
        """The nodes behind words that follow some nodes; 0 where there is none."""
        return self._table.take(nodes * self._width + columns).astype(np.int64)

    def _ended(self, begins: Numbers, nodes: Numbers) -> tuple[Numbers, Numbers]:
        """Where the phrases begin that end at some nodes, and their families."""
        ends = self._ends.take(nodes, axis=0)
        row, column = np.nonzero(ends)
        return begins[row], ends[row, column] - 1


def words_of(finder: PhraseFinder) -> list[str]:
    """All words that phrases are made of, and those that may stand between them."""
    words = dict.fromkeys(word for _, behind in finder.nodes for word in behind)
    return list(words | dict.fromkeys(FILLERS))
