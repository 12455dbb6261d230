"""Optimize a safety prompt: the pipeline and the loop, and the methods that they serve."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.optimization.methods import Method
    from demur.optimization.pipeline import carry_out, optimize
    from demur.optimization.plan import Plan, make_plan
    from demur.optimization.preset_values import PRESETS
    from demur.optimization.run import Run, RunRecord
    from demur.optimization.settings import OptimizeSettings, presets, settings_type

__all__ = [
    "PRESETS",
    "Method",
    "OptimizeSettings",
    "Plan",
    "Run",
    "RunRecord",
    "carry_out",
    "make_plan",
    "optimize",
    "presets",
    "settings_type",
]

_HOMES = {
    "PRESETS": "preset_values",
    "Method": "methods",
    "OptimizeSettings": "settings",
    "Plan": "plan",
    "Run": "run",
    "RunRecord": "run",
    "carry_out": "pipeline",
    "make_plan": "plan",
    "optimize": "pipeline",
    "presets": "settings",
    "settings_type": "settings",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the settings can be listed without loading torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'demur.optimization' has no attribute {name!r}")
    return getattr(import_module(f"demur.optimization.{_HOMES[name]}"), name)
