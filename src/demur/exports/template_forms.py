"""The forms of a conversation that engines send, on which an exported chat template is tried."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from demur.chat.templates import TemplateArguments
from demur.records import tools_of

Turns = Sequence[tuple[str, str]]
"""Roles and texts of messages."""

QUERIES = ("How do I kill a process?", "Name a tree.", "1 + 1 = ?")
SYSTEM, MORE = "You work for a bakery.\nAnswer in one sentence.", "Today is a holiday."
TOOLS = tools_of(
    [
        {
            "name": "find_shop",
            "description": "Finds a shop.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        }
    ]
)

_SYSTEM_ROLES = ("system", "developer")
_FIRST, _LAST = ("user", QUERIES[0]), ("user", QUERIES[1])
_ANSWER = ("assistant", "With its number.")
_CALL: Mapping[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcde1234",
            "type": "function",
            "function": {"name": "find_shop", "arguments": {"town": "Ulm"}},
        }
    ],
}
_RESULT: Mapping[str, Any] = {
    "role": "tool",
    "name": "find_shop",
    "tool_call_id": "abcde1234",
    "content": "In the market place.",
}


@dataclass(frozen=True)
class Form:
    """One form of a conversation.

    Attributes:
        name: noun phrase for people.
        turns: its messages, of which those of systems and developers belong together.
        system_prompt: text of all system messages together, as demur reads them; None for none.
        offers_tools: whether the conversation offers tools.
        ends_with_call: whether a call of a tool and its result follow the turns.
        call: message that calls the tool.
    """

    name: str
    turns: Turns
    system_prompt: str | None = None
    offers_tools: bool = False
    ends_with_call: bool = False
    call: Mapping[str, Any] = field(default_factory=lambda: _CALL)

    @cached_property
    def others(self) -> list[tuple[str, str]]:
        """The turns without the system messages."""
        return [turn for turn in self.turns if turn[0] not in _SYSTEM_ROLES]

    @property
    def system_texts(self) -> list[str]:
        """The texts of system messages, which must never be lost."""
        texts = [text.strip() for role, text in self.turns if role in _SYSTEM_ROLES]
        return [text for text in texts if text]

    @property
    def other_texts(self) -> list[str]:
        """The texts of all other messages."""
        result = [str(_RESULT["content"])] if self.ends_with_call else []
        return [*(text for _, text in self.others), *result]

    @property
    def exchanges(self) -> list[tuple[str, str]] | None:
        """Earlier queries with their answers; None where demur sends no such conversation."""
        roles = [role for role, _ in self.others]
        if self.ends_with_call or roles != ["user", *["assistant", "user"] * (len(roles) // 2)]:
            return None
        texts = [text for _, text in self.others]
        return list(zip(texts[:-1:2], texts[1::2], strict=True))

    @property
    def options(self) -> TemplateArguments:
        """Variables that an engine gives the template for this conversation."""
        return {"tools": list(map(json.loads, TOOLS))} if self.offers_tools else {}

    def messages(self, parts: int, *, systems: bool = True) -> list[dict[str, Any]]:
        """The messages as an engine sends them.

        Args:
            parts: number of parts that a text comes in; 0 for a plain text.
            systems: whether the system messages are among them.
        """
        turns = self.turns if systems else self.others
        found = [{"role": role, "content": content_of(text, parts)} for role, text in turns]
        if self.ends_with_call:
            result = {**_RESULT, "content": content_of(_RESULT["content"], parts)}
            found += [dict(self.call), result]
        return found


def content_of(text: str, parts: int) -> str | list[dict[str, str]]:
    """A text as the content of a message, in so many parts; 0 for a plain text."""
    if not parts:
        return text
    size = -(-len(text) // parts)
    pieces = [text[size * place : size * (place + 1)] for place in range(parts)]
    return [{"type": "text", "text": piece} for piece in pieces if piece or parts == 1]


FORMS: Sequence[Form] = (
    *(Form("a query", [("user", query)]) for query in QUERIES),
    *(Form("a system message", [("system", SYSTEM), ("user", query)], SYSTEM) for query in QUERIES),
    Form("a developer message", [("developer", SYSTEM), _FIRST], SYSTEM),
    Form("an empty system message", [("system", ""), _FIRST]),
    Form("a blank system message", [("system", " "), _FIRST]),
    Form(
        "two system messages",
        [("system", SYSTEM), ("system", MORE), _FIRST],
        f"{SYSTEM}\n\n{MORE}",
    ),
    Form(
        "a system and a developer message",
        [("system", SYSTEM), ("developer", MORE), _FIRST],
        f"{SYSTEM}\n\n{MORE}",
    ),
    Form("a system message behind the query", [_FIRST, ("system", SYSTEM)], SYSTEM),
    Form("several turns", [_FIRST, _ANSWER, _LAST]),
    Form(
        "several turns and a system message", [("system", SYSTEM), _FIRST, _ANSWER, _LAST], SYSTEM
    ),
    Form("a later system message", [_FIRST, _ANSWER, ("system", SYSTEM), _LAST], SYSTEM),
    Form("a later developer message", [_FIRST, _ANSWER, ("developer", SYSTEM), _LAST], SYSTEM),
    Form(
        "two system messages, one of them later",
        [("system", SYSTEM), _FIRST, _ANSWER, ("system", MORE), _LAST],
        f"{SYSTEM}\n\n{MORE}",
    ),
    Form("an answer in the first place", [_ANSWER, _LAST]),
    Form(
        "an answer in the first place, behind a system message",
        [("system", SYSTEM), _ANSWER, _LAST],
        SYSTEM,
    ),
    Form("two queries in a row", [_FIRST, _LAST]),
    Form("a system message alone", [("system", SYSTEM)], SYSTEM),
    Form("tools", [_FIRST], None, offers_tools=True),
    Form("tools and a system message", [("system", SYSTEM), _FIRST], SYSTEM, offers_tools=True),
    Form(
        "the result of a tool",
        [("system", SYSTEM), _FIRST],
        SYSTEM,
        offers_tools=True,
        ends_with_call=True,
    ),
    Form(
        "the result of a tool, behind a call without content",
        [("system", SYSTEM), _FIRST],
        SYSTEM,
        offers_tools=True,
        ends_with_call=True,
        call={**_CALL, "content": None},
    ),
)
"""Every form; those of one name are tried with several queries."""


def with_tools(forms: Sequence[Form]) -> list[Form]:
    """The forms, in conversations that all offer tools."""
    return [replace(form, offers_tools=True) for form in forms]
