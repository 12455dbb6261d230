"""From a safety prompt and a query to what a chat model reads.

The template is rendered once for each combination of messages, with stand-ins in place of the
texts; the texts are put in afterwards. So no text can change what the template does, and where
each text begins and ends is known exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from demur.chat.bounded import OutOfBounds
from demur.chat.clean_texts import clean_text, clean_texts
from demur.chat.engine.turn_end import TurnEnd
from demur.chat.layouts import STAND_INS, first_rendered, in_both_forms, split_segments
from demur.chat.rendered import RenderedConversation
from demur.chat.templates import (
    TemplateValue,
    find_template,
    pin_clock,
    template_options,
    with_ending,
)
from demur.chat.tokenization import Segment, SegmentKind, SegmentTokenizer
from demur.chat.turns import AnsweredTurn, begins_answer, ending_of, opens_answer, turn_end_of
from demur.errors import DemurError
from demur.records import tool_names, tools_of
from demur.records.reasoning import ends_reasoning, mentions_reasoning

_MOST_RENDERED = 2048
"""Conversations whose token ids are kept: some 40 bytes a token."""


class ChatRenderer:
    """Renders conversations with a model's chat template.

    The safety prompt opens the system message, and the application's system text follows it after
    a blank line. Where the template has no system role (it refuses or ignores one), both open the
    user's message instead. Texts are stripped of surrounding white space. Templates that can be
    told not to think before the answer are, and where a template leaves a reasoning open, it is
    ended. Templates that print a date print a fixed one.

    Args:
        tokenizer: a fast tokenizer. Tokens added to it later are not known here.
        model_name: tells the family, for models whose tokenizers ship no usable chat template.
        template: Jinja chat template to use in place of the model's own.

    Attributes:
        template: the Jinja chat template; it ends a reasoning before the answer.
        options: the variables that it is rendered with.

    Raises:
        DemurError: no chat template can be found, or the tokenizer is not a fast one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model_name: str = "",
        template: str | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        template = template or find_template(tokenizer, model_name)
        self.template = template
        self.options = template_options(template)
        self._template = pin_clock(template)
        self._tokenize = SegmentTokenizer(tokenizer)
        self._layouts: dict[tuple[frozenset[SegmentKind], int, tuple[str, ...]], list[Segment]] = {}
        self._in_answer = self._end_reasoning()
        self._known: dict[Hashable, RenderedConversation] = {}

    @cached_property
    def turn_end(self) -> TurnEnd:
        """What the template writes behind an answer, which ends one."""
        return turn_end_of(self._tokenize, [self._answered(), self._last_turn()])

    @cached_property
    def may_reason(self) -> bool:
        """Whether the model may reason before it answers, and the template cannot end that."""
        try:
            header = self._header()
            if self._in_answer or ends_reasoning(header):
                return False
            begun = begins_answer(header, self._answered())
            return (begun or mentions_reasoning(self.template)) and not self._has_switch()
        except DemurError:
            return False

    @cached_property
    def lists_tools(self) -> bool:
        """Whether the template lists the tools that a conversation offers."""
        try:
            self._segments({"query": "x", "system_prompt": "x"}, tools=_ANY_TOOL)
        except OutOfBounds:
            raise
        except DemurError:
            return False
        return True

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the template and the options it is rendered with."""
        content = json.dumps([self._template, self.options], sort_keys=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    def render_text(
        self,
        query: str,
        safety_prompt: str | None = None,
        system_prompt: str | None = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        tools: Sequence[str] = (),
    ) -> str:
        """The conversation as text, markup and all.

        Args:
            query: the user's message.
            safety_prompt: text, or None for none.
            system_prompt: the application's own system text, or None for none.
            history: earlier messages of the user, each with the answer to it.
            tools: tools that the template lists, as `tools_of` returns them.

        Raises:
            DemurError: a text is empty, or the template cannot be used.
        """
        texts = clean_texts(query, safety_prompt, system_prompt)
        segments = self._segments(texts, history, tuple(tools))
        return "".join(segment.text for segment in segments)

    def render(
        self,
        query: str,
        safety_prompt: str | None = None,
        system_prompt: str | None = None,
        *,
        prompt_rows: int | None = None,
        history: Sequence[tuple[str, str]] = (),
        tools: Sequence[str] = (),
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
            tools: tools that the template lists, as `tools_of` returns them.

        Raises:
            DemurError: a text is empty or cannot be tokenized as plain text, `prompt_rows` is
                below 1, a tool writes a token of the template, or the template cannot be used.
        """
        if prompt_rows is not None and prompt_rows < 1:
            raise DemurError(f"prompt_rows is {prompt_rows}: give at least 1.")
        if prompt_rows is not None and safety_prompt is None:
            safety_prompt = "x"  # any text: its tokens are replaced
        texts = clean_texts(query, safety_prompt, system_prompt)
        # The same queries come again in every epoch and measurement.
        turns = tuple((user, answer) for user, answer in history)
        key = tuple(texts.items()), prompt_rows, turns, tuple(tools)
        if key not in self._known:
            if len(self._known) >= _MOST_RENDERED:
                self._known.clear()
            self._known[key] = self._rendered(texts, prompt_rows, turns, tuple(tools))
        return self._known[key]

    def _rendered(
        self,
        texts: dict[SegmentKind, str],
        prompt_rows: int | None,
        history: tuple[tuple[str, str], ...],
        tools: tuple[str, ...],
    ) -> RenderedConversation:
        ids, span = self._tokenize(self._segments(texts, history, tools))
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
        header = Segment(self._header())
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
        answered = self._answered()
        before = "" if answered is None else answered.before
        gap = before.removeprefix(header)
        return gap if before.startswith(header) and not gap.strip() else ""

    def _segments(
        self,
        texts: Mapping[SegmentKind, str],
        history: Sequence[tuple[str, str]] = (),
        tools: tuple[str, ...] = (),
    ) -> list[Segment]:
        key = (frozenset(texts), len(history), tools)
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

    def _layout(
        self, kinds: frozenset[SegmentKind], answered: int, tools: tuple[str, ...]
    ) -> list[Segment]:
        """The template's markup around empty segments for the texts of these kinds.

        Args:
            kinds: of the safety prompt, the system prompt and the query.
            answered: earlier queries, each with its response.
            tools: tools that the template lists.
        """
        self._check_tools(tools)
        names = tool_names(tools)
        system = [STAND_INS[k] for k in ("safety_prompt", "system_prompt") if k in kinds]
        query, response = STAND_INS["query"], STAND_INS["response"]
        later = [("assistant", response), ("user", query)] * answered
        in_user = [("user", "\n\n".join([*system, query])), *later]
        ways = (
            [[("system", "\n\n".join(system)), ("user", query), *later], in_user]
            if system
            else [in_user]
        )

        def is_whole(text: str) -> bool:
            turns_kept = not answered or (
                text.count(query) == answered + 1 and text.count(response) == answered
            )
            kept = [*(STAND_INS[kind] for kind in kinds), *names]
            return turns_kept and all(one in text for one in kept)

        listed = {"tools": [json.loads(tool) for tool in tools]} if tools else {}
        rendered = first_rendered(
            self._tokenizer,
            self._template,
            in_both_forms(ways),
            {**self.options, **listed},
            is_whole,
        )
        if rendered.text is not None:
            return split_segments(rendered.text)
        if tools:
            raise DemurError(
                "The model's chat template does not list tools: leave out the tools, or give a "
                "template that does with --chat-template FILE."
            )
        problem = rendered.problem or "a message is missing from its output"
        if answered:
            raise DemurError(
                "The model's chat template does not render a query behind earlier messages"
                f" ({problem}): leave out queries with a history, or use another chat model."
            )
        raise DemurError(
            f"The model's chat template does not render a plain conversation ({problem}): use"
            " another chat model, or give its template with --chat-template FILE."
        )

    def _check_tools(self, tools: tuple[str, ...]) -> None:
        """Tools become part of the template's own text, so they may hold no token of its own."""
        for tool in tools:
            written = self._tokenize.added_token_in(tool)
            if written is not None or any(stand_in in tool for stand_in in STAND_INS.values()):
                (name,) = tool_names([tool])
                raise DemurError(
                    f"The tool {name!r:.80} holds the text of a special token"
                    f"{'' if written is None else f', {written!r:.80}'}: write it otherwise."
                )

    def _answered(self) -> AnsweredTurn | None:
        try:
            return AnsweredTurn.of(self._segments({"query": "x"}, [("x", "x")]))
        except OutOfBounds:
            raise
        except DemurError:  # the template takes one message only
            return None

    def _last_turn(self) -> AnsweredTurn | None:
        """The markup around an answer that nothing follows."""
        query, response = STAND_INS["query"], STAND_INS["response"]
        rendered = first_rendered(
            self._tokenizer,
            self._template,
            in_both_forms([[("user", query), ("assistant", response)]]),
            self.options,
            lambda text: response in text,
            generation=False,
        )
        return None if rendered.text is None else AnsweredTurn.of(split_segments(rendered.text))

    def _header(self) -> str:
        """What the template writes between the query and the answer to come."""
        last = self._segments({"query": "x"})[-1]
        return last.text if last.kind == "markup" else ""

    def _end_reasoning(self) -> bool:
        """Let the template end the reasoning before an answer; whether it does so now."""
        try:
            ending = ending_of(self._header(), self._answered())
        except OutOfBounds:
            raise
        except DemurError:  # it is raised where a conversation is rendered
            return False
        if ending:
            self.template = with_ending(self.template, ending)
            self._template = pin_clock(self.template)
            self._layouts.clear()
        return opens_answer(ending)

    def _has_switch(self) -> bool:
        """Whether the variables that turn thinking off change what the template writes."""
        flipped = {name: _FLIPPED.get(name, True) for name in self.options if name != "date_string"}
        found = [
            first_rendered(
                self._tokenizer,
                self._template,
                in_both_forms([[("user", STAND_INS["query"])]]),
                {**self.options, **changed},
                lambda text: STAND_INS["query"] in text,
            ).text
            for changed in ({}, flipped)
        ]
        return found[0] != found[1]


_ANY_TOOL = tools_of([{"name": "any_tool", "description": "Does something."}])
_FLIPPED: Mapping[str, TemplateValue] = {"thinking_budget": 1024, "reasoning_effort": "high"}
