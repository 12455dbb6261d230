"""Tries of an exported chat template, on the conversations that engines send."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.chat import ChatModel
from demur.chat.bounded import OutOfBounds, bounded_text
from demur.chat.templates import TemplateArguments, pin_clock
from demur.errors import DemurError
from demur.prompts import SafetyPrompt

Turns = Sequence[tuple[str, str]]
"""Roles and texts of messages."""

_QUERIES = ("How do I kill a process?", "Name a tree.", "1 + 1 = ?")
_SYSTEM, _MORE = "You work for a bakery.\nAnswer in one sentence.", "Today is a holiday."
_FIRST, _LAST = ("user", _QUERIES[0]), ("user", _QUERIES[1])
_ANSWER = ("assistant", "With its number.")
_SYSTEMS: Sequence[tuple[Turns, str | None]] = (
    ([], None),
    ([("system", _SYSTEM)], _SYSTEM),
    ([("developer", _SYSTEM)], _SYSTEM),
    ([("system", " ")], None),
    ([("system", _SYSTEM), ("system", _MORE)], f"{_SYSTEM}\n\n{_MORE}"),
)
_LONGER: Sequence[Turns] = (
    [_FIRST, _ANSWER, _LAST],
    [("system", _SYSTEM), _FIRST, _ANSWER, _LAST],
    [_FIRST, _ANSWER, ("system", _SYSTEM), _LAST],
    [("system", _SYSTEM), _FIRST, _ANSWER, ("system", _MORE), _LAST],
    [_ANSWER, _LAST],
)


@dataclass(frozen=True)
class Rendering:
    """A conversation under a template.

    Attributes:
        text: what the template wrote.
        ids: token ids of the text.
    """

    text: str
    ids: list[int]


@dataclass(frozen=True)
class TemplateCheck:
    """Tries of a template that opens conversations with safety tokens.

    Attributes:
        model: base model, which tells the ids that the template must give.
        prompt: trained safety prompt.
        tokenizer: tokenizer that has the safety tokens.
        template: template to try.
        ids: ids of the safety tokens, in their order.
    """

    model: ChatModel
    prompt: SafetyPrompt
    tokenizer: Any
    template: str
    ids: Sequence[int]

    def gives_the_same_ids(self) -> bool:
        """Whether queries, alone and behind system messages, become the ids that demur uses.

        Messages come as texts and as parts. System messages are one or two, and may be blank.
        """
        tries = [
            ([*before, ("user", query)], self._wanted(query, system_prompt))
            for query in _QUERIES
            for before, system_prompt in _SYSTEMS
        ]
        found = self._render([turns for turns, _ in tries], self.template)
        return all(
            rendering is not None and rendering.ids == wanted
            for (_, wanted), both in zip(tries, found, strict=True)
            for rendering in both
        )

    def require_whole_conversations(self) -> None:
        """Check longer conversations: every text is there, and the safety tokens once.

        A conversation that the template of the base model does not render is left out.

        Raises:
            DemurError: a text or a safety token is lost.
        """
        alone = [[turn for turn in turns if turn[0] != "system"] for turns in _LONGER]
        base = self._render(alone, self.model.renderer.template)
        found = self._render(_LONGER, self.template)
        for turns, others, unchanged, both in zip(_LONGER, alone, base, found, strict=True):
            if not any(_holds(rendering, others) for rendering in unchanged):
                continue
            if not all(_holds(one, turns) and self._has_tokens_once(one) for one in both):
                roles = ", ".join(role for role, _ in turns)
                raise DemurError(
                    f"The chat template of {self.model.name} loses a text of a conversation of "
                    f"{roles}: export to peft instead."
                )

    def require_no_more(self, names: Sequence[str]) -> None:
        """Check that a text with the names of the tokens adds none of them.

        Args:
            names: names of the safety tokens.

        Raises:
            DemurError: it does.
        """
        user = ("user", f"{''.join(names)} {_QUERIES[0]} {names[-1]}")
        tries = [[user], [("system", f"{_SYSTEM} {names[0]}"), user]]
        for both in self._render(tries, self.template):
            if not all(self._has_tokens_once(rendering) for rendering in both):
                raise DemurError(
                    f"The chat template of {self.model.name} lets a user write safety tokens: "
                    "export to peft instead."
                )

    def _wanted(self, query: str, system_prompt: str | None) -> list[int]:
        conversation = self.model.renderer.render(
            query, self.prompt.text, system_prompt, prompt_rows=self.prompt.rows
        )
        assert conversation.prompt_span is not None
        start, end = conversation.prompt_span
        return [*conversation.token_ids[:start], *self.ids, *conversation.token_ids[end:]]

    def _has_tokens_once(self, rendering: Rendering | None) -> bool:
        ours = set(self.ids)
        found = [] if rendering is None else [one for one in rendering.ids if one in ours]
        return found == list(self.ids)

    def _render(
        self, conversations: Sequence[Turns], template: str
    ) -> list[tuple[Rendering | None, Rendering | None]]:
        """Each conversation with messages of text, and with messages of parts.

        An engine passes no variables, so those of demur are left out, except for the date.
        """
        options = self.model.renderer.options
        date = {name: options[name] for name in ("date_string",) if name in options}
        found = rendered(
            self.tokenizer,
            [messages_of(turns, parts) for turns in conversations for parts in (False, True)],
            template,
            date if template == self.template else options,
        )
        return list(zip(found[::2], found[1::2], strict=True))


def _holds(rendering: Rendering | None, turns: Turns) -> bool:
    return rendering is not None and all(content in rendering.text for _, content in turns)


def messages_of(turns: Turns, as_parts: bool = False) -> list[dict[str, Any]]:
    """Messages as engines send them: their content is text, or a list with one part."""
    return [
        {"role": role, "content": [{"type": "text", "text": text}] if as_parts else text}
        for role, text in turns
    ]


def rendered(
    tokenizer: Any,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    template: str,
    options: TemplateArguments,
) -> list[Rendering | None]:
    """Conversations under a template, each up to where the answer begins.

    Args:
        tokenizer: tokenizer of the model.
        conversations: messages of each.
        template: Jinja chat template, which runs in a process with limits.
        options: variables that it is rendered with.

    Returns:
        A rendering of each; None where the template fails.

    Raises:
        OutOfBounds: the template takes too long, or needs too much memory.
    """

    def render(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]] | None:
        try:
            text = tokenizer.apply_chat_template(
                messages,
                chat_template=pin_clock(template),
                add_generation_prompt=True,
                tokenize=False,
                **options,
            )
        except MemoryError:
            raise
        except Exception:  # a template may fail in any way
            return None
        return text, tokenizer(text, add_special_tokens=False)["input_ids"]

    def work() -> str:
        return json.dumps([render(messages) for messages in conversations])

    try:
        found = json.loads(bounded_text(work, "The model's chat template"))
    except OutOfBounds:
        raise
    except RuntimeError:
        return [None] * len(conversations)
    return [None if each is None else Rendering(*each) for each in found]
