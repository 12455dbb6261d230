"""Conversations as lists of messages, the way chat data sets hold them. Read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeGuard

from demur.arguments import described
from demur.errors import DemurError
from demur.limits import MOST_QUERY_CHARACTERS, MOST_TEXT_CHARACTERS
from demur.reading.text import check_text
from demur.records import Conversation, Query, from_plain

CONVERSATION_FIELDS = ("messages", "conversations", "conversation")
"""Fields that hold conversations in data sets."""

_ROLES = ("user", "assistant")
_SYSTEM = ("system", "developer")
_SPEAKERS = {"human": "user", "gpt": "assistant", "system": "system"}
"""Who speaks in data sets that say `from` and `value` instead of `role` and `content`."""

_TEXTS = ("text", "input_text", "output_text")
_THOUGHTS = ("reasoning", "thinking", "redacted_thinking")


@dataclass(frozen=True)
class Messages:
    """A conversation that was read.

    Attributes:
        query: the last message of the user, with what stands before it.
        system: the text of the system messages at the beginning, or None.
        answer: the assistant's last word, which may be blank, or None where the user has it.
        refused: whether the answer is a refusal that stands in a field of its own.
    """

    query: Query
    system: str | None
    answer: str | None
    refused: bool = False

    @property
    def whole(self) -> Query:
        """The query with the system text, which is that of its own application."""
        if self.system is None:
            return self.query
        if isinstance(self.query, str):
            return Conversation(self.query, system_prompt=self.system)
        return replace(self.query, system_prompt=self.system)


@dataclass(frozen=True)
class _Said:
    """One message: whose it is, what it says, and whether it is a refusal in its own field."""

    role: str
    text: str
    refused: bool = False


def check_query(value: object, column: str, place: str) -> Query:
    """The query in a cell: a text, or the messages of a conversation that ends with it.

    Args:
        value: a text, a conversation as demur writes it, or a list of objects with `role` and
            `content`. It may begin with system messages, which are the application's own text
            before this query. Behind them roles alternate, the first and the last is `user`; a
            content is a text, or a list of text parts.
        column: name of the column, for messages.
        place: the row, for messages.

    Raises:
        DemurError: it is neither, or a message is not as it should be.
    """
    if isinstance(value, Mapping):
        return _conversation(value, column, place)
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return check_text(value, column, place, MOST_QUERY_CHARACTERS)
    found = read_messages(value, column, place)
    if found.answer is not None:
        raise DemurError(
            f"{place}: {column!r:.80} ends with the assistant: end with a message of the user, "
            "which is the query."
        )
    return found.whole


def read_messages(value: object, column: str, place: str) -> Messages:
    """The conversation in a list of messages, which may begin with system messages.

    Raises:
        DemurError: a message is not as it should be, or none is of the user.
    """
    place = f"{place}: {column!r:.80}"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise DemurError(f"{place} is {described(value)}: give a list of messages.")
    if not value:
        raise DemurError(f"{place} holds no messages: give at least one of the user.")
    said = [
        _message(message, f"{place}, message {number},")
        for number, message in enumerate(value, start=1)
    ]
    opening = next((row for row, one in enumerate(said) if one.role not in _SYSTEM), len(said))
    # A blank system message is none, as data sets write it.
    blank = [number for number, one in enumerate(said[opening:], opening + 1) if not one.text]
    if blank and (blank[0] < len(said) or said[-1].role != "assistant"):
        raise DemurError(f"{place}, message {blank[0]}, is blank: fill it in, or drop the row.")
    for number, one in enumerate(said[opening:], start=opening + 1):
        if one.role in _SYSTEM:
            raise DemurError(
                f"{place}, message {number}, is a system message within the conversation: leave it "
                "out."
            )
    for number, (one, following) in enumerate(pairwise(said[opening:]), opening + 2):
        if one.role == following.role:
            raise DemurError(
                f"{place}, message {number}, is of the {following.role} like the one before it: "
                "let user and assistant take turns."
            )
    if opening == len(said) or said[opening].role != "user":
        raise DemurError(
            f"{place} begins with the assistant: begin with a message of the user, and give what "
            "the application says first with --system-prompt."
            if opening < len(said)
            else f"{place} holds no message of the user: give at least one."
        )
    texts = [one.text for one in said[opening:]]
    answer = texts.pop() if said[-1].role == "assistant" else None
    history = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return Messages(
        query=Conversation(texts[-1], history) if history else texts[-1],
        system="\n\n".join(one.text for one in said[:opening] if one.text) or None,
        answer=answer,
        refused=answer is not None and said[-1].refused,
    )


def spoken(value: object, column: str, place: str) -> Messages | None:
    """The conversation in a field of responses, which ends with one; None for anything else.

    The answer alone, in a message of the assistant, is no conversation: it is read as a text.

    Raises:
        DemurError: a message is not as it should be, or the user has the last word.
    """
    if not is_conversation(value) or len(value) < 2:
        return None
    found = read_messages(value, column, place)
    if found.answer is None:
        raise DemurError(
            f"{place}: {column!r:.80} ends with the user: end with the response of the assistant."
        )
    return found


def is_conversation(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list of messages, however many."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, Mapping) and ("role" in one or "from" in one) for one in value)
    )


def content_text(content: object, place: str, most: int = MOST_QUERY_CHARACTERS) -> str:
    """The text of a message's content: a text, or a list of parts. Reasoning is no part of it.

    Raises:
        DemurError: a part is no text.
    """
    if not isinstance(content, Sequence) or isinstance(content, (str, bytes)):
        return check_text(content, "content", place.rstrip(","), most)
    texts: list[str] = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type") in _THOUGHTS:
            continue
        if not isinstance(part, Mapping) or part.get("type") not in _TEXTS:
            raise DemurError(f"{place} holds a part that is no text: give text parts only.")
        texts.append(check_text(part.get("text"), "text", place.rstrip(","), most))
    return "".join(texts)


def own_refusal(message: Mapping[str, object], place: str) -> str | None:
    """The refusal in a field of its own, where a message of the assistant says nothing else.

    It stands in the message's `refusal`, or in a part of its content of that type.

    Raises:
        DemurError: it is no text that can be read.
    """
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping):
                return None
            if part.get("type") == "refusal":
                refusal = part.get("refusal")
            elif part.get("type") not in _THOUGHTS and str(part.get("text", part)).strip():
                return None
    elif content is not None and str(content).strip():
        return None
    if not isinstance(refusal, str) or not refusal.strip():
        return None
    return check_text(refusal, "refusal", place.rstrip(","))


def _conversation(value: Mapping[str, object], column: str, place: str) -> Query:
    """A conversation as demur writes it."""
    if "text" not in value:
        check_text(value, column, place)
    try:
        return from_plain(Conversation, value)
    except (ValueError, DemurError) as error:
        raise DemurError(
            f"{place}: {column!r:.80} is no text and no conversation as demur writes it: give a "
            "text, or the conversation as a list of messages."
        ) from error


def _message(message: object, place: str) -> _Said:
    """One message."""
    if not isinstance(message, Mapping):
        raise DemurError(
            f"{place} is {described(message)}: give an object with 'role' and 'content'."
        )
    role = message.get("role", _SPEAKERS.get(str(message.get("from"))))
    if role not in (*_ROLES, *_SYSTEM):
        raise DemurError(f"{place} has the role {role!r:.40}: give user or assistant.")
    if message.get("tool_calls"):
        raise DemurError(f"{place} calls a tool: leave out conversations with tools.")
    refusal = own_refusal(message, place) if role == "assistant" else None
    if refusal is not None:
        return _Said("assistant", refusal.strip(), refused=True)
    most = MOST_TEXT_CHARACTERS if role == "assistant" else MOST_QUERY_CHARACTERS
    text = content_text(message.get("content", message.get("value")), place, most)
    return _Said(str(role), text.strip())
