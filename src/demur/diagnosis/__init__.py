"""Why a model refuses: where queries lie in its representations, and how prompts move them."""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.diagnosis.diagnosis import Diagnosis, DiagnosisRecord
    from demur.diagnosis.headroom import Headroom
    from demur.diagnosis.plan import Given, Plan, make_plan
    from demur.diagnosis.sheet import Sheet
    from demur.diagnosis.work import carry_out, diagnose
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Diagnosis": "demur.diagnosis.diagnosis",
            "DiagnosisRecord": "demur.diagnosis.diagnosis",
            "Headroom": "demur.diagnosis.headroom",
            "Given": "demur.diagnosis.plan",
            "Plan": "demur.diagnosis.plan",
            "Sheet": "demur.diagnosis.sheet",
            "carry_out": "demur.diagnosis.work",
            "diagnose": "demur.diagnosis.work",
            "make_plan": "demur.diagnosis.plan",
        },
    )

__all__ = [
    "Diagnosis",
    "DiagnosisRecord",
    "Given",
    "Headroom",
    "Plan",
    "Sheet",
    "carry_out",
    "diagnose",
    "make_plan",
]
