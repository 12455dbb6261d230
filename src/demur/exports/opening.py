"""Safety tokens, and chat templates that open every conversation with them."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tokenizers import AddedToken

from demur.chat import ChatModel
from demur.chat.templates import TemplateArguments
from demur.errors import DemurError
from demur.exports.template_check import TemplateCheck
from demur.prompts import SafetyPrompt

# The empty expression keeps Jinja from eating white space that a template begins with.
_END = '{{ "" }}'

# The messages as demur reads them: the text of all system messages by itself, and the text of every
# other message in one piece. Engines send texts as parts too, of which many templates read the
# first one only, and several system messages, of which some templates keep the last.
#
# Engines take the name of a token for the token wherever it stands in the rendered text. So in a
# message, what all names have in common is replaced. Of such a message only the content is kept.
# Its parts are looked at together, because a template may join them.
_PLAIN_MESSAGES = """\
{%- set safety_plain = namespace(system=[], messages=[], text="", others=[]) -%}
{%- for message in messages -%}
{%- set safety_plain.text = "" -%}
{%- set safety_plain.others = [] -%}
{%- if message["content"] is string -%}
{%- set safety_plain.text = message["content"] -%}
{%- else -%}
{%- for part in message["content"] or [] -%}
{%- if part["type"] == "text" -%}
{%- set safety_plain.text = safety_plain.text + part["text"] -%}
{%- else -%}
{%- set safety_plain.others = safety_plain.others + [part] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set safety_named = safety_mark in safety_plain.text or safety_mark in (message | tojson) -%}
{%- set safety_plain.text = safety_plain.text.split(safety_mark) | join("safety ") -%}
{%- if message["role"] in ["system", "developer"] -%}
{%- if safety_plain.text | trim -%}
{%- set safety_plain.system = safety_plain.system + [safety_plain.text | trim] -%}
{%- endif -%}
{%- elif not safety_named and (safety_plain.others or message | length > 2 and \
message["role"] != "user") -%}
{%- set safety_plain.messages = safety_plain.messages + [message] -%}
{%- elif safety_plain.others -%}
{%- set safety_plain.messages = safety_plain.messages + [{"role": message["role"], \
"content": safety_plain.others + [{"type": "text", "text": safety_plain.text}]}] -%}
{%- else -%}
{%- set safety_plain.messages = safety_plain.messages \
+ [{"role": message["role"], "content": AS_CONTENT(safety_plain.text)}] -%}
{%- endif -%}
{%- endfor -%}
{%- set safety_content = ([safety_tokens] + safety_plain.system) | join("\\n\\n") -%}
"""

_SYSTEM_ROLE = """\
{%- set messages = [{"role": "system", "content": AS_CONTENT(safety_content)}] \
+ safety_plain.messages -%}
"""

_NO_SYSTEM_ROLE = """\
{%- set messages = safety_plain.messages -%}
{%- if messages and messages[0]["role"] == "user" -%}
{%- set safety_first = messages[0]["content"] -%}
{%- if safety_first is string -%}
{%- set safety_content = AS_CONTENT(safety_content + "\\n\\n" + safety_first) -%}
{%- elif safety_first | length == 1 and safety_first[0]["type"] == "text" -%}
{%- set safety_content = \
[{"type": "text", "text": safety_content + "\\n\\n" + safety_first[0]["text"]}] -%}
{%- else -%}
{%- set safety_content = [{"type": "text", "text": safety_content + "\\n\\n"}] + safety_first -%}
{%- endif -%}
{%- set messages = [{"role": "user", "content": safety_content}] + messages[1:] -%}
{%- else -%}
{%- set messages = [{"role": "user", "content": AS_CONTENT(safety_content)}] + messages -%}
{%- endif -%}
"""


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


def make_opening(model: ChatModel, prompt: SafetyPrompt, *, may_think: bool = True) -> Opening:
    """Add the safety tokens to a copy of the tokenizer and write the template.

    The template is tried on all forms of a conversation that engines send: texts and parts, with
    and without system messages of an application, one or several of them, in front or later. The
    token ids must be those that demur itself uses. A text that writes the name of a safety token
    must not become the token.

    Args:
        model: base model.
        prompt: trained safety prompt.
        may_think: whether an engine may turn on the thinking that the template leaves out by
            default. llama.cpp does that by itself.

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
    switches = _switches(model.renderer.options, may_think)
    for rewriting, as_parts in product((_SYSTEM_ROLE, _NO_SYSTEM_ROLE), (False, True)):
        switches = _switches(model.renderer.options, may_think)
        template = _template(
            model, names, _mark(prompt), switches + _rewritten(rewriting, as_parts)
        )
        check = TemplateCheck(model, prompt, tokenizer, template, ids)
        if check.gives_the_same_ids():
            check.require_whole_conversations()
            check.require_no_more(names)
            tokenizer.chat_template = template
            return Opening(tokenizer, ids[0], rewriting is _SYSTEM_ROLE)
    raise DemurError(
        f"The chat template of {model.name} does not let another message stand in front exactly: "
        "export to peft instead."
    )


def _template(model: ChatModel, names: Sequence[str], mark: str, before: str) -> str:
    opening = f"{{%- set safety_tokens = {json.dumps(''.join(names))} -%}}\n"
    opening += f"{{%- set safety_mark = {json.dumps(mark)} -%}}\n"
    return opening + before + _END + model.renderer.template


def _switches(options: TemplateArguments, may_think: bool) -> str:
    """What turns thinking off: by default, or whatever an engine says."""
    assignments = [
        (name, f"{{%- set {name} = {_jinja(value)} -%}}")
        for name, value in options.items()
        if name != "date_string"
    ]
    if may_think:
        return "".join(
            f"{{%- if {name} is not defined -%}}{each}{{%- endif -%}}" for name, each in assignments
        )
    return "".join(each for _, each in assignments)


def _rewritten(rewriting: str, as_parts: bool) -> str:
    """The messages as the model's template takes them."""
    content = r'[{"type": "text", "text": \1}]' if as_parts else r"\1"
    return re.sub(r"AS_CONTENT\((.*?)\)", content, _PLAIN_MESSAGES + rewriting)


def _jinja(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else json.dumps(value)
