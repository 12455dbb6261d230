"""Attacks against safety prompts: how often a model answers harmful queries that are disguised."""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.attacks.attacking import attack
    from demur.attacks.plan import AttackPlan, Given, LeftOut, make_plan
    from demur.attacks.protocol import Attack
    from demur.attacks.record import KIND, AttackRecord
    from demur.attacks.registry import GCG, NO_ATTACK, TEMPLATES
    from demur.attacks.results import Robustness
    from demur.attacks.settings import AttackSettings
    from demur.attacks.work import carry_out, renewed
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "GCG": "demur.attacks.registry",
            "KIND": "demur.attacks.record",
            "NO_ATTACK": "demur.attacks.registry",
            "TEMPLATES": "demur.attacks.registry",
            "Attack": "demur.attacks.protocol",
            "AttackPlan": "demur.attacks.plan",
            "AttackRecord": "demur.attacks.record",
            "AttackSettings": "demur.attacks.settings",
            "Given": "demur.attacks.plan",
            "LeftOut": "demur.attacks.plan",
            "Robustness": "demur.attacks.results",
            "attack": "demur.attacks.attacking",
            "carry_out": "demur.attacks.work",
            "make_plan": "demur.attacks.plan",
            "renewed": "demur.attacks.work",
        },
    )

__all__ = [
    "GCG",
    "KIND",
    "NO_ATTACK",
    "TEMPLATES",
    "Attack",
    "AttackPlan",
    "AttackRecord",
    "AttackSettings",
    "Given",
    "LeftOut",
    "Robustness",
    "attack",
    "carry_out",
    "make_plan",
    "renewed",
]
