"""What a safety prompt costs in ability: short tasks of lm-eval, without the prompt and with it."""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.capability.plan import CapabilityPlan, make_plan
    from demur.capability.results import KIND, Capability, CapabilityRecord, Change
    from demur.capability.settings import CapabilitySettings
    from demur.capability.work import carry_out
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "KIND": "demur.capability.results",
            "Capability": "demur.capability.results",
            "CapabilityPlan": "demur.capability.plan",
            "CapabilityRecord": "demur.capability.results",
            "CapabilitySettings": "demur.capability.settings",
            "Change": "demur.capability.results",
            "carry_out": "demur.capability.work",
            "make_plan": "demur.capability.plan",
        },
    )

__all__ = [
    "KIND",
    "Capability",
    "CapabilityPlan",
    "CapabilityRecord",
    "CapabilitySettings",
    "Change",
    "carry_out",
    "make_plan",
]
