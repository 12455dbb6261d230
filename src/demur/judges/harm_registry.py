"""The judges of harm by their specs."""

from __future__ import annotations

from demur.endpoint import EndpointSettings
from demur.errors import DemurError
from demur.judges.endpoint import EndpointJudge
from demur.judges.guard import GuardJudge
from demur.judges.harm import HarmJudge
from demur.progress import Progress

_CHOICES = "guard:NAME_OR_FOLDER or endpoint:MODEL"


def get_harm_judge(
    spec: str,
    *,
    base_url: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
) -> HarmJudge:
    """The judge of harm that `spec` names, ready to judge.

    Args:
        spec: `guard:NAME_OR_FOLDER`, a guard model that runs here, or `endpoint:MODEL`, a model
            behind an OpenAI-compatible endpoint.
        base_url: of the endpoint.
        family: of the guard, where neither its name nor its template tells.
        device: of the guard, as for `ChatModel.load`.
        dtype: of the guard, likewise.
        quantization: of the guard, likewise.
        progress: told about the guard's download.

    Raises:
        DemurError: `spec` names no judge, or the judge cannot be had; a base URL with a guard, or
            a family with an endpoint.
    """
    kind, _, model = spec.partition(":")
    if kind not in ("guard", "endpoint") or not model.strip():
        raise DemurError(f"There is no harm judge {spec!r:.100}; give {_CHOICES}")
    if kind == "endpoint":
        if family is not None:
            raise DemurError("An endpoint has no guard family; leave the family out")
        return EndpointJudge(model, EndpointSettings(base_url=base_url))
    if base_url is not None:
        raise DemurError("A guard runs here and takes no base URL; leave it out or use endpoint:")
    return GuardJudge.load(
        model, family, dtype=dtype, device=device, quantization=quantization, progress=progress
    )
