"""Texts of others in Markdown: shown as they are, and never as markup."""

from __future__ import annotations

import re


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(printable(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]()#!|~$])", r"\\\1", line)
    # Without these, an address would become a link and a name a mention.
    return line.replace("://", "&#58;//").replace("@", "&#64;").replace("www.", "www&#46;")


def fenced(text: str) -> str:
    """Text as a block of its own that nothing in it can end."""
    text = printable(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def printable(text: str) -> str:
    """Text without control characters; line breaks stay."""
    return "".join(
        one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text
    )
