"""What decides whether a response refuses."""

from __future__ import annotations

from demur.judges.default import DefaultRefusalJudge
from demur.judges.paper import PaperRefusalJudge
from demur.judges.protocol import RefusalJudge
from demur.judges.registry import get_refusal_judge

__all__ = ["DefaultRefusalJudge", "PaperRefusalJudge", "RefusalJudge", "get_refusal_judge"]
