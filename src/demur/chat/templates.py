"""Chat templates: which one a model gets, and the options it is rendered with.

A model's own template is used where it has one. Families that shipped without one, and the models
of the DRO paper (arXiv 2401.18018) whose shipped template renders other text than the paper's, get
one from `templates_data/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

from demur.errors import DemurError

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
_THINKING_SWITCHES: dict[str, bool | int] = {
    "enable_thinking": False,  # Qwen 3, GLM, SmolLM3, EXAONE, Nemotron
    "thinking": False,  # Granite, DeepSeek V3.1
    "reasoning": False,  # Command A Reasoning
    "thinking_budget": 0,  # Seed-OSS
}

# A repackaged model keeps its name and gains such endings: "-GGUF", ".Q4_K_M.gguf", "-AWQ".
_REPACKAGED = r"(?:[-._](?:hf|gguf|gptq|awq|exl2|fp16|f16|f32|bf16|[if]?q\d\w*|\dbit))*"


@dataclass(frozen=True)
class Family:
    """Models that share a chat template of this package.

    `matches` is searched for in the model's name: such a model gets `template` where its tokenizer
    ships none. `prefer` lists the models whose shipped templates, where they have one, do not
    render the conversations of the DRO paper: those get `template` always. It must match a whole
    part of the name (parts: what `/` separates), so that a fine-tune with a longer name keeps
    the template it was trained with.
    """

    template: str
    matches: str
    prefer: str | None = None


# Llama 2 and Code Llama ship templates that render what the paper's models received. Vicuna and
# Orca 2 shipped none, but repackaged copies carry various; Mistral's later revisions put a space
# before [INST]; OpenChat's names a "GPT4 Correct System", which the model was not trained with.
FAMILIES = (
    Family("llama2", r"llama-?_?2.*chat|code-?_?llama.*instruct"),
    Family("vicuna", r"vicuna", prefer=r"vicuna-(?:7b|13b)-v1\.5"),
    Family("chatml", r"orca[-_]?2", prefer=r"orca-2-(?:7b|13b)"),
    Family("mistral", r"mi[sx]tral.*instruct", prefer=r"mistral-7b-instruct-v0\.[12]"),
    Family("openchat", r"openchat", prefer=r"openchat[-_]3\.5(?:-1210)?"),
)


def find_template(tokenizer: PreTrainedTokenizerBase, model_name: str = "") -> str:
    """The Jinja chat template for a model.

    Args:
        tokenizer: its `chat_template` is used unless a `Family` says otherwise.
        model_name: a hub name, folder or file; upper and lower case are the same.

    Raises:
        DemurError: the tokenizer has no template and the name tells no known family.
    """
    # A folder of the hub's cache reads "models--owner--name".
    parts = re.split(r"[/\\]|--", model_name.lower())
    for family in FAMILIES:
        if family.prefer and any(re.fullmatch(family.prefer + _REPACKAGED, p) for p in parts):
            return _read_template(family.template)
    shipped = tokenizer.chat_template
    if isinstance(shipped, dict):
        shipped = shipped.get("default")
    if shipped:
        return str(shipped)
    for family in FAMILIES:
        if any(re.search(family.matches, part) for part in parts):
            return _read_template(family.template)
    raise DemurError(
        f"{model_name or 'The model'} has no chat template and is of no family that demur has one"
        " for: use a chat model whose tokenizer has a chat template."
    )


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
        for name, value in _THINKING_SWITCHES.items()
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
