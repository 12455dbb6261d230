"""Chat templates that open every conversation with safety tokens, and lose no system text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from demur.chat.templates import TemplateArguments

# The messages as demur reads them: the text of all system messages by itself, and the text of every
# other message in one piece. Engines send texts as parts too, of which many templates read the
# first one only, and several system messages, of which some templates keep the last.
#
# Engines take the name of a token for the token wherever it stands in the rendered text. So in a
# message, what all names have in common is replaced. Of such a message only the content is kept,
# without images and the like that hold a name.
# Its parts are looked at together, because a template may join them.
_PLAIN_MESSAGES = """\
{%- set safety_plain = namespace(system=[], messages=[], text="", others=[], kept={}, \
place=none) -%}
{%- for message in messages -%}
{%- set safety_plain.text = "" -%}
{%- set safety_plain.others = [] -%}
{%- if message["content"] is string -%}
{%- set safety_plain.text = message["content"] -%}
{%- else -%}
{%- for part in ([message["content"]] if message["content"] is mapping \
else message["content"] or []) -%}
{%- if part is string -%}
{%- set safety_plain.text = safety_plain.text + part -%}
{%- elif part["type"] in ["text", "input_text", "output_text"] \
or (part["type"] is not defined and part["text"] is string) -%}
{%- set safety_plain.text = safety_plain.text + part["text"] -%}
{%- elif message["role"] in ["system", "developer"] -%}
{{- raise_exception("A system message holds other things than text.") -}}
{%- elif safety_mark not in (part | tojson) -%}
{%- set safety_plain.others = safety_plain.others + [part] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set safety_named = safety_mark in safety_plain.text or safety_mark in (message | tojson) -%}
{%- set safety_plain.text = safety_plain.text.split(safety_mark) | join("safety ") -%}
{%- set safety_plain.kept = {"role": message["role"]} if safety_named else message -%}
{%- if message["role"] in ["system", "developer"] -%}
{%- if safety_plain.text | trim -%}
{%- set safety_plain.system = safety_plain.system + [safety_plain.text | trim] -%}
{%- endif -%}
{%- elif message["role"] != "user" and not safety_named \
and (message["content"] is not defined or message["content"] is none) -%}
{%- set safety_plain.messages = safety_plain.messages + [message] -%}
{%- elif safety_plain.others -%}
{%- set safety_plain.messages = safety_plain.messages + [dict(safety_plain.kept, \
content=safety_plain.others + [{"type": "text", "text": safety_plain.text}])] -%}
{%- else -%}
{%- set safety_plain.messages = safety_plain.messages \
+ [dict(safety_plain.kept, content=AS_CONTENT(safety_plain.text))] -%}
{%- endif -%}
{%- endfor -%}
{%- set safety_whole = ([safety_tokens] + safety_plain.system) | join("\\n\\n") -%}
"""

_SYSTEM_ROLE = """\
{%- set messages = [{"role": "system", "content": AS_CONTENT(safety_whole)}] \
+ safety_plain.messages -%}
"""

# The place of the user's message that opens with the safety prompt; none where there is none.
# llama.cpp reads no negative numbers here.
_FIRST_MESSAGE = """\
{%- if safety_plain.messages and safety_plain.messages[0]["role"] == "user" -%}
{%- set safety_plain.place = 0 -%}
{%- endif -%}
"""
_LAST_MESSAGE = """\
{%- for message in safety_plain.messages -%}
{%- if message["role"] == "user" -%}
{%- set safety_plain.place = loop.index0 -%}
{%- endif -%}
{%- endfor -%}
"""

_USER_ROLE = """\
{%- set messages = safety_plain.messages -%}
{%- if safety_plain.place is not none -%}
{%- set safety_user = messages[safety_plain.place] -%}
{%- set safety_text = safety_user["content"] -%}
{%- if safety_text is string -%}
{%- set safety_content = AS_CONTENT(safety_whole + "\\n\\n" + safety_text) -%}
{%- elif safety_text | length == 1 and safety_text[0]["type"] == "text" -%}
{%- set safety_content = \
[{"type": "text", "text": safety_whole + "\\n\\n" + safety_text[0]["text"]}] -%}
{%- else -%}
{%- set safety_content = [{"type": "text", "text": safety_whole + "\\n\\n"}] + safety_text -%}
{%- endif -%}
{%- set messages = messages[:safety_plain.place] \
+ [dict(safety_user, content=safety_content)] + messages[safety_plain.place + 1:] -%}
{%- else -%}
{%- set messages = [{"role": "user", "content": AS_CONTENT(safety_whole)}] + messages -%}
{%- endif -%}
"""

# Whatever an engine sends, the conversation either opens as it should or is refused. The line break
# is eaten, and lets the template begin at the start of a line; the empty expression keeps the white
# space that it ends with.
_GUARDED = """\
{%- set safety_rendered %}
TEMPLATE{{ "" }}{%- endset -%}
{%- if safety_whole not in safety_rendered -%}
{{- raise_exception("The chat template loses the safety prompt or a system message.") -}}
{%- endif -%}
{{- safety_rendered -}}
"""


Place = Literal["system message", "first message", "last message"]
"""The message that the safety tokens open. Some templates put a system message into the user's last
message, and lose it where the result of a tool follows that."""


@dataclass(frozen=True)
class Way:
    """One way to put the safety tokens in front of what a template renders.

    Attributes:
        place: the message that they open: the system's, or the user's first or last one.
        as_parts: whether the template takes the content of messages as parts.
    """

    place: Place
    as_parts: bool

    def template(self, template: str, names: Sequence[str], mark: str, switches: str) -> str:
        """The template with this in front of it.

        Args:
            template: Jinja chat template of a model.
            names: names of the safety tokens.
            mark: what the names have in common, and no other text has.
            switches: assignments of the variables that demur sets.
        """
        tokens = f"{{%- set safety_tokens = {json.dumps(''.join(names))} -%}}\n"
        tokens += f"{{%- set safety_mark = {json.dumps(mark)} -%}}\n"
        content = r'[{"type": "text", "text": \1}]' if self.as_parts else r"\1"
        rewriting = _REWRITINGS[self.place]
        messages = re.sub(r"AS_CONTENT\((.*?)\)", content, _PLAIN_MESSAGES + rewriting)
        # Jinja drops the last line break of a template, which would stand in the middle here.
        guarded = _GUARDED.replace("TEMPLATE", template.removesuffix("\n"))
        return tokens + switches + messages + guarded


_REWRITINGS: Mapping[Place, str] = {
    "system message": _SYSTEM_ROLE,
    "first message": _FIRST_MESSAGE + _USER_ROLE,
    "last message": _LAST_MESSAGE + _USER_ROLE,
}

WAYS = tuple(Way(*each) for each in product(_REWRITINGS, (False, True)))
"""All ways, the preferred ones first."""


def switches(options: TemplateArguments, may_think: bool) -> str:
    """Assignments that turn thinking off: by default, or whatever an engine says."""
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


def _jinja(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else json.dumps(value)
