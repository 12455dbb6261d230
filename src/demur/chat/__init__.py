"""The only package that runs a model: load, render, represent, score, sample, differentiate."""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.chat.allocator import keep_freed_memory
    from demur.chat.dialogue import Dialogue
    from demur.chat.engine import Read, TargetTokens, TokenReader
    from demur.chat.model import ChatModel
    from demur.chat.settings import LoadSettings
    from demur.prompts import Condition
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "ChatModel": "demur.chat.model",
            "Condition": "demur.prompts",
            "Dialogue": "demur.chat.dialogue",
            "LoadSettings": "demur.chat.settings",
            "Read": "demur.chat.engine",
            "TargetTokens": "demur.chat.engine",
            "TokenReader": "demur.chat.engine",
            "keep_freed_memory": "demur.chat.allocator",
        },
    )

__all__ = [
    "ChatModel",
    "Condition",
    "Dialogue",
    "LoadSettings",
    "Read",
    "TargetTokens",
    "TokenReader",
    "keep_freed_memory",
]
