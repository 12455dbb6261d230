"""What decides whether a response refuses, and whether it is unsafe."""

from __future__ import annotations

from demur.endpoint import EndpointSettings, TokenUsage
from demur.judges.combination import complied
from demur.judges.default import DefaultRefusalJudge
from demur.judges.endpoint import EndpointJudge
from demur.judges.guard import GuardJudge
from demur.judges.harm import HarmJudge, HarmVerdict
from demur.judges.harm_registry import get_harm_judge
from demur.judges.paper import PaperRefusalJudge
from demur.judges.preference import PairwiseJudge, Preference
from demur.judges.preference_registry import get_preference_judge
from demur.judges.protocol import RefusalJudge
from demur.judges.registry import get_refusal_judge

__all__ = [
    "DefaultRefusalJudge",
    "EndpointJudge",
    "EndpointSettings",
    "GuardJudge",
    "HarmJudge",
    "HarmVerdict",
    "PairwiseJudge",
    "PaperRefusalJudge",
    "Preference",
    "RefusalJudge",
    "TokenUsage",
    "complied",
    "get_harm_judge",
    "get_preference_judge",
    "get_refusal_judge",
]
