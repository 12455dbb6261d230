"""A conversation as a model reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderedConversation:
    """One conversation up to where the assistant's answer begins.

    Attributes:
        token_ids: what the model reads, the beginning-of-sequence token included where the chat
            template has it.
        prompt_span: [start, end) of the safety prompt's tokens in `token_ids`; None without one.
            Where the safety prompt is embeddings, the ids inside are placeholders.
    """

    token_ids: tuple[int, ...]
    prompt_span: tuple[int, int] | None
