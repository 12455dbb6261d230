"""Chat templates: which one a model gets, and the options it is rendered with.

A model's own template is used where it has one. Families that shipped without one, and the models
of the DRO paper (arXiv 2401.18018) whose shipped template renders other text than the paper's, get
one from `templates_data/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from demur.errors import DemurError, first_line
from demur.files import read_bytes, utf8_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateValue: TypeAlias = (
    "bool | int | float | str | Sequence[TemplateValue] | Mapping[str, TemplateValue] | None"
)
"""What a variable of a template may hold."""

TemplateArguments: TypeAlias = Mapping[str, TemplateValue]
"""Variables that a template is rendered with, by name."""

PINNED_DATE = "26 Jul 2024"
"""The day that templates which print today's date are given, so that runs can be repeated."""

# What each strftime code gives on the pinned date, at midnight. Written out: no locale, no clock.
_PINNED_CODES = {
    "%-d": "26",
    "%-m": "7",
    "%Y": "2024",
    "%y": "24",
    "%m": "07",
    "%d": "26",
    "%e": "26",
    "%j": "208",
    "%B": "July",
    "%b": "Jul",
    "%h": "Jul",
    "%A": "Friday",
    "%a": "Fri",
    "%F": "2024-07-26",
    "%H": "00",
    "%I": "12",
    "%M": "00",
    "%S": "00",
    "%p": "AM",
    "%T": "00:00:00",
}

# A macro hides the global function of the same name from the template that it stands before. The
# empty expression at its end keeps Jinja from eating a line break that the template begins with.
_PINNED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f' | replace("{code}", "{value}")' for code, value in _PINNED_CODES.items())
    + ' -}}{%- endmacro %}{{ "" }}'
)

# The names under which templates offer to answer without thinking first.
THINKING_SWITCHES: dict[str, bool | int] = {
    "enable_thinking": False,  # Qwen 3, GLM, SmolLM3, EXAONE, Nemotron
    "thinking": False,  # Granite, DeepSeek V3.1
    "reasoning": False,  # Command A Reasoning
    "thinking_budget": 0,  # Seed-OSS
}

MOST_TEMPLATE_BYTES = 1_000_000
"""Largest size of a file with a chat template."""

# A repackaged model keeps its name and gains such endings: "-GGUF", ".Q4_K_M.gguf", "-AWQ".
_REPACKAGED = r"(?:[-._](?:hf|gguf|gptq|awq|exl2|fp16|f16|f32|bf16|[if]?q\d\w*|\dbit))*"


@dataclass(frozen=True)
class Family:
    """Models that share a chat template of this package.

    Attributes:
        template: name of the template.
        names: pattern of the models' names. It must match a whole part of a name (parts: what `/`
            separates), so that neither another size or version nor a fine-tune gets a template that
            it was not trained with.
        always: whether they get it even where they ship a template, because that does not render
            the conversations of the DRO paper.
    """

    template: str
    names: str
    always: bool = False


# Llama 2 and Code Llama ship templates that render what the paper's models received. Vicuna and
# Orca 2 shipped none, but repackaged copies carry various; Mistral's later revisions put a space
# before [INST]; OpenChat's names a "GPT4 Correct System", which the model was not trained with.
FAMILIES = (
    Family("llama2", r"llama-2-(?:7b|13b|70b)-chat"),
    Family("llama2", r"codellama-(?:7b|13b|34b)-instruct"),
    Family("vicuna", r"vicuna-(?:7b|13b)-v1\.5", always=True),
    Family("chatml", r"orca-2-(?:7b|13b)", always=True),
    Family("mistral", r"mistral-7b-instruct-v0\.[12]", always=True),
    Family("openchat", r"openchat[-_]3\.5(?:-1210)?", always=True),
)


def read_template(file: str | Path) -> str:
    """The chat template in a file that the user gives.

    Raises:
        DemurError: the file cannot be read, or is no Jinja template in UTF-8.
    """
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = Path(file).expanduser()
    shown = f"The chat template {str(file)!r:.200}"
    text = utf8_text(read_bytes(path, MOST_TEMPLATE_BYTES), shown)
    if not text.strip():
        raise DemurError(f"{shown} is empty: give a Jinja chat template.")
    # transformers knows one tag of its own, which marks what the assistant says.
    plain = re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", text)
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        environment.parse(plain)
    except (TemplateSyntaxError, RecursionError) as error:
        raise DemurError(
            f"{shown} is no Jinja template ({first_line(error)}): correct it or give another."
        ) from error
    if "{{" not in text and "{%" not in text:
        raise DemurError(f"{shown} writes no message: give a Jinja chat template.")
    return text


def find_template(tokenizer: PreTrainedTokenizerBase, model_name: str = "") -> str:
    """The Jinja chat template for a model.

    Args:
        tokenizer: its `chat_template` is used unless a `Family` says otherwise.
        model_name: a hub name, folder or file; upper and lower case are the same.

    Raises:
        DemurError: the tokenizer has no template and the name is of no family.
    """
    shipped = tokenizer.chat_template
    if isinstance(shipped, dict):
        shipped = shipped.get("default")
    return choose_template(shipped or None, model_name)


def choose_template(shipped: str | None, model_name: str) -> str:
    """The Jinja chat template for a model that ships one, or none.

    Raises:
        DemurError: it ships none and its name is of no family.
    """
    # A folder of the hub's cache reads "models--owner--name".
    parts = re.split(r"[/\\]|--", model_name.lower())
    for family in FAMILIES:
        named = any(re.fullmatch(family.names + _REPACKAGED, part) for part in parts)
        if named and (family.always or not shipped):
            return _read_template(family.template)
    if shipped:
        return str(shipped)
    raise DemurError(
        f"{model_name or 'The model'} comes without a chat template, as base models do: give one"
        " with --chat-template FILE, or use a chat model."
    )


def with_ending(template: str, ending: str) -> str:
    """The template, with a text at the end of what it writes before an answer."""
    if not ending:
        return template
    # Jinja drops a last line break, which would stand in the middle here.
    text = json.dumps(ending, ensure_ascii=False)
    return template.removesuffix("\n") + f'{{{{ {text} if add_generation_prompt else "" }}}}'


def pin_clock(template: str) -> str:
    """The template with `strftime_now` fixed to `PINNED_DATE`, where it is used at all."""
    return _PINNED_CLOCK + template if "strftime_now" in template else template


def template_options(template: str) -> dict[str, TemplateValue]:
    """The variables a template is rendered with: no thinking where it offers that, a fixed date.

    Only switches whose names occur in the template are passed. Where thinking has an effort, it is
    "none" in templates that know that word, otherwise "low" (gpt-oss cannot be told not to think).
    """
    options: dict[str, TemplateValue] = {
        name: value
        for name, value in THINKING_SWITCHES.items()
        if re.search(rf"\b{name}\b", template)
    }
    if "reasoning_effort" in template:
        knows_none = re.search(r"""(["'])none\1""", template)
        options["reasoning_effort"] = "none" if knows_none else "low"
    if "date_string" in template:
        options["date_string"] = PINNED_DATE
    return options


@lru_cache
def _read_template(name: str) -> str:
    folder = resources.files("demur.chat") / "templates_data"
    return (folder / f"{name}.jinja").read_text(encoding="utf-8")
