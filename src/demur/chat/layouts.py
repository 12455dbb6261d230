"""What a chat template writes around the texts of a conversation, found with stand-ins for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from transformers import PreTrainedTokenizerBase

from demur.chat.bounded import bounded_text
from demur.chat.templates import TemplateArguments
from demur.chat.tokenization import Segment, SegmentKind
from demur.errors import DemurError

# Private-use characters, which no template handles specially; each stands for a text.
STAND_INS: dict[SegmentKind, str] = {
    "safety_prompt": "\ue0d0\uf0a1\ue0d1",
    "system_prompt": "\ue0d0\uf0a2\ue0d1",
    "query": "\ue0d0\uf0a3\ue0d1",
    "response": "\ue0d0\uf0a4\ue0d1",
}
_STAND_IN = re.compile("(" + "|".join(STAND_INS.values()) + ")")
_KINDS = {stand_in: kind for kind, stand_in in STAND_INS.items()}


class Part(TypedDict):
    """A part of a message, as some templates take it."""

    type: Literal["text"]
    text: str


class Message(TypedDict):
    """A message as templates take it: its content is text, or a list of parts."""

    role: str
    content: str | list[Part]


@dataclass(frozen=True)
class Rendered:
    """What a template made of one of several forms of a conversation.

    Attributes:
        text: text of the first form that it rendered, or None.
        problem: what the template said where it rendered none; may be empty.
    """

    text: str | None
    problem: str = ""


def first_rendered(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    forms: Sequence[Sequence[Message]],
    options: TemplateArguments,
    accepts: Callable[[str], bool],
    *,
    generation: bool = True,
) -> Rendered:
    """Render the first form of a conversation that a template takes.

    Args:
        tokenizer: tokenizer of the model.
        template: Jinja chat template; it may fail, run for ever or fill the memory.
        forms: the forms to try, in this order.
        options: variables that the template is rendered with.
        accepts: whether a rendered text will do.
        generation: whether the header of the answer is wanted.

    Raises:
        OutOfBounds: the template takes too long, or needs too much memory.
    """

    def work() -> str:
        problem = ""
        for messages in forms:
            try:
                text = apply_template(tokenizer, template, messages, options, generation)
            except MemoryError:
                raise
            except Exception as error:  # a template may fail in any way
                problem = problem or " ".join(str(error).split())
                continue
            if accepts(text):
                return json.dumps([text, ""])
        return json.dumps([None, problem])

    try:
        return Rendered(*json.loads(bounded_text(work, "The model's chat template")))
    except RuntimeError as error:
        return Rendered(None, " ".join(str(error).split()))


def apply_template(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    options: TemplateArguments,
    generation: bool = True,
) -> str:
    """Messages as a template renders them, up to where the assistant's answer begins.

    A template may raise any exception.
    """
    apply: Any = tokenizer.apply_chat_template  # its annotations know no parts and no variables
    return str(
        apply(
            messages,
            chat_template=template,
            add_generation_prompt=generation,
            tokenize=False,
            **options,
        )
    )


def in_both_forms(ways: Sequence[Sequence[tuple[str, str]]]) -> list[list[Message]]:
    """Conversations as messages of text, then as messages of parts, which some templates want.

    Args:
        ways: conversations as pairs of role and text.
    """
    return [
        [message(role, text, as_parts) for role, text in way]
        for as_parts in (False, True)
        for way in ways
    ]


def message(role: str, text: str, as_parts: bool) -> Message:
    """A message as templates take it: its content is text, or a list with one part."""
    return {"role": role, "content": [{"type": "text", "text": text}] if as_parts else text}


def split_segments(text: str) -> list[Segment]:
    """The markup of a rendered template around empty segments where stand-ins are."""
    segments = [
        Segment("", _KINDS[part]) if part in _KINDS else Segment(part)
        for part in _STAND_IN.split(text)
        if part
    ]
    if sum(segment.kind == "safety_prompt" for segment in segments) > 1:
        raise DemurError(
            "The model's chat template writes the system message more than once, so the safety"
            " prompt has no single place: use another chat model."
        )
    return segments
