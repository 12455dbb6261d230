"""Judges: what a response does, whether it is unsafe, and which of two outputs is better."""

from __future__ import annotations

from demur.endpoint import EndpointSettings, TokenUsage
from demur.judges.classifier import ClassifierJudge
from demur.judges.combination import complied
from demur.judges.default import DefaultRefusalJudge
from demur.judges.endpoint import EndpointJudge
from demur.judges.endpoint_pairs import EndpointPairwiseJudge
from demur.judges.guard import GuardJudge
from demur.judges.paper import PaperRefusalJudge
from demur.judges.preference import PairwiseJudge, Preference
from demur.judges.protocol import (
    Decision,
    Judge,
    JudgeFunction,
    JudgeObject,
    JudgeSpec,
    SettlingJudge,
    ThreeWayJudge,
    needs_query,
    settling,
    three_way,
    verdicts_of,
)
from demur.judges.registry import as_harm_judge, as_refusal_judge, get_preference_judge
from demur.judges.rules import RefusalRule
from demur.judges.sanity import Sanity, check_refusal_judge
from demur.records import Verdict

__all__ = [
    "ClassifierJudge",
    "Decision",
    "DefaultRefusalJudge",
    "EndpointJudge",
    "EndpointPairwiseJudge",
    "EndpointSettings",
    "GuardJudge",
    "Judge",
    "JudgeFunction",
    "JudgeObject",
    "JudgeSpec",
    "PairwiseJudge",
    "PaperRefusalJudge",
    "Preference",
    "RefusalRule",
    "Sanity",
    "SettlingJudge",
    "ThreeWayJudge",
    "TokenUsage",
    "Verdict",
    "as_harm_judge",
    "as_refusal_judge",
    "check_refusal_judge",
    "complied",
    "get_preference_judge",
    "needs_query",
    "settling",
    "three_way",
    "verdicts_of",
]
