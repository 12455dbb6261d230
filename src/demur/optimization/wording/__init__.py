"""Improve the wording of a safety prompt for a model behind an endpoint.

Such a model gives no gradient, so no embeddings can be trained. Another model proposes wordings,
and demur's own judges say on demur's own queries which of them are better.
"""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.optimization.wording.pipeline import carry_out_wording, optimize_wording
    from demur.optimization.wording.plan import WordingPlan, wording_plan_of
    from demur.optimization.wording.record import WordingRecord
    from demur.optimization.wording.run import WordingRun
    from demur.optimization.wording.settings import KIND, TEXT, WordingSettings
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "KIND": "demur.optimization.wording.settings",
            "TEXT": "demur.optimization.wording.settings",
            "WordingPlan": "demur.optimization.wording.plan",
            "WordingRecord": "demur.optimization.wording.record",
            "WordingRun": "demur.optimization.wording.run",
            "WordingSettings": "demur.optimization.wording.settings",
            "carry_out_wording": "demur.optimization.wording.pipeline",
            "optimize_wording": "demur.optimization.wording.pipeline",
            "wording_plan_of": "demur.optimization.wording.plan",
        },
    )

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
