"""Texts of a page as markup that breaks lines where they may be broken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST_WORD = 20
"""Characters of a word that a table shows in one line; longer ones may be broken anywhere."""

_LONG = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")

_OPTION = re.compile(r"((?<![^\s(])--[a-z-]{1,30}(?![^\s,).:;]))")


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


def whole_options(text: str) -> Markup:
    """A text as markup in which no option (`--preset`) is broken at its hyphens."""
    from markupsafe import Markup, escape

    option = Markup('<span class="option">{}</span>')
    parts = _OPTION.split(text)  # every second part is an option
    return Markup("").join(
        option.format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )
