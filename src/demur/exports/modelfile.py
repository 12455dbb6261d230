"""A Modelfile for Ollama, whose templates are written in Go's language.

The template is made from what the model's own one renders around the messages of a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import DemurError

_MARKS = [f"\ue0d0{place}\ue0d1" for place in range(5)]


@dataclass(frozen=True)
class Layout:
    """The text that a template writes around messages.

    Attributes:
        opening: text before the first user message, without a system message.
        before_system: text before the application's own system message.
        after_system: text between the system message and the first user message.
        after_user: text between a user message and the answer.
        after_assistant: text between an answer and the next user message.
    """

    opening: str
    before_system: str
    after_system: str
    after_user: str
    after_assistant: str

    @classmethod
    def of(cls, tokenizer: Any, name: str) -> Layout:
        """The layout of a tokenizer's chat template.

        Raises:
            DemurError: the template treats later turns differently from the first.
        """
        system, first, answer, second, last = _MARKS
        turns = [("user", first), ("assistant", answer), ("user", second)]
        plain = _split(tokenizer, turns, [first, answer, second])
        longer = _split(
            tokenizer,
            [("system", system), *turns, ("assistant", answer + last), ("user", last)],
            [system, first, answer, second, answer + last, last],
        )
        layout = cls(plain[0], longer[0], longer[1], plain[1], plain[2])
        again = [*longer[2:6:2], longer[6], longer[3], longer[5]]
        wanted = [layout.after_user] * 3 + [layout.after_assistant] * 2
        if again != wanted or plain[3] != layout.after_user:
            raise DemurError(
                f"The chat template of {name} treats later turns differently from the first, which "
                "a Modelfile cannot say: export to gguf instead."
            )
        return layout

    def render(self, turns: Sequence[tuple[str, str]], system: str | None = None) -> str:
        """A conversation of user and assistant turns as the Go template renders it."""
        text = self.opening
        if system is not None:
            text = self.before_system + system + self.after_system
        seen = False
        for role, content in turns:
            if role == "user":
                text += (self.after_assistant if seen else "") + content + self.after_user
                seen = True
            else:
                text += content
        return text


def modelfile(file_name: str, tokenizer: Any, name: str) -> str:
    """The Modelfile for an exported GGUF file.

    Args:
        file_name: name of the GGUF file beside it.
        tokenizer: tokenizer with the template that opens with the safety tokens.
        name: name of the model, for messages.

    Raises:
        DemurError: a Modelfile cannot say what the template does.
    """
    layout = Layout.of(tokenizer, name)
    parts = [layout.opening, layout.before_system, layout.after_system, layout.after_user]
    if any(mark in part for part in [*parts, layout.after_assistant] for mark in ("{{", '"""')):
        raise DemurError(f"The chat template of {name} cannot be quoted: export to gguf instead.")
    template = (
        f"{{{{ if .System }}}}{layout.before_system}{{{{ .System }}}}{layout.after_system}"
        f"{{{{ else }}}}{layout.opening}{{{{ end }}}}"
        "{{ $seen := false }}{{ range .Messages }}"
        f'{{{{ if eq .Role "user" }}}}{{{{ if $seen }}}}{layout.after_assistant}{{{{ end }}}}'
        f"{{{{ .Content }}}}{layout.after_user}{{{{ $seen = true }}}}"
        '{{ else if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}'
    )
    lines = [f"FROM ./{file_name}", f'TEMPLATE """{template}"""']
    if tokenizer.eos_token:
        lines.append(f"PARAMETER stop {json.dumps(tokenizer.eos_token, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _split(tokenizer: Any, turns: Sequence[tuple[str, str]], marks: Sequence[str]) -> list[str]:
    messages = [{"role": role, "content": text} for role, text in turns]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    parts = []
    for mark in marks:
        part, _, text = text.partition(mark)
        parts.append(part)
    return [*parts, text]
