"""demur: optimize a chat model's safety prompt and leave its weights alone.

from demur import ChatModel, optimize

model = ChatModel.load("Qwen/Qwen2.5-7B-Instruct")
run = optimize(model, basic_prompt="long")
print(run)
run.safety_prompt.save("my-prompt")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.attacks import Robustness, attack
    from demur.chat import ChatModel, Dialogue
    from demur.chat.served_check import sampled_at
    from demur.diagnosis import Diagnosis, diagnose
    from demur.errors import DemurError
    from demur.evaluation.answerers.files import ResponseFiles
    from demur.evaluation.answerers.server import Server
    from demur.evaluation.comparison import Comparison
    from demur.evaluation.evaluate import evaluate
    from demur.gate import GateResult, check, compare_evaluations
    from demur.optimization import OptimizeSettings, Run, optimize
    from demur.optimization.wording import WordingRun, optimize_wording
    from demur.progress import SilentProgress
    from demur.prompts import Condition, SafetyPrompt
    from demur.queries import Conversation, QuerySet, load_query_set
    from demur.report import write_report
    from demur.sharing import push
    from demur.study import FinishedStudy, RayCluster, Study

__all__ = [
    "ChatModel",
    "Comparison",
    "Condition",
    "Conversation",
    "DemurError",
    "Diagnosis",
    "Dialogue",
    "FinishedStudy",
    "GateResult",
    "OptimizeSettings",
    "QuerySet",
    "RayCluster",
    "ResponseFiles",
    "Robustness",
    "Run",
    "SafetyPrompt",
    "Server",
    "SilentProgress",
    "Study",
    "WordingRun",
    "attack",
    "check",
    "compare_evaluations",
    "diagnose",
    "evaluate",
    "load_query_set",
    "optimize",
    "optimize_wording",
    "push",
    "sampled_at",
    "write_report",
]

_HOMES = {
    "ChatModel": "demur.chat",
    "Comparison": "demur.evaluation.comparison",
    "Condition": "demur.prompts",
    "Conversation": "demur.queries",
    "DemurError": "demur.errors",
    "Diagnosis": "demur.diagnosis",
    "Dialogue": "demur.chat",
    "FinishedStudy": "demur.study",
    "GateResult": "demur.gate",
    "OptimizeSettings": "demur.optimization",
    "QuerySet": "demur.queries",
    "RayCluster": "demur.study",
    "ResponseFiles": "demur.evaluation.answerers.files",
    "Robustness": "demur.attacks",
    "Run": "demur.optimization",
    "SafetyPrompt": "demur.prompts",
    "Server": "demur.evaluation.answerers.server",
    "SilentProgress": "demur.progress",
    "Study": "demur.study",
    "WordingRun": "demur.optimization.wording",
    "attack": "demur.attacks",
    "check": "demur.gate",
    "compare_evaluations": "demur.gate",
    "diagnose": "demur.diagnosis",
    "evaluate": "demur.evaluation.evaluate",
    "load_query_set": "demur.queries",
    "optimize": "demur.optimization",
    "optimize_wording": "demur.optimization.wording",
    "push": "demur.sharing",
    "sampled_at": "demur.chat.served_check",
    "write_report": "demur.report",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `demur --help` does not wait for torch."""
    if name == "__version__":
        from demur.records.versions import version_of

        return version_of("demur")
    if name not in _HOMES:
        raise AttributeError(f"module 'demur' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
