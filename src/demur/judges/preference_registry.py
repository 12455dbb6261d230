"""The pairwise judges by their specs."""

from __future__ import annotations

from demur.endpoint import EndpointSettings
from demur.errors import DemurError
from demur.judges.endpoint import EndpointJudge
from demur.judges.preference import PairwiseJudge


def get_preference_judge(spec: str, *, base_url: str | None = None) -> PairwiseJudge:
    """The judge of pairs that `spec` names, ready to judge.

    Args:
        spec: `endpoint:MODEL`, a model behind an OpenAI-compatible endpoint.
        base_url: of the endpoint.

    Raises:
        DemurError: `spec` names no judge, or the judge cannot be had.
    """
    kind, _, model = spec.partition(":")
    if kind != "endpoint" or not model.strip():
        raise DemurError(f"There is no preference judge {spec!r:.100}; give endpoint:MODEL")
    return EndpointJudge(model, EndpointSettings(base_url=base_url))
