"""A gate that holds a deployment: requirements on an evaluation, and comparing it with another.

`requirements` reads them, `scope` finds what they are about, `deciding` decides them on intervals,
`pairing` sets two evaluations side by side, and `gate` puts all of it together.
"""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.gate.changed import Changed, GroupChange, PromptChange
    from demur.gate.checks import Check
    from demur.gate.gate import Gate, GateResult, as_gate_settings, check, not_worse
    from demur.gate.pairing import EvaluationChanges, compare_evaluations
    from demur.gate.requirements import Requirement
    from demur.gate.scope import Scope
    from demur.gate.settings import CheckSettings, GateSettings
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Changed": "demur.gate.changed",
            "Check": "demur.gate.checks",
            "CheckSettings": "demur.gate.settings",
            "EvaluationChanges": "demur.gate.pairing",
            "Gate": "demur.gate.gate",
            "GateResult": "demur.gate.gate",
            "GateSettings": "demur.gate.settings",
            "GroupChange": "demur.gate.changed",
            "PromptChange": "demur.gate.changed",
            "Requirement": "demur.gate.requirements",
            "Scope": "demur.gate.scope",
            "as_gate_settings": "demur.gate.gate",
            "check": "demur.gate.gate",
            "compare_evaluations": "demur.gate.pairing",
            "not_worse": "demur.gate.gate",
        },
    )

__all__ = [
    "Changed",
    "Check",
    "CheckSettings",
    "EvaluationChanges",
    "Gate",
    "GateResult",
    "GateSettings",
    "GroupChange",
    "PromptChange",
    "Requirement",
    "Scope",
    "as_gate_settings",
    "check",
    "compare_evaluations",
    "not_worse",
]
