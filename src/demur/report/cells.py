"""Texts in the cells of a page's tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST_WORD = 20
"""Characters of a word that a table shows in one line; longer ones may be broken anywhere."""

_LONG = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")

_OPTION = re.compile("--[a-z-]{1,30}")


def breakable(text: str) -> Markup:
    """A text as markup in which a long word may be broken, so that it widens no table."""
    from markupsafe import Markup, escape

    shown = Markup("")
    end = 0
    for found in _LONG.finditer(text):
        letters = map(escape, found[0])
        shown += escape(text[end : found.start()]) + Markup("<wbr>").join(letters)
        end = found.end()
    return shown + escape(text[end:])


def shell(command: str) -> Markup:
    """A command as markup in which no option is broken at its hyphens."""
    from markupsafe import Markup, escape

    words = (escape(word) for word in command.split(" "))
    option = Markup('<span class="option">{}</span>')
    return Markup(" ").join(
        option.format(word) if _OPTION.fullmatch(word) else word for word in words
    )
