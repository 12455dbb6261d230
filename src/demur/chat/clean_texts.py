"""Texts of a conversation, checked before they are put in."""

from __future__ import annotations

from demur.chat.tokenization import SegmentKind
from demur.errors import DemurError


def clean_texts(
    query: str, safety_prompt: str | None, system_prompt: str | None
) -> dict[SegmentKind, str]:
    """The texts that are given, each by what it is, without surrounding white space.

    Raises:
        DemurError: one is empty, or cannot be written as UTF-8.
    """
    given: dict[SegmentKind, str | None] = {
        "safety_prompt": safety_prompt,
        "system_prompt": system_prompt,
        "query": query,
    }
    texts: dict[SegmentKind, str] = {}
    for kind, text in given.items():
        if text is None:
            continue
        texts[kind] = clean_text(kind.replace("_", " "), text)
    return texts


def clean_text(name: str, text: str) -> str:
    """`text` without surrounding white space.

    Raises:
        DemurError: it is empty, or cannot be written as UTF-8.
    """
    if not text.strip():
        raise DemurError(f"The {name} is empty: give a text, or leave the {name} out.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DemurError(
            f"The {name} holds half of a surrogate pair, which is no character: remove it."
        ) from None
    return text.strip()
