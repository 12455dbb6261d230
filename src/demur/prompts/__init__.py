"""Safety prompts: basic ones written by hand, trained ones, and loading either by name."""

from __future__ import annotations

from demur.prompts.application import SystemText, system_text_for, trained_behind
from demur.prompts.basic import (
    BASIC_PROMPTS,
    BUILT_IN_PROMPTS,
    load_basic_prompt,
    load_system_prompt,
)
from demur.prompts.condition import Condition, check_system_texts, distinct_names
from demur.prompts.loading import load_prompt
from demur.prompts.provenance import Fact, MeasuredPrompt, Provenance
from demur.prompts.safety_prompt import SafetyPrompt

__all__ = [
    "BASIC_PROMPTS",
    "BUILT_IN_PROMPTS",
    "Condition",
    "Fact",
    "MeasuredPrompt",
    "Provenance",
    "SafetyPrompt",
    "SystemText",
    "check_system_texts",
    "distinct_names",
    "load_basic_prompt",
    "load_prompt",
    "load_system_prompt",
    "system_text_for",
    "trained_behind",
]
