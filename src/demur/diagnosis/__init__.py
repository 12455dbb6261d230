"""Why a model refuses: where queries lie in its representations, and how prompts move them."""

from demur.diagnosis.diagnose import carry_out, diagnose
from demur.diagnosis.diagnosis import Diagnosis, DiagnosisRecord
from demur.diagnosis.plan import Given, Plan, make_plan
from demur.diagnosis.sheet import Sheet

__all__ = [
    "Diagnosis",
    "DiagnosisRecord",
    "Given",
    "Plan",
    "Sheet",
    "carry_out",
    "diagnose",
    "make_plan",
]
