"""What decides whether a response refuses."""

from __future__ import annotations

from demur.judges.refusal import PaperRefusalJudge, RefusalJudge, get_refusal_judge

__all__ = ["PaperRefusalJudge", "RefusalJudge", "get_refusal_judge"]
