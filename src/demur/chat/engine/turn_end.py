"""What ends an answer, beside what the model's files call its end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_BEGINNINGS = ("\n<[", " ")  # of a line or a mark, and of a label inside a line
_MOST_HELD = 80


@dataclass(frozen=True)
class TurnEnd:
    """Tokens and texts that a chat template writes behind an answer.

    Attributes:
        tokens: ids of tokens each of which ends an answer.
        texts: patterns of plain texts each of which ends an answer.
    """

    tokens: frozenset[int] = frozenset()
    texts: tuple[str, ...] = ()

    def and_tokens(self, tokens: Iterable[int]) -> TurnEnd:
        """The same with some more tokens."""
        return replace(self, tokens=self.tokens | frozenset(tokens))

    def cut(self, text: str) -> str | None:
        """The text before the first of the texts that is in it; None where none is."""
        found = [match.start() for each in self.texts if (match := re.search(each, text))]
        return text[: min(found)] if found else None

    def certain(self, text: str) -> str:
        """The text without what may be the beginning of a text that ends the answer."""
        if not self.texts:
            return text
        kept = len(text)
        inline = any(each.startswith(r"\s") for each in self.texts)
        for beginnings in _BEGINNINGS if inline else _BEGINNINGS[:1]:
            begins = max(text.rfind(character) for character in beginnings)
            if len(text) - begins <= _MOST_HELD and begins >= 0:
                kept = min(kept, begins)
        return text[:kept]


FILES_ONLY = TurnEnd()
"""Nothing but what the model's files call its end."""
