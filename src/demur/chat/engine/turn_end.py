"""What ends an answer, beside what the model's files call its end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


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


FILES_ONLY = TurnEnd()
"""Nothing but what the model's files call its end."""
