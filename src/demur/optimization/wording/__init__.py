"""Improve the wording of a safety prompt for a model behind an endpoint.

Such a model gives no gradient, so no embeddings can be trained. Another model proposes wordings,
and demur's own judges say on demur's own queries which of them are better.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.optimization.wording.pipeline import carry_out_wording, optimize_wording
    from demur.optimization.wording.plan import WordingPlan, wording_plan_of
    from demur.optimization.wording.record import WordingRecord
    from demur.optimization.wording.run import WordingRun
    from demur.optimization.wording.settings import KIND, TEXT, WordingSettings

__all__ = [
    "KIND",
    "TEXT",
    "WordingPlan",
    "WordingRecord",
    "WordingRun",
    "WordingSettings",
    "carry_out_wording",
    "optimize_wording",
    "wording_plan_of",
]

_HOMES = {
    "KIND": "settings",
    "TEXT": "settings",
    "WordingPlan": "plan",
    "WordingRecord": "record",
    "WordingRun": "run",
    "WordingSettings": "settings",
    "carry_out_wording": "pipeline",
    "optimize_wording": "pipeline",
    "wording_plan_of": "plan",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the settings can be listed without loading torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'demur.optimization.wording' has no attribute {name!r}")
    return getattr(import_module(f"demur.optimization.wording.{_HOMES[name]}"), name)
