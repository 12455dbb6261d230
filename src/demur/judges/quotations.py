"""What a response quotes is not said by it: "He answered: 'I can't help with that.'"

Passages between quotation marks are told from the words around them, in all languages alike. A
response is in quotation marks itself where it begins with them, and where it says that the words
are its own (the group `mine` of the tables in `default_languages`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from demur.judges import languages

VERSION = 1
"""Version of the rule; goes up whenever a change to this file may change a verdict."""

_WORD = "[0-9A-Za-z\u00c0-\u024f\u0400-\u052f]"

# What stands behind a mark with which a passage begins, and the mark with which it ends. Where a
# word touches a straight mark from outside, it stands for inches or ends a passage; a single mark
# inside a word or behind one is an apostrophe.
_SINGLE = rf"(?<=['\u2018])(?<![^ \n(].)(?={_WORD})"
_BEGINNINGS: tuple[tuple[str, str], ...] = (
    (rf'(?<=")(?<!{_WORD}")(?=\S)', rf'(?<=\S)"(?!{_WORD})'),
    ("(?<=[\u201c\u201f])", "\u201d"),
    ("(?<=\u201e)", "[\u201c\u201d]"),
    ("(?<=\u201d)(?=\\w)", "\u201d"),  # the same mark at both ends, as in Swedish
    ("(?<=\u00ab)", "\u00bb"),
    ("(?<=\u00bb)(?=\\w)", "\u00ab"),
    ("(?<=\u2039)", "\u203a"),
    ("(?<=\u203a)(?=\\w)", "\u2039"),
    ("(?<=\u201a)", "\u2018"),
    ("(?<=\u300c)", "\u300d"),
    ("(?<=\u300e)", "\u300f"),
)
_BEGINS = "[\"'\u2018\u201a\u201c-\u201f\u2039\u203a\u00ab\u00bb\u300c\u300e]"

MARKS = re.compile(f"{_BEGINS}(?:(?<!['\u2018])|{_SINGLE})")
"""Where a quoted passage may begin."""

_PASSAGE = re.compile(
    f"{_BEGINS}(?:"
    + "|".join(rf"{begin}.*?(?:{end}|\Z)" for begin, end in _BEGINNINGS)
    + rf"|{_SINGLE}.{{1,300}}?['\u2019](?!{_WORD}))",
    re.DOTALL,
)
"""From one mark to its counterpart, or, where that is no apostrophe, to the end of a text that
breaks off."""

_CURVED = re.compile("[\u2018\u201a\u201c-\u201f\u2039\u203a\u00ab\u00bb\u300c\u300e]")

_EACH = "['\"\u2018-\u201f\u2039\u203a\u00ab\u00bb\u300c-\u300f]"
_OUTER = re.compile(f"^{_EACH}|{_EACH}$")
_SENTENCE_ENDS = ".!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4"


def only_quotes(language: str, text: str, refuses: Callable[[str], bool]) -> bool:
    """Whether a text that refuses only quotes a refusal, of somebody else.

    That is so where the passages in quotation marks refuse by themselves and what stands around
    them does not. No continuation of a text whose part before the first of `MARKS` refuses changes
    the answer.

    Args:
        language: name of the text's language, one that is read.
        text: what is read of a response, without white space before it.
        refuses: whether a text in this language refuses; asked about parts of `text`.
    """
    if not _may_quote(text):
        return False
    quoted: list[str] = []

    def cut(match: re.Match[str]) -> str:
        passage = _OUTER.sub("", match[0])
        if match.start() == 0 and not _is_speech(passage, text[match.end() :]):
            return match[0]
        quoted.append(passage)
        return " \u2026 "

    around = _PASSAGE.sub(cut, text)
    if not quoted or not any(map(refuses, quoted)) or refuses(around):
        return False
    return not languages.says(language, "mine", ("^", *languages.words_of(around)))


def _may_quote(text: str) -> bool:
    """Whether one of `MARKS` may be in a text, which is found faster than where."""
    return (
        '"' in text
        or " '" in text
        or "\n'" in text
        or "('" in text
        or text.startswith("'")
        or (not text.isascii() and _CURVED.search(text) is not None)
    )


def _is_speech(passage: str, following: str) -> bool:
    """Whether the sentence of a passage that begins a response goes on behind it."""
    following = following.lstrip()
    if not following:
        return False
    if passage.rstrip()[-1:] not in _SENTENCE_ENDS:
        return True
    return following[0] in ",\u060c\u2013\u2014-" or following[0].islower()
