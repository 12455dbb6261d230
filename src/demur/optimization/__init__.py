"""Optimize a safety prompt: the pipeline and the loop, and the methods that they serve."""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.optimization.methods import Method
    from demur.optimization.pipeline import carry_out, optimize
    from demur.optimization.plan import Plan, make_plan
    from demur.optimization.preset_values import PRESETS
    from demur.optimization.run import Run, RunRecord
    from demur.optimization.settings import OptimizeSettings, presets, settings_type
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "PRESETS": "demur.optimization.preset_values",
            "Method": "demur.optimization.methods",
            "OptimizeSettings": "demur.optimization.settings",
            "Plan": "demur.optimization.plan",
            "Run": "demur.optimization.run",
            "RunRecord": "demur.optimization.run",
            "carry_out": "demur.optimization.pipeline",
            "make_plan": "demur.optimization.plan",
            "optimize": "demur.optimization.pipeline",
            "presets": "demur.optimization.settings",
            "settings_type": "demur.optimization.settings",
        },
    )

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
