"""Queries: the single message of a user, or the last one of a conversation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from demur.errors import DemurError
from demur.records.codec import to_plain
from demur.records.fingerprint import fingerprint
from demur.records.tools import tool_names

Exchange: TypeAlias = tuple[str, str]
"""A message of the user and the answer to it."""

Role: TypeAlias = Literal["user", "assistant"]
"""Who says a message."""


@dataclass(frozen=True)
class Conversation:
    """A query with what stands before it in its own conversation.

    It is a query like any other: wherever demur takes the text of a query, it takes a
    conversation as well. The same text with another history is another query.

    Attributes:
        text: the query, which is the last message of the user.
        history: earlier messages of the user, the first one first, each with the answer to it.
        system_prompt: the application's own system text of this conversation alone, or None. It
            follows the safety prompt, and belongs to conditions that have none themselves.
        tools: tools that the application offers the model, as `tools_of` returns them.

    Raises:
        DemurError: a text is blank, a tool is none, or there is nothing but the query, which is
            then only a text.

    Example:
        >>> Conversation("And six?", (("How much rice for two?", "150 g."),)).messages[-1]
        ('user', 'And six?')
    """

    text: str
    history: tuple[Exchange, ...] = ()
    system_prompt: str | None = None
    tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pairs = [() if isinstance(pair, str) else tuple(pair) for pair in self.history]
        if any(len(pair) != 2 for pair in pairs):
            raise DemurError(
                "The history of a conversation holds something other than pairs: give each "
                "message of the user with the answer to it."
            )
        object.__setattr__(self, "history", tuple(pairs))  # whatever sequence was given
        texts = [self.text, *(text for pair in pairs for text in pair)]
        texts += [] if self.system_prompt is None else [self.system_prompt]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DemurError(
                "A message of a conversation is blank or no text: give a text for each message."
            )
        object.__setattr__(self, "tools", tuple(self.tools))
        tool_names(self.tools)
        if not pairs and self.system_prompt is None and not self.tools:
            raise DemurError(
                f"The conversation {self.text!r:.60} has nothing before its query: give the text "
                "alone."
            )

    @property
    def messages(self) -> tuple[tuple[Role, str], ...]:
        """Role and text of each message of the user and the assistant, in their order."""
        found: list[tuple[Role, str]] = []
        for asked, answered in self.history:
            found += [("user", asked), ("assistant", answered)]
        return (*found, ("user", self.text))


Query: TypeAlias = str | Conversation
"""One message of the user, or the last one of a conversation."""


def text_of(query: Query) -> str:
    """The query itself: the last message of the user."""
    return query if isinstance(query, str) else query.text


def history_of(query: Query) -> tuple[Exchange, ...]:
    """What was said before the query; `()` for a query that opens the conversation."""
    return () if isinstance(query, str) else query.history


def tools_before(query: Query) -> tuple[str, ...]:
    """The tools that the query's conversation offers; `()` for a query that is only a text."""
    return () if isinstance(query, str) else query.tools


def with_tools(query: Query, tools: tuple[str, ...]) -> Query:
    """The query in a conversation that offers these tools, or none.

    Args:
        query: the query, with what stands before it.
        tools: as `tools_of` returns them; `()` takes tools away.
    """
    if isinstance(query, str):
        return Conversation(query, tools=tools) if tools else query
    if not tools and not query.history and query.system_prompt is None:
        return query.text
    return replace(query, tools=tools)


def in_conversation(query: Query, history: tuple[Exchange, ...]) -> Query:
    """The query with more said before everything else that stands before it."""
    if not history:
        return query
    if isinstance(query, str):
        return Conversation(query, history)
    return replace(query, history=(*history, *query.history))


def identity_of(query: Query) -> str:
    """A text that no other query has: its own text, or a fingerprint of the whole conversation.

    Random streams and counts are keyed by it.
    """
    return query if isinstance(query, str) else fingerprint("conversation", **to_plain(query))


def transcript_of(query: Query) -> str:
    """The query as a person or a judge reads it: its text, or the whole conversation.

    Example:
        >>> print(transcript_of(Conversation("And six?", (("Rice for two?", "150 g."),))))
        User: Rice for two?
        <BLANKLINE>
        Assistant: 150 g.
        <BLANKLINE>
        User: And six?
    """
    if isinstance(query, str):
        return query
    turns: list[tuple[str, str]] = [*query.messages]
    if query.system_prompt is not None:
        turns.insert(0, ("system", query.system_prompt))
    if query.tools:
        turns.insert(0, ("tools", ", ".join(tool_names(query.tools))))
    if len(turns) == 1:
        return query.text
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)
