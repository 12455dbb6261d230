"""Why a model refuses: where queries lie in its representations, and how prompts move them."""

from demur.diagnosis.diagnose import diagnose
from demur.diagnosis.diagnosis import Diagnosis
from demur.diagnosis.sheet import Sheet

__all__ = ["Diagnosis", "Sheet", "diagnose"]
