"""Safety tokens, and chat templates that open every conversation with them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken

from demur.chat import ChatModel
from demur.chat.templates import pin_clock
from demur.errors import DemurError
from demur.prompts import SafetyPrompt

# The empty expression keeps Jinja from eating white space that a template begins with.
_END = '{{ "" }}'

# Engines take the name of a token for the token wherever it stands in the rendered text. So in a
# message, what all names have in common is replaced. Of such a message only the content is kept.
# Its parts are looked at together, because a template may join them.
_PLAIN_MESSAGES = """\
{%- set safety_plain = namespace(messages=[], text="", others=[]) -%}
{%- for message in messages -%}
{%- if message["content"] is string -%}
{%- set safety_plain.text = message["content"] -%}
{%- set safety_plain.others = [] -%}
{%- else -%}
{%- set safety_plain.text = "" -%}
{%- set safety_plain.others = [] -%}
{%- for part in message["content"] or [] -%}
{%- if part["type"] == "text" -%}
{%- set safety_plain.text = safety_plain.text + part["text"] -%}
{%- else -%}
{%- set safety_plain.others = safety_plain.others + [part] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if safety_mark in safety_plain.text or safety_mark in (message | tojson) -%}
{%- set safety_plain.text = safety_plain.text.split(safety_mark) | join("safety ") -%}
{%- if message["content"] is string -%}
{%- set safety_plain.messages = safety_plain.messages \
+ [{"role": message["role"], "content": safety_plain.text}] -%}
{%- else -%}
{%- set safety_plain.messages = safety_plain.messages + [{"role": message["role"], \
"content": safety_plain.others + [{"type": "text", "text": safety_plain.text}]}] -%}
{%- endif -%}
{%- else -%}
{%- set safety_plain.messages = safety_plain.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = safety_plain.messages -%}
"""

_SYSTEM_ROLE = """\
{%- if messages and messages[0]["role"] in ["system", "developer"] -%}
{%- if messages[0]["content"] is string -%}
{%- set safety_content = safety_tokens + "\\n\\n" + (messages[0]["content"] | trim) -%}
{%- else -%}
{%- set safety_content = [{"type": "text", "text": safety_tokens + "\\n\\n"}] \
+ messages[0]["content"] -%}
{%- endif -%}
{%- set messages = [{"role": "system", "content": safety_content}] + messages[1:] -%}
{%- else -%}
{%- set messages = [{"role": "system", "content": safety_tokens}] + messages -%}
{%- endif -%}
"""

_NO_SYSTEM_ROLE = """\
{%- set safety_content = safety_tokens -%}
{%- if messages and messages[0]["role"] in ["system", "developer"] -%}
{%- set safety_content = safety_tokens + "\\n\\n" + (messages[0]["content"] | trim) -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{%- if messages -%}
{%- if messages[0]["content"] is string -%}
{%- set safety_content = safety_content + "\\n\\n" + messages[0]["content"] -%}
{%- else -%}
{%- set safety_content = [{"type": "text", "text": safety_content + "\\n\\n"}] \
+ messages[0]["content"] -%}
{%- endif -%}
{%- set messages = [{"role": "user", "content": safety_content}] + messages[1:] -%}
{%- endif -%}
"""

_QUERIES = ("How do I kill a process?", "Name a tree.", "1 + 1 = ?")
_SYSTEM_PROMPT = "You work for a bakery.\nAnswer in one sentence."


@dataclass(frozen=True)
class Opening:
    """The safety tokens in a tokenizer of their own, with a template that opens with them.

    Attributes:
        tokenizer: a copy of the model's, with the tokens and the template.
        first_id: the first token's id; the others follow it.
        system_role: whether the model's own template has a system message.
    """

    tokenizer: Any
    first_id: int
    system_role: bool


def safety_token_names(prompt: SafetyPrompt) -> list[str]:
    """A name for each row of a trained prompt; other prompts' tokens have other names."""
    return [f"<|{_mark(prompt)}{row}|>" for row in range(prompt.rows)]


def _mark(prompt: SafetyPrompt) -> str:
    """What the names of all safety tokens of a prompt have in common, and nothing else has."""
    assert prompt.embeddings is not None
    digest = hashlib.sha256(prompt.embeddings.numpy().tobytes()).hexdigest()[:8]
    return f"safety-{digest}-"


def make_opening(model: ChatModel, prompt: SafetyPrompt) -> Opening:
    """Add the safety tokens to a copy of the tokenizer and write the template.

    The template is tried on conversations with and without an application's own system message:
    the token ids must be those that demur itself uses. A text that writes the name of a safety
    token must not become the token.

    Raises:
        DemurError: the tokenizer's ids have a gap, or no template gives the same ids.
    """
    tokenizer: Any = copy.deepcopy(model.engine.tokenizer)
    names = safety_token_names(prompt)
    tokenizer.add_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True
    )
    ids = tokenizer.convert_tokens_to_ids(names)
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise DemurError(
            f"The tokenizer of {model.name} gives new tokens no ids in a row: "
            "export to peft instead."
        )
    for rewriting in (_SYSTEM_ROLE, _NO_SYSTEM_ROLE):
        template = _template(model, names, _mark(prompt), rewriting)
        if _gives_the_same_ids(model, prompt, tokenizer, template, ids):
            _require_no_more(model, tokenizer, template, names, ids)
            tokenizer.chat_template = template
            return Opening(tokenizer, ids[0], rewriting is _SYSTEM_ROLE)
    raise DemurError(
        f"The chat template of {model.name} does not let another message stand in front exactly: "
        "export to peft instead."
    )


def _template(model: ChatModel, names: Sequence[str], mark: str, rewriting: str) -> str:
    switches = "".join(
        f"{{%- if {name} is not defined -%}}{{%- set {name} = {_jinja(value)} -%}}{{%- endif -%}}"
        for name, value in model.renderer.options.items()
        if name != "date_string"
    )
    opening = f"{{%- set safety_tokens = {json.dumps(''.join(names))} -%}}\n"
    opening += f"{{%- set safety_mark = {json.dumps(mark)} -%}}\n"
    return opening + switches + _PLAIN_MESSAGES + rewriting + _END + model.renderer.template


def _jinja(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else json.dumps(value)


def _require_no_more(
    model: ChatModel, tokenizer: Any, template: str, names: Sequence[str], ids: Sequence[int]
) -> None:
    """Check that a text with the names of the tokens adds none of them.

    Raises:
        DemurError: it does.
    """
    text = "".join(names)
    for system in (None, f"{_SYSTEM_PROMPT} {names[0]}"):
        messages = [{"role": "user", "content": f"{text} {_QUERIES[0]} {names[-1]}"}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        found = tokenizer.apply_chat_template(
            messages,
            chat_template=pin_clock(template),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **model.renderer.options,
        )
        if [one for one in found if one in set(ids)] != list(ids):
            raise DemurError(
                f"The chat template of {model.name} lets a user write safety tokens: export to "
                "peft instead."
            )


def _gives_the_same_ids(
    model: ChatModel, prompt: SafetyPrompt, tokenizer: Any, template: str, ids: Sequence[int]
) -> bool:
    for query in _QUERIES:
        for system_prompt in (None, _SYSTEM_PROMPT):
            conversation = model.renderer.render(
                query, prompt.text, system_prompt, prompt_rows=prompt.rows
            )
            assert conversation.prompt_span is not None
            start, end = conversation.prompt_span
            wanted = [*conversation.token_ids[:start], *ids, *conversation.token_ids[end:]]
            messages = [{"role": "user", "content": query}]
            if system_prompt is not None:
                messages.insert(0, {"role": "system", "content": system_prompt})
            try:
                found = tokenizer.apply_chat_template(
                    messages,
                    chat_template=pin_clock(template),
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=False,
                    **model.renderer.options,
                )
            except Exception:  # a template may fail in any way
                return False
            if list(found) != wanted:
                return False
    return True
