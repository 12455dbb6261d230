"""What of a user's request reaches the server, and how the conversation opens.

Only what is known is passed on. Servers have further options that would take the safety prompt out
of a conversation, such as a chat template of the user's own, a truncation from the left or
embeddings in its place, and new versions bring more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex

from demur.chat.templates import THINKING_SWITCHES

PASSED = frozenset(
    {
        *("frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens"),
        *("min_p", "min_tokens", "n", "parallel_tool_calls", "presence_penalty"),
        *("repetition_penalty", "response_format", "seed", "stop", "stop_token_ids", "stream"),
        *("stream_options", "structured_outputs", "temperature", "tool_choice", "tools", "top_k"),
        *("top_logprobs", "top_p", "ignore_eos"),
    }
)
"""Options of a request that are passed on."""

IGNORED = frozenset(
    {"messages", "metadata", "model", "prompt_cache_key", "safety_identifier", "service_tier"}
    | {"store", "user"}
)
"""Options that are read here, or that say nothing to the server."""

_RENDERED = ("tools",)
"""Options whose texts the chat template writes into the conversation."""

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_SYSTEM = ("system", "developer")
_KEPT = {
    "user": ("name",),
    "assistant": ("name", "tool_calls", "reasoning", "reasoning_content"),
    "tool": ("name", "tool_call_id"),
    "function": ("name",),
}
"""Members that are passed on of a message of each role, besides its role and content."""

_FOR_OTHERS = ("annotations", "cache_control", "id")
"""Members of messages and of their parts that say nothing to a model."""

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of parts that are texts, and the member that holds it."""

_MEDIA = ("image_url", "input_audio", "audio_url", "video_url")
_NAMED = {"<|safety-": "<|safety ", "<prompt_embeds>": "<prompt embeds>"}
"""What begins the names of safety tokens, and what vLLM writes in the place of rows."""

MOST_MESSAGES = 10_000
_MOST_SHOWN = 60

_ROWS = token_hex(16)
"""Stands for the rows until the request is written; users cannot know it."""


class RequestRefused(Exception):
    """A request that is not passed on.

    Attributes:
        status: HTTP status of the answer.
        code: OpenAI's code of the mistake, or None.
    """

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Manner:
    """How a server writes a conversation.

    Attributes:
        system_role: whether its chat template has a system message.
        blank_line: beginning of a text behind the rows that makes a blank line between them.
        marks: the chat template's own tokens, as they are written.
    """

    system_role: bool
    blank_line: str
    marks: tuple[str, ...] = ()

    def harmless(self, text: str) -> str:
        """A text in which no token of the template, no safety token and no row is written."""
        for name, other in _NAMED.items():
            text = text.replace(name, other)
        for mark in self.marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text


def opened_request(body: object, data: bytes, manner: Manner, model: str) -> bytes:
    """A request to the server, as JSON: what is known of a user's, opened with rows.

    Args:
        body: the decoded request.
        data: rows as the server takes them, in base64.
        manner: how the server writes a conversation.
        model: name of the model at the server.

    Raises:
        RequestRefused: the request holds something that is not passed on, or is none.
    """
    if not isinstance(body, dict):
        raise RequestRefused("The request is no JSON object.")
    body = _given(body)
    for name in body:
        if name not in PASSED and name not in IGNORED:
            raise RequestRefused(
                f"The option {str(name)!r:.{_MOST_SHOWN}} is not served here: leave it out.",
                code="unknown_parameter",
            )
    # The messages come first, and the rows are the first part of the first of them.
    sent: dict[str, object] = {"messages": opened_messages(body.get("messages"), manner)}
    sent["model"] = model
    for name in PASSED & set(body):
        sent[name] = _cleaned(body[name], manner) if name in _RENDERED else body[name]
    # The prompt was trained in conversations without a reasoning where that can be chosen.
    sent["chat_template_kwargs"] = THINKING_SWITCHES
    try:
        content = json.dumps(sent, allow_nan=False)
    except ValueError:
        raise RequestRefused("A number of the request is larger than numbers can be.") from None
    return content.encode().replace(_ROWS.encode(), data, 1)


def opened_messages(messages: object, manner: Manner) -> list[dict[str, object]]:
    """The messages behind the rows.

    System and developer messages, wherever they stand, become one text behind the rows.

    Raises:
        RequestRefused: a message is none, or holds something that is not passed on.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestRefused("'messages' is no list of messages: give at least one.")
    if len(messages) > MOST_MESSAGES:
        raise RequestRefused(f"There are more than {MOST_MESSAGES:,} messages.")
    system: list[str] = []
    others: list[dict[str, object]] = []
    for one in messages:
        role, message = _message(one)
        content = _content(message.get("content"), manner)
        if role not in _SYSTEM:
            kept = [name for name in _KEPT[role] if name in message]
            more = {name: _cleaned(message[name], manner) for name in kept}
            others.append({"role": role, "content": content, **more})
        elif isinstance(content, list):
            raise RequestRefused("A system message holds other things than text.")
        elif content is not None and content.strip():
            system.append(content.strip())
    return _opened("\n\n".join(system), others, manner)


def _opened(
    system: str, others: list[dict[str, object]], manner: Manner
) -> list[dict[str, object]]:
    rows: dict[str, object] = {"type": "prompt_embeds", "data": _ROWS}
    behind = [_text(manner.blank_line + system)] if system else []
    if manner.system_role:
        return [{"role": "system", "content": [rows, *behind]}, *others]
    if not others or others[0]["role"] != "user":
        return [{"role": "user", "content": [rows, *behind]}, *others]
    first = others[0]["content"]
    parts = first if isinstance(first, list) else [_text(first or "")]
    text = ""
    if parts[0]["type"] == "text":
        text, parts = str(parts[0]["text"]), parts[1:]
    whole = "\n\n".join(one for one in (system, text) if one)
    behind = [_text(manner.blank_line + whole)] if whole else []
    return [{**others[0], "content": [rows, *behind, *parts]}, *others[1:]]


def _message(message: object) -> tuple[str, dict[str, object]]:
    """The role of a message, and its members; a refusal is the content of an answer."""
    if not isinstance(message, dict):
        raise RequestRefused("A message is no JSON object.")
    role = message.get("role")
    if role not in _ROLES:
        raise RequestRefused(
            f"A message has the role {role!r:.{_MOST_SHOWN}}: give one of {', '.join(_ROLES)}."
        )
    found = _given(message)
    if role == "assistant":
        refusal = found.pop("refusal", "")
        if refusal != "":
            found = _with_refusal(found, refusal)
        if found.get("tool_calls") == []:
            del found["tool_calls"]
    # System messages become one text, which has no name.
    _require_known(found, ("role", "content", *_KEPT.get(role, ("name",))))
    return str(role), found


def _with_refusal(message: dict[str, object], refusal: object) -> dict[str, object]:
    """An answer whose text is its refusal: servers read no `refusal` of a message."""
    if not isinstance(refusal, str):
        raise RequestRefused("The refusal of a message is no text.")
    if message.get("content"):
        raise RequestRefused("A message has both a content and a refusal: send one of them.")
    return {**message, "content": refusal}


def _given(members: Mapping[str, object]) -> dict[str, object]:
    """What is not null: clients write null for what they leave out."""
    return {name: value for name, value in members.items() if value is not None}


def _require_known(members: Mapping[str, object], known: Sequence[str], of: str = "") -> None:
    """Check that nothing of a message would be lost.

    Raises:
        RequestRefused: it holds something that is not passed on.
    """
    for name in members:
        if name.endswith("_embeds"):
            raise _embeddings()
        if name not in known and name not in _FOR_OTHERS:
            instead = "send 'tool_calls'" if name == "function_call" else "leave it out"
            raise RequestRefused(
                f"A message holds {of}{name!r:.{_MOST_SHOWN}}, which is not served here: {instead}."
            )


def _content(content: object, manner: Manner) -> str | list[dict[str, object]] | None:
    """The content of a message: its text in one piece, or parts where some are no texts.

    Texts are put together before they are looked at, because a template may join them.
    """
    if content is None:
        return None
    if isinstance(content, str):
        return manner.harmless(content)
    if not isinstance(content, list):
        raise RequestRefused("The content of a message is neither a text nor a list of parts.")
    found: list[dict[str, object]] = []
    for part in content:
        text = _text_in(part)
        if text is None:
            found.append(_media(part))
        elif found and found[-1]["type"] == "text":
            found[-1] = _text(f"{found[-1]['text']}{text}")
        else:
            found.append(_text(text))
    for part in found:
        if part["type"] == "text":
            part["text"] = manner.harmless(str(part["text"]))
    if all(part["type"] == "text" for part in found):
        return str(found[0]["text"]) if found else ""
    return found


def _text_in(part: object) -> str | None:
    """The text of a part; None where it is another kind of part."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise RequestRefused("A part of a message is no JSON object.")
    kind = part.get("type")
    if str(kind).endswith("_embeds") or any(name.endswith("_embeds") for name in _given(part)):
        raise _embeddings()
    if not isinstance(kind, str) or kind not in _TEXTS:
        return None
    _require_known(_given(part), ("type", _TEXTS[kind]), "a part with ")
    text = part.get(_TEXTS[kind])
    if not isinstance(text, str):
        raise RequestRefused("A part of a message holds no text, although its type says so.")
    return text


def _media(part: object) -> dict[str, object]:
    assert isinstance(part, dict)
    kind = part.get("type")
    if kind not in _MEDIA:
        raise RequestRefused(
            f"A part of a message has the type {kind!r:.{_MOST_SHOWN}}: give one of "
            f"{', '.join((*_TEXTS, *_MEDIA))}."
        )
    _require_known(_given(part), ("type", str(kind)), "a part with ")
    return {"type": kind, str(kind): part.get(str(kind))}


def _embeddings() -> RequestRefused:
    return RequestRefused("A message holds embeddings, which are not served here: send text.")


def _text(text: object) -> dict[str, object]:
    return {"type": "text", "text": text}


def _cleaned(value: object, manner: Manner) -> object:
    """A value whose texts, at any depth, are harmless."""
    if isinstance(value, str):
        return manner.harmless(value)
    if isinstance(value, Mapping):
        return {
            manner.harmless(str(name)): _cleaned_arguments(one, manner)
            if name == "arguments" and isinstance(one, str)
            else _cleaned(one, manner)
            for name, one in value.items()
        }
    if isinstance(value, Sequence):
        return [_cleaned(one, manner) for one in value]
    return value


def _cleaned_arguments(text: str, manner: Manner) -> str:
    """A call's arguments as JSON, which the server decodes before its template writes them."""
    try:
        found = json.loads(text)
    except ValueError:
        return manner.harmless(text)
    cleaned = _cleaned(found, manner)
    if cleaned == found:
        return text
    return json.dumps(cleaned, ensure_ascii=False)
