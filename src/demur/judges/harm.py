"""Earlier names of the protocol of judges, for callers that have not been moved to it."""

from demur.judges.protocol import Judge as HarmJudge
from demur.judges.protocol import Verdict as HarmVerdict

__all__ = ["HarmJudge", "HarmVerdict"]
