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
    assert prompt.embeddings is not None
    digest = hashlib.sha256(prompt.embeddings.numpy().tobytes()).hexdigest()[:8]
    return [f"<|safety-{digest}-{row}|>" for row in range(prompt.rows)]


def make_opening(model: ChatModel, prompt: SafetyPrompt) -> Opening:
    """Add the safety tokens to a copy of the tokenizer and write the template.

    The template is tried on conversations with and without an application's own system message:
    the token ids must be those that demur itself uses.

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
        template = _template(model, "".join(names), rewriting)
        if _gives_the_same_ids(model, prompt, tokenizer, template, ids):
            tokenizer.chat_template = template
            return Opening(tokenizer, ids[0], rewriting is _SYSTEM_ROLE)
    raise DemurError(
        f"The chat template of {model.name} does not let another message stand in front exactly: "
        "export to peft instead."
    )


def _template(model: ChatModel, tokens: str, rewriting: str) -> str:
    switches = "".join(
        f"{{%- if {name} is not defined -%}}{{%- set {name} = {_jinja(value)} -%}}{{%- endif -%}}"
        for name, value in model.renderer.options.items()
        if name != "date_string"
    )
    opening = f"{{%- set safety_tokens = {json.dumps(tokens)} -%}}\n"
    return opening + switches + rewriting + _END + model.renderer.template


def _jinja(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else json.dumps(value)


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
