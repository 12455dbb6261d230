"""Tries of an exported chat template, on the conversations that engines send."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from demur.chat.bounded import OutOfBounds, bounded_text
from demur.chat.rendering import ChatRenderer
from demur.chat.templates import TemplateArguments, pin_clock
from demur.errors import DemurError
from demur.exports.template_forms import FORMS, QUERIES, SYSTEM, TOOLS, Form, Turns
from demur.prompts import SafetyPrompt
from demur.records import tool_names

_PARTS = (0, 1, 2)

Outcome = Literal["as in the run", "whole", "refused by the template", "wrong"]
"""What becomes of one form of a conversation."""


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
class Trial:
    """What a template did with one form of a conversation.

    Attributes:
        form: the form, with its texts as plain texts and as parts.
        outcome: `as in the run`: the tokens are those that demur uses; `whole`: a conversation
            that demur does not send keeps every text and all safety tokens; `refused by the
            template`: it ends in an error, as it does in the model's own template; `wrong`.
        problem: what is wrong, as the end of a sentence; empty where nothing is.
    """

    form: Form
    outcome: Outcome
    problem: str = ""


@dataclass(frozen=True)
class TemplateCheck:
    """Tries of a template that opens conversations with safety tokens.

    Attributes:
        renderer: renderer with the model's own template, which tells the right ids.
        prompt: trained safety prompt.
        tokenizer: tokenizer that has the safety tokens.
        template: template to try.
        ids: ids of the safety tokens, in their order.
        names: names of the safety tokens.
    """

    renderer: ChatRenderer
    prompt: SafetyPrompt
    tokenizer: Any
    template: str
    ids: Sequence[int]
    names: Sequence[str]

    def trials(self, forms: Sequence[Form] = FORMS) -> list[Trial]:
        """A trial of each form."""
        found = self._exported([(form, form.options) for form in forms])
        base = self._base(forms)
        return [
            self._trial(form, unchanged, renderings)
            for form, unchanged, renderings in zip(forms, base, found, strict=True)
        ]

    def lets_users_write_tokens(self, options: TemplateArguments) -> bool:
        """Whether a message with the names of the tokens adds one of them.

        Args:
            options: variables that an engine gives the template.
        """
        user = ("user", f"{''.join(self.names)} {QUERIES[0]} {self.names[-1]}")
        ways: list[Turns] = [[user], [("system", f"{SYSTEM} {self.names[0]}"), user]]
        forms = [Form("names", turns) for turns in ways]
        return not all(
            self._has_tokens_once(rendering)
            for each in self._exported([(form, options) for form in forms])
            for rendering in each
        )

    def _trial(
        self, form: Form, base: Rendering | None, found: Sequence[Rendering | None]
    ) -> Trial:
        whole = [one for one in found if one is not None]
        required = [*form.system_texts, *self._required(form, base)]
        for rendering in whole:
            if problem := self._lost(rendering, required):
                return Trial(form, "wrong", problem)
        wanted = self._wanted(form)
        if len(whole) < len(found):
            if wanted is None and base is None and not whole:
                return Trial(form, "refused by the template")
            return Trial(form, "wrong", "it ends in an error")
        if any(one.ids != whole[0].ids for one in whole):
            return Trial(form, "wrong", "parts become other tokens than texts")
        if wanted is None:
            return Trial(form, "whole")
        if whole[0].ids != wanted:
            return Trial(form, "wrong", "it becomes other tokens than in the run")
        return Trial(form, "as in the run")

    def _required(self, form: Form, base: Rendering | None) -> list[str]:
        """What the model's own template keeps of a conversation without system messages."""
        if base is None:
            return []
        tools = tool_names(TOOLS) if form.offers_tools else []
        return [text for text in [*form.other_texts, *tools] if text in base.text]

    def _lost(self, rendering: Rendering, texts: Sequence[str]) -> str:
        if not self._has_tokens_once(rendering):
            return "the safety prompt does not stand in it once"
        lost = next((text for text in texts if text not in rendering.text), None)
        return "" if lost is None else f"the text {lost!r} is lost"

    def _wanted(self, form: Form) -> list[int] | None:
        """The ids that demur uses; None where it sends no such conversation."""
        history = form.exchanges
        if history is None:
            return None
        try:
            conversation = self.renderer.render(
                form.others[-1][1],
                self.prompt.text,
                form.system_prompt,
                prompt_rows=self.prompt.rows,
                history=history,
                tools=TOOLS if form.offers_tools else (),
            )
        except OutOfBounds:
            raise
        except DemurError:
            return None
        assert conversation.prompt_span is not None
        start, end = conversation.prompt_span
        return [*conversation.token_ids[:start], *self.ids, *conversation.token_ids[end:]]

    def _has_tokens_once(self, rendering: Rendering | None) -> bool:
        ours = set(self.ids)
        found = [] if rendering is None else [one for one in rendering.ids if one in ours]
        return found == list(self.ids)

    def _exported(
        self, forms: Sequence[tuple[Form, TemplateArguments]]
    ) -> list[list[Rendering | None]]:
        """Each form under the template, as text and as parts.

        An engine passes no variables of demur's, so they are left out, except for the date.
        """
        known = self.renderer.options
        date = {name: known[name] for name in ("date_string",) if name in known}
        found = rendered(
            self.tokenizer,
            [
                (form.messages(parts), {**date, **options})
                for form, options in forms
                for parts in _PARTS
            ],
            self.template,
        )
        size = len(_PARTS)
        return [found[start : start + size] for start in range(0, len(found), size)]

    def _base(self, forms: Sequence[Form]) -> list[Rendering | None]:
        """Each form without its system messages under the model's own template."""
        found = rendered(
            self.tokenizer,
            [
                (form.messages(parts, systems=False), {**self.renderer.options, **form.options})
                for form in forms
                for parts in (0, 1)
            ],
            self.renderer.template,
        )
        return [
            max(
                (one for one in both if one is not None),
                key=lambda one: sum(text in one.text for text in form.other_texts),
                default=None,
            )
            for form, both in zip(forms, zip(found[::2], found[1::2], strict=True), strict=True)
        ]


def messages_of(turns: Turns, as_parts: bool = False) -> list[dict[str, Any]]:
    """Messages as engines send them: their content is text, or a list with one part."""
    return Form("messages", turns).messages(int(as_parts))


def rendered(
    tokenizer: Any,
    conversations: Sequence[tuple[Sequence[Mapping[str, Any]], TemplateArguments]],
    template: str,
) -> list[Rendering | None]:
    """Conversations under a template, each up to where the answer begins.

    Args:
        tokenizer: tokenizer of the model.
        conversations: messages of each, with the variables that it is rendered with.
        template: Jinja chat template, which runs in a process with limits.

    Returns:
        A rendering of each; None where the template fails.

    Raises:
        OutOfBounds: the template takes too long, or needs too much memory.
    """
    pinned = pin_clock(template)

    def render(
        messages: Sequence[Mapping[str, Any]], options: TemplateArguments
    ) -> tuple[str, list[int]] | None:
        try:
            text = tokenizer.apply_chat_template(
                messages,
                chat_template=pinned,
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
        return json.dumps([render(*each) for each in conversations])

    try:
        found = json.loads(bounded_text(work, "The model's chat template"))
    except OutOfBounds:
        raise
    except RuntimeError:
        return [None] * len(conversations)
    return [None if each is None else Rendering(*each) for each in found]
