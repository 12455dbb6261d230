"""Families of phrases: read from their table, found in the words of a response."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLES = [
    Path(__file__).with_name(name)
    for name in ("phrases.ini", "phrases_indirect.ini", "phrases_newer.ini")
]

GENERAL = "general"
"""The origin of a family that no labelled response suggested."""

START = "^"
"""The word that stands for the start of a response."""

# Spellings that mean the same, in the order they are replaced. The text is lower case by then.
_QUOTES = tuple(zip("\u2019\u2018\u00b4\u201c\u201d", "'''\"\"", strict=True))
_MARKS = (("`", "'"), (" '", " "))
_NOT = (("can't", "cannot"), ("won't", "will not"), ("n't", " not"))
_IS = (
    *(("let's", "let us"), ("it's", "it is"), ("that's", "that is")),
    ("there's", "there is"),
)

_CONTRACTION = re.compile("'(?:m|re|ll|d|ve|s)")
_CONTRACTED = {
    "'m": " am",
    "'re": " are",
    "'ll": " will",
    "'d": " would",
    "'ve": " have",
    "'s": "s",
}
_SEPARATORS = str.maketrans(
    {
        **dict.fromkeys(",;\"()[]{}*_#-\u2010\u2011\u2013\u2014/\\<>|~'\u2026", " "),
        **dict.fromkeys("\u201a\u201e\u201f\u2039\u203a\u00ab\u00bb\u300c\u300d\u300e\u300f", " "),
        **dict.fromkeys("!?\n\r", "."),
    }
)
# The same for text in ASCII, which is translated ten times as fast as bytes.
_ASCII_SEPARATORS = "".join(map(chr, range(128))).translate(_SEPARATORS).encode().ljust(256)

FILLERS = frozenset(
    (
        *("also", "just", "simply", "really", "very", "so", "truly", "deeply", "ethically"),
        *("morally", "legally", "therefore", "currently", "directly", "personally", "strongly"),
        *("highly", "respectfully", "kindly", "politely", "ever", "again", "always", "sincerely"),
        *("unfortunately", "however", "still", "absolutely", "certainly", "ethical", "firmly"),
        "definitely",
    )
)
"""Words that change no phrase: one of them may stand between two words of a phrase."""


@dataclass(frozen=True)
class Family:
    """Phrases that say the same.

    Attributes:
        name: name of the family.
        expected: weights that are expected of the family before any label is seen, in log odds of a
            refusal: where it begins in the opening of a response, and where it begins later.
        origin: `GENERAL`, or the name of the labelled file whose errors suggested the family.
        phrases: patterns as the table describes them.
    """

    name: str
    expected: tuple[float, float]
    origin: str
    phrases: tuple[str, ...]


def load_families() -> list[Family]:
    """The families of the tables `phrases.ini` and `phrases_indirect.ini`, in their order."""
    table = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    for file in _TABLES:
        table.read_string(file.read_text(encoding="utf-8"))
    sets = {name: read_set(text) for name, text in table["sets"].items()}
    families = []
    for name in table.sections():
        if name == "sets":
            continue
        section = table[name]
        opening, later = section["expected"].split(",")
        phrases = read_phrases(section["phrases"])
        for set_name, words in sets.items():
            phrases = [phrase.replace(f"<{set_name}>", f"{{{words}}}") for phrase in phrases]
        origin = section.get("origin", GENERAL)
        families.append(Family(name, (float(opening), float(later)), origin, tuple(phrases)))
    return families


def read_phrases(text: str) -> list[str]:
    """The phrases of a family of a table, one a line; a line that ends with | goes on."""
    return "\n".join(_lines(text)).replace("|\n", "|").split("\n")


def read_set(text: str) -> str:
    """The words of a set of a table, with | between them."""
    return "".join(_lines(text))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def read_words(text: str) -> list[str]:
    """The normalized words of `text`, after `START`, in time linear in its length.

    More text behind it can change no word but the last two.
    """
    text = text.lower()
    if not text.isascii():
        text = _replace(text, _QUOTES)
    has_apostrophe = "'" in text or "`" in text
    text = _spell_out(text) if has_apostrophe else text.replace("can not", "cannot")
    text = _separate(text).replace(".", " . ").replace(":", " : ")
    return [START, *text.split()]


def _spell_out(text: str) -> str:
    """A text with apostrophes in which contractions are spelled out."""
    text = _replace(text, _MARKS).replace("can not", "cannot")
    if "n't" in text:
        text = _replace(text, _NOT)
    if "'s" in text:
        text = _replace(text, _IS)
    return _CONTRACTION.sub(lambda match: _CONTRACTED[match[0]], text)


def _replace(text: str, spellings: Iterable[tuple[str, str]]) -> str:
    for spelling, replacement in spellings:
        text = text.replace(spelling, replacement)
    return text


def _separate(text: str) -> str:
    """A text with spaces and full stops in place of the marks between its words."""
    if text.isascii():
        return text.encode().translate(_ASCII_SEPARATORS).decode()
    return text.translate(_SEPARATORS)


Node = tuple[tuple[int, ...], Mapping[str, Any]]
"""A place in the phrases: which families end there, and the node behind each word that goes on.

Plain tuples and dictionaries, because judging is little else than stepping from node to node."""

_Place = tuple[int, int, tuple[str, ...]]
"""A pattern, one of its parts, and the words that are still to come of an option of it."""


class PhraseFinder:
    """Finds the families of the phrases in a list of words, in one pass over it.

    Words that can be followed by the same ("I cannot", "I am unable to") lead to the same node.
    That keeps the patterns small: written out they are hundreds of thousands of phrases.

    Attributes:
        longest: largest number of words that a phrase can span.
        start: the node in front of the first word of every phrase.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        self._patterns: list[tuple[int, list[list[tuple[str, ...]]]]] = []
        self.longest = 0
        for index, family in enumerate(families):
            for pattern in family.phrases:
                parts = _choices(pattern)
                self._patterns.append((index, parts))
                # One filler may stand before each word but the first.
                words = sum(max(map(len, options)) for options in parts)
                self.longest = max(self.longest, 2 * words - 1)
        self._nodes: dict[tuple[frozenset[_Place], tuple[int, ...]], Node] = {}
        begins: set[_Place] = set()
        for pattern_index in range(len(self._patterns)):
            begins |= self._after(pattern_index, 0)[0]
        self.start = self._node(begins, set())

    def _after(self, pattern: int, part: int) -> tuple[set[_Place], set[int]]:
        """Where a pattern goes on from the start of a part, and its family where it may be over."""
        family, parts = self._patterns[pattern]
        if part == len(parts):
            return set(), {family}
        places = {(pattern, part, option) for option in parts[part] if option}
        if () not in parts[part]:
            return places, set()
        more, ends = self._after(pattern, part + 1)
        return places | more, ends

    def _node(self, places: set[_Place], ends: set[int]) -> Node:
        key = (frozenset(places), tuple(sorted(ends)))
        node = self._nodes.get(key)
        if node is not None:
            return node
        behind: dict[str, Node] = {}
        node = self._nodes[key] = (key[1], behind)
        following: dict[str, tuple[set[_Place], set[int]]] = {}
        for pattern, part, option in places:
            next_places, next_ends = following.setdefault(option[0], (set(), set()))
            if len(option) > 1:
                next_places.add((pattern, part, option[1:]))
            else:
                more, over = self._after(pattern, part + 1)
                next_places |= more
                next_ends |= over
        behind.update((word, self._node(*reached)) for word, reached in following.items())
        return node

    @property
    def nodes(self) -> list[Node]:
        """All nodes, `start` among them, in any order."""
        return list(self._nodes.values())

    def find(self, words: Sequence[str], opening: int) -> tuple[set[int], set[int]]:
        """The indices of the families whose phrases are in a list of words.

        Args:
            words: normalized words, as `read_words` gives them.
            opening: number of words in the opening.

        Returns:
            Indices of the families that begin in the opening, and of those that begin later.
        """
        early: set[int] = set()
        late: set[int] = set()
        ended = [*words, "", ""]  # no phrase has an empty word: a walk ends here at the latest
        fillers = FILLERS
        for place, start in enumerate(map(self.start[1].get, words)):
            if start is None:
                continue
            ends, behind = start
            at = place + 1
            while True:
                if ends:
                    (early if place < opening else late).update(ends)
                word = ended[at]
                node = behind.get(word)
                if node is None:
                    if word not in fillers:
                        break
                    at += 1
                    node = behind.get(ended[at])
                    if node is None:
                        break
                ends, behind = node
                at += 1
        return early, late


def _choices(pattern: str) -> list[list[tuple[str, ...]]]:
    """What may stand in each place of a pattern of the table, as words."""
    choices: list[list[tuple[str, ...]]] = []
    for part in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^\s\[\]{}]+", pattern):
        if part[0] in "{[":
            options = [tuple(option.split()) for option in part[1:-1].split("|")]
            choices.append([*options, ()] if part[0] == "[" else options)
        else:
            choices.append([(part,)])
    return choices
