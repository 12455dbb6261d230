"""Conversations as lists of messages, the way chat data sets hold them. Read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from demur.arguments import described
from demur.errors import DemurError
from demur.queries.tables import check_text
from demur.records import Conversation, Query

_ROLES = ("user", "assistant")


def check_query(value: object, column: str, place: str) -> Query:
    """The query in a cell: a text, or the messages of a conversation that ends with it.

    Args:
        value: a text, or a list of objects with `role` and `content`. Roles alternate, the first
            and the last is `user`; a content is a text, or a list of text parts.
        column: name of the column, for messages.
        place: the row, for messages.

    Raises:
        DemurError: it is neither, or a message is not as it should be.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return check_text(value, column, place)
    place = f"{place}: {column!r}"
    if not value:
        raise DemurError(f"{place} holds no messages: give at least one of the user.")
    messages = [
        _message(message, f"{place}, message {number},")
        for number, message in enumerate(value, start=1)
    ]
    roles = [role for role, _ in messages]
    for number, (one, following) in enumerate(pairwise(roles), start=2):
        if one == following:
            raise DemurError(
                f"{place}, message {number}, is of the {following} like the one before it: let "
                "user and assistant take turns."
            )
    if roles[0] != "user":
        raise DemurError(
            f"{place} begins with the assistant: begin with a message of the user, and give what "
            "the application says first with --system-prompt."
        )
    if roles[-1] != "user":
        raise DemurError(
            f"{place} ends with the assistant: end with a message of the user, which is the query."
        )
    texts = [text for _, text in messages]
    history = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return Conversation(texts[-1], history) if history else texts[-1]


def _message(message: object, place: str) -> tuple[str, str]:
    """Role and text of one message."""
    if not isinstance(message, Mapping):
        raise DemurError(
            f"{place} is {described(message)}: give an object with 'role' and 'content'."
        )
    role = message.get("role")
    if role in ("system", "developer"):
        raise DemurError(
            f"{place} is a system message: leave it out, and give the application's own text with "
            "--system-prompt."
        )
    if role not in _ROLES:
        raise DemurError(f"{place} has the role {role!r:.40}: give user or assistant.")
    if message.get("tool_calls"):
        raise DemurError(f"{place} calls a tool: leave out conversations with tools.")
    text = _text(message.get("content"), place).strip()
    if not text:
        raise DemurError(f"{place} is blank: fill it in, or drop the row.")
    return str(role), text


def _text(content: object, place: str) -> str:
    if not isinstance(content, Sequence) or isinstance(content, (str, bytes)):
        return check_text(content, "content", place.rstrip(","))
    texts: list[str] = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise DemurError(f"{place} holds a part that is no text: give text parts only.")
        texts.append(check_text(part.get("text"), "text", place.rstrip(",")))
    return "".join(texts)
