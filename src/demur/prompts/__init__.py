"""Safety prompts: the basic ones that people write, and the trained ones that last."""

from __future__ import annotations

from demur.prompts.basic import BASIC_PROMPTS, load_basic_prompt, load_system_prompt
from demur.prompts.condition import Condition, distinct_names
from demur.prompts.naming import load_prompt
from demur.prompts.safety_prompt import SafetyPrompt

__all__ = [
    "BASIC_PROMPTS",
    "Condition",
    "SafetyPrompt",
    "distinct_names",
    "load_basic_prompt",
    "load_prompt",
    "load_system_prompt",
]
