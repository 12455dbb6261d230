"""A Modelfile for Ollama, whose templates are written in Go's language.

The template is made from what the model's own one renders around the messages of a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from demur.chat.templates import TemplateArguments
from demur.errors import DemurError
from demur.exports.template_check import Rendering, messages_of, rendered

_MARKS = [f"\ue0d0{place}\ue0d1" for place in range(5)]


@dataclass(frozen=True)
class Layout:
    """The text that a template writes around messages.

    Attributes:
        opening: text before the first user message, without a system message.
        opening_answer: the same where an answer comes first; where the template takes none there,
            it ends an empty user message.
        before_system: text before the application's own system message.
        after_system: text between the system message and the first user message.
        after_system_answer: text between the system message and an answer that comes first.
        after_user: text between a user message and the answer that was given to it.
        after_assistant: text between an answer and the next user message.
        before_answer: text between the last user message and the answer to come, where a template
            may end a reasoning that earlier answers do not have.
    """

    opening: str
    before_system: str
    after_system: str
    after_user: str
    after_assistant: str
    before_answer: str
    opening_answer: str
    after_system_answer: str

    @classmethod
    def of(cls, tokenizer: Any, name: str, options: TemplateArguments) -> Layout:
        """The layout of a tokenizer's chat template.

        Args:
            tokenizer: tokenizer with the template.
            name: name of the model, for messages.
            options: variables that the template is rendered with.

        Raises:
            DemurError: the template treats later turns differently from the first.
        """
        system, first, answer, second, last = _MARKS
        turns = [("user", first), ("assistant", answer), ("user", second)]
        more = [("system", system), *turns, ("assistant", answer + last), ("user", last)]
        begun = [("assistant", answer), ("user", first)]
        conversations = [turns, more, begun, [("system", system), *begun]]
        found = rendered(
            tokenizer,
            [(messages_of(one), options) for one in conversations],
            tokenizer.chat_template,
        )
        plain = _split(found[0], [first, answer, second])
        longer = _split(found[1], [system, first, answer, second, answer + last, last])
        if plain is None or longer is None:
            raise DemurError(
                f"The chat template of {name} does not render a conversation of several turns: "
                "export to gguf instead."
            )
        # Ollama cuts a long conversation at its front, so any may begin with an answer.
        begins = [f"{before}{plain[1]}" for before in (plain[0], longer[1])]
        layout = cls(plain[0], longer[0], longer[1], plain[1], plain[2], plain[3], *begins)
        layout = layout._with_answer_first(
            _split(found[2], [answer, first]), _split(found[3], [system, answer, first])
        )
        again = [longer[2], longer[4], longer[3], longer[5], longer[6]]
        wanted = [layout.after_user] * 2 + [layout.after_assistant] * 2 + [layout.before_answer]
        if again != wanted:
            raise DemurError(
                f"The chat template of {name} treats later turns differently from the first, which "
                "a Modelfile cannot say: export to gguf instead."
            )
        return layout

    def render(self, turns: Sequence[tuple[str, str]], system: str | None = None) -> str:
        """A conversation of user and assistant turns as the Go template renders it."""
        answered = turns[0][0] == "assistant"
        opening = self.opening_answer if answered else self.opening
        after = self.after_system_answer if answered else self.after_system
        text = opening if system is None else f"{self.before_system}{system}{after}"
        users = [place for place, (role, _) in enumerate(turns) if role == "user"]
        for place, (role, content) in enumerate(turns):
            if role == "user":
                end = self.before_answer if place == users[-1] else self.after_user
                text += (self.after_assistant if place else "") + content + end
            else:
                text += content
        return text

    def _with_answer_first(self, plain: list[str] | None, longer: list[str] | None) -> Layout:
        """The layout with what comes before an answer in the first place, where that is regular."""
        if plain is None or longer is None:
            return self
        regular = (
            plain[1:] == [self.after_assistant, self.before_answer]
            and longer[2:] == [self.after_assistant, self.before_answer]
            and longer[0] == self.before_system
        )
        if not regular:
            return self
        return replace(self, opening_answer=plain[0], after_system_answer=longer[1])


def modelfile(
    file_name: str,
    tokenizer: Any,
    name: str,
    options: TemplateArguments | None = None,
    ends: Collection[int] = (),
) -> str:
    """The Modelfile for an exported GGUF file.

    Args:
        file_name: name of the GGUF file beside it.
        tokenizer: tokenizer with the template that opens with the safety tokens.
        name: name of the model, for messages.
        options: variables that the template is rendered with; none by default.
        ends: ids of tokens that end an answer, beside the tokenizer's own.

    Raises:
        DemurError: a Modelfile cannot say what the template does.
    """
    layout = Layout.of(tokenizer, name, options or {})
    if any(mark in part for part in vars(layout).values() for mark in ("{{", '"""')):
        raise DemurError(f"The chat template of {name} cannot be quoted: export to gguf instead.")
    template = _go_template(layout)
    lines = [f"FROM ./{file_name}", f'TEMPLATE """{template}"""']
    stops = [tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(sorted(ends))]
    # What stands before the first query stays when a long conversation is cut in its middle.
    kept = len(tokenizer(layout.opening, add_special_tokens=False)["input_ids"])
    lines.append(f"PARAMETER num_keep {kept}")
    lines += [
        f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}"
        for stop in dict.fromkeys(stops)
        if stop
    ]
    return "\n".join(lines) + "\n"


def _go_template(layout: Layout) -> str:
    """The layout in Ollama's language, whose `.System` leaves out developer messages."""
    return (
        '{{ $system := "" }}{{ range .Messages }}'
        '{{ if and .Content (or (eq .Role "system") (eq .Role "developer")) }}'
        '{{ if $system }}{{ $system = printf "%s\\n\\n%s" $system .Content }}'
        "{{ else }}{{ $system = .Content }}{{ end }}{{ end }}{{ end }}"
        '{{ $first := "" }}{{ $last := -1 }}{{ range $i, $m := .Messages }}'
        '{{ if eq $m.Role "user" }}{{ $last = $i }}{{ end }}'
        '{{ if and (eq $first "") (or (eq $m.Role "user") (eq $m.Role "assistant")) }}'
        "{{ $first = $m.Role }}{{ end }}{{ end }}"
        '{{ $seen := eq $first "assistant" }}'
        f"{{{{ if $system }}}}{layout.before_system}{{{{ $system }}}}"
        f"{{{{ if $seen }}}}{layout.after_system_answer}"
        f"{{{{ else }}}}{layout.after_system}{{{{ end }}}}"
        f"{{{{ else if $seen }}}}{layout.opening_answer}{{{{ else }}}}{layout.opening}{{{{ end }}}}"
        "{{ range $i, $m := .Messages }}"
        f'{{{{ if eq $m.Role "user" }}}}{{{{ if $seen }}}}{layout.after_assistant}{{{{ end }}}}'
        f"{{{{ $m.Content }}}}{{{{ if eq $i $last }}}}{layout.before_answer}"
        f"{{{{ else }}}}{layout.after_user}{{{{ end }}}}{{{{ $seen = true }}}}"
        '{{ else if eq $m.Role "assistant" }}{{ $m.Content }}{{ end }}{{ end }}'
        # A system message alone has an empty query behind it, which the model must not write.
        f'{{{{ if eq $first "" }}}}{layout.before_answer}{{{{ end }}}}'
    )


def _split(rendering: Rendering | None, marks: Sequence[str]) -> list[str] | None:
    """The text around marks; None where one is missing."""
    if rendering is None:
        return None
    text, parts = rendering.text, []
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found:
            return None
        parts.append(part)
    return [*parts, text]
