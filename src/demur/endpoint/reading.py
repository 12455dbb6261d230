"""Reading what an endpoint answers, of which nothing is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping

from demur.endpoint.complaints import Complaint, complaint_in, plain
from demur.endpoint.hiding import MOST_READ, Secrets
from demur.endpoint.json_values import member, objects_in, text_of, whole_number
from demur.endpoint.requests import Answer

FILTERED = "content_filter"
REASONING = "reasoning"
"""The finish of an answer that holds reasoning alone."""

_REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_FILTERS = (
    "contentfilter",
    "contentfiltered",
    "sensitive",  # Zhipu
    "safety",  # Gemini and its like, below
    "prohibitedcontent",
    "blocklist",
    "spii",
    "recitation",
    "guardrailintervened",  # Bedrock
    "modelarmor",  # Gemini
    "moderation",
    "contentblocked",
    "errortoxic",  # Cohere
)
_FAILURES = ("error", "abort", "aborted", "cancelled", "insufficientsystemresource")
_REFUSED = "refusal"
_TEXTS = ("text", "output_text")
_MOST_OF_REASON = 40


class Malformed(Exception):
    """A reply is not what an OpenAI-compatible endpoint answers; its text says why."""


def decoded(body: bytes) -> object:
    """The JSON of a reply.

    Raises:
        Malformed: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise Malformed("its JSON is nested too deeply") from None
    except ValueError:
        raise Malformed("it is no JSON") from None


def completion_in(body: object, secrets: Secrets) -> Answer | Complaint:
    """The answer in a completion, or what is said instead of one.

    Raises:
        Malformed: there is neither.
    """
    complaint = complaint_in(200, body)
    if complaint is not None:
        return complaint
    if not isinstance(body, Mapping):
        raise Malformed("it is no JSON object")
    choices = objects_in(body.get("choices"))
    if not choices:
        raise Malformed("it holds no choices")
    choice = choices[0]
    finish = _reason(choice.get("finish_reason"), secrets)
    tokens = (_count(body, "prompt_tokens"), _count(body, "completion_tokens"))
    message = choice.get("message")
    text, refusal = _texts(message) if isinstance(message, Mapping) else ("", None)
    if refusal is not None or finish == _REFUSED:
        return Answer("refusal", secrets.hidden_in_text(refusal or text), _REFUSED, *tokens)
    if finish is not None and _is_filter(finish):
        return Answer("filtered", None, FILTERED, *tokens)
    if finish is not None and plain(finish) in _FAILURES:
        raise Malformed(f"its finish_reason is {finish!r}")
    if not isinstance(message, Mapping):
        raise Malformed("its choice holds no message")
    if text.strip():
        return Answer("text", secrets.hidden_in_text(text), finish, *tokens)
    return Answer("none", None, REASONING if _reasons(body, message) else finish, *tokens)


def model_names_in(body: object) -> list[str]:
    """The names in a list of models.

    Raises:
        Malformed: it is no such list.
    """
    listed = body if isinstance(body, list) else member(body, "data")
    if not isinstance(listed, list):
        raise Malformed("it holds no list of models")
    names = [one.get("id") for one in objects_in(listed)]
    return [name for name in names if isinstance(name, str) and name and name.isprintable()]


def _texts(message: Mapping[str, object]) -> tuple[str, str | None]:
    """The text of a message, and the refusal in it, or None.

    Raises:
        Malformed: the content is of no known form.
    """
    content = message.get("content")
    refusals = [text_of(message.get("refusal"))]
    if isinstance(content, list):
        parts = [_part(one) for one in content]
        refusals += [text_of(member(one, "refusal")) for one in objects_in(content)]
        text = "".join(parts)
    elif content is None or isinstance(content, str):
        text = text_of(content)
    else:
        raise Malformed("its content is neither a text nor a list of parts")
    refused = "\n".join(one for one in refusals if one.strip())
    return text, refused or None


def _reasons(body: object, message: Mapping[str, object]) -> bool:
    """Whether a message without text holds reasoning, or such was counted that is not shown."""
    kinds = (member(one, "type") for one in objects_in(message.get("content")))
    counted = member(body, "usage", "completion_tokens_details", "reasoning_tokens")
    return (
        any(message.get(name) for name in _REASONING)
        or any(one in _REASONING for one in kinds)
        or (message.get("tool_calls") is None and (whole_number(counted) or 0) > 0)
    )


def _part(part: object) -> str:
    """The text of a part of a content; empty for reasoning, refusals, pictures and the like."""
    if isinstance(part, str):
        return text_of(part)
    kind = member(part, "type")
    return text_of(member(part, "text")) if kind is None or kind in _TEXTS else ""


def _reason(value: object, secrets: Secrets) -> str | None:
    """A finish reason as a word that can be shown and stored."""
    if not isinstance(value, str):
        return None
    word = secrets.hidden_in_message("".join(filter(str.isprintable, value[:MOST_READ])))
    return word.strip()[:_MOST_OF_REASON] or None


def _is_filter(finish: str) -> bool:
    # Gemini writes `content_filter: SAFETY`.
    return any(plain(word) in _FILTERS for word in (finish, *finish.split(":")))


def _count(body: Mapping[str, object], name: str) -> int:
    return max(0, whole_number(member(body, "usage", name)) or 0)
