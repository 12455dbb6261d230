"""From a safety prompt and a query to what a chat model reads.

The template is rendered once for each combination of messages, with stand-ins in place of the
texts; the texts are put in afterwards. So no text can change what the template does, and where
each text begins and ends is known exactly.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from transformers import PreTrainedTokenizerBase

from demur.chat.templates import TemplateArguments, find_template, pin_clock, template_options
from demur.chat.tokenization import Segment, SegmentKind, SegmentTokenizer
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


class ChatRenderer:
    """Renders conversations with a model's chat template.

    The safety prompt opens the system message, and the application's system text follows it after
    a blank line. Where the template has no system role (it refuses or ignores one), both open the
    user's message instead. Texts are stripped of surrounding white space. Templates that can be
    told not to think before the answer are, and templates that print a date print a fixed one.

    Args:
        tokenizer: a fast tokenizer. Tokens added to it later are not known here.
        model_name: tells the family, for models whose tokenizers ship no usable chat template.

    Attributes:
        template: the Jinja chat template.
        options: the variables that it is rendered with.

    Raises:
        DemurError: no chat template can be found, or the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model_name: str = "") -> None:
        self._tokenizer = tokenizer
        template = find_template(tokenizer, model_name)
        self.template = template
        self.options = template_options(template)
        self._template = pin_clock(template)
        self._tokenize = SegmentTokenizer(tokenizer)
        self._layouts: dict[tuple[frozenset[SegmentKind], int], list[Segment]] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the template and the options it is rendered with."""
        content = json.dumps([self._template, self.options], sort_keys=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    def render_text(
        self, query: str, safety_prompt: str | None = None, system_prompt: str | None = None
    ) -> str:
        """The conversation as text, markup and all.

        Args:
            query: the user's message.
            safety_prompt: text, or None for none.
            system_prompt: the application's own system text, or None for none.

        Raises:
            DemurError: a text is empty, or the template cannot be used.
        """
        texts = _clean_texts(query, safety_prompt, system_prompt)
        return "".join(segment.text for segment in self._segments(texts))

    def render(
        self,
        query: str,
        safety_prompt: str | None = None,
        system_prompt: str | None = None,
        *,
        prompt_rows: int | None = None,
        history: Sequence[tuple[str, str]] = (),
    ) -> RenderedConversation:
        """The conversation as token ids, with the span of the safety prompt.

        The ids are those of the whole text, except that tokens do not lie over an edge of the
        safety prompt, and that only the template, never one of the texts, yields added tokens.

        Args:
            query: the user's message.
            safety_prompt: text, or None for none.
            system_prompt: the application's own system text, or None for none.
            prompt_rows: at least 1. The safety prompt is so many trained embedding rows, and as
                many placeholder ids stand in its place; `safety_prompt` may then be the text that
                the rows were made from (the ids around are those around that text) or None.
            history: earlier messages of the user, each with the answer to it.

        Raises:
            DemurError: a text is empty or cannot be tokenized as plain text, `prompt_rows` is
                below 1, or the template cannot be used.
        """
        if prompt_rows is not None and prompt_rows < 1:
            raise DemurError(f"prompt_rows is {prompt_rows}: give at least 1.")
        if prompt_rows is not None and safety_prompt is None:
            safety_prompt = "x"  # any text: its tokens are replaced
        texts = _clean_texts(query, safety_prompt, system_prompt)
        ids, span = self._tokenize(self._segments(texts, history))
        if prompt_rows is not None and span is not None:
            start, end = span
            ids[start:end] = [self._tokenize.placeholder_id] * prompt_rows
            span = (start, start + prompt_rows)
        return RenderedConversation(tuple(ids), span)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as the model's own answer, from its first token on.

        They are those of the text alone: no token lies over the place where the answer begins, and
        none is an added token. White space that the template puts between its header and an answer
        (Llama 2's does) is part of the first token, as it is when the model answers.

        Raises:
            DemurError: the text is empty or cannot be tokenized as plain text.
        """
        clean_text("answer", text)
        last = self._segments({"query": "x"})[-1]
        header = last if last.kind == "markup" else Segment("")
        gap = self._gap(header.text)
        if text.startswith(gap):
            gap = ""
        # Of a safety prompt it is guaranteed that no token lies over its edges.
        answer = Segment(gap + text, "safety_prompt")
        ids, span = self._tokenize([header, answer])
        assert span is not None
        return tuple(ids[span[0] : span[1]])

    def _gap(self, header: str) -> str:
        """White space that the template puts between the header of an answer and its text."""
        try:
            answered = self._segments({"query": "x"}, [("x", "x")])
        except DemurError:  # the template takes one message only
            return ""
        place = next((i for i, one in enumerate(answered) if one.kind == "response"), 0)
        before = answered[place - 1].text if place else ""
        gap = before.removeprefix(header)
        return gap if before.startswith(header) and not gap.strip() else ""

    def _segments(
        self, texts: Mapping[SegmentKind, str], history: Sequence[tuple[str, str]] = ()
    ) -> list[Segment]:
        key = (frozenset(texts), len(history))
        if key not in self._layouts:
            self._layouts[key] = self._layout(*key)
        queries = [clean_text("query", query) for query, _ in history]
        responses = [clean_text("response", response) for _, response in history]
        # Turns come in their order; without history a template may write the query twice.
        turns = {"query": iter([*queries, texts["query"]]), "response": iter(responses)}
        return [
            segment
            if segment.kind == "markup"
            else Segment(
                next(turns[segment.kind])
                if history and segment.kind in turns
                else texts[segment.kind],
                segment.kind,
            )
            for segment in self._layouts[key]
        ]

    def _layout(self, kinds: frozenset[SegmentKind], answered: int) -> list[Segment]:
        """The template's markup around empty segments for the texts of these kinds.

        Args:
            kinds: of the safety prompt, the system prompt and the query.
            answered: earlier queries, each with its response.
        """
        system = [STAND_INS[k] for k in ("safety_prompt", "system_prompt") if k in kinds]
        query, response = STAND_INS["query"], STAND_INS["response"]
        later = [("assistant", response), ("user", query)] * answered
        in_user = [("user", "\n\n".join([*system, query])), *later]
        ways = (
            [[("system", "\n\n".join(system)), ("user", query), *later], in_user]
            if system
            else [in_user]
        )
        problem = ""
        for as_parts in (False, True):  # some templates take a message only as a list of parts
            for way in ways:
                messages = [message(role, text, as_parts) for role, text in way]
                try:
                    text = self._apply(messages)
                except Exception as error:  # a template may fail in any way
                    problem = problem or " ".join(str(error).split())
                    continue
                turns_kept = not answered or (
                    text.count(query) == answered + 1 and text.count(response) == answered
                )
                if turns_kept and all(STAND_INS[kind] in text for kind in kinds):
                    return split_segments(text)
        if answered:
            raise DemurError(
                "The model's chat template does not render a query behind earlier messages"
                f" ({problem or 'a message is missing from its output'}): leave out queries with a"
                " history, or use another chat model."
            )
        raise DemurError(
            "The model's chat template does not render a plain conversation"
            f" ({problem or 'a message is missing from its output'}): use another chat model."
        )

    def _apply(self, messages: list[Message]) -> str:
        return apply_template(self._tokenizer, self._template, messages, self.options)


def apply_template(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    options: TemplateArguments,
) -> str:
    """Messages as a template renders them, up to where the assistant's answer begins.

    A template may raise any exception.
    """
    apply: Any = tokenizer.apply_chat_template  # its annotations know no parts and no variables
    return str(
        apply(
            messages,
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
            **options,
        )
    )


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


def _clean_texts(
    query: str, safety_prompt: str | None, system_prompt: str | None
) -> dict[SegmentKind, str]:
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
