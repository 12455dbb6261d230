"""How many GPUs or cores of a cluster a worker claims, by the size of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from demur.chat.sizes import memory_of
from demur.errors import DemurError
from demur.study.settings import StudyModel


@dataclass(frozen=True)
class Machine:
    """What one machine of a cluster has.

    Attributes:
        cores: number of processor cores.
        gpus: number of GPUs.
        memory: bytes of memory.
    """

    cores: int
    gpus: int
    memory: int


@dataclass(frozen=True)
class Claim:
    """What a worker takes of a machine.

    Attributes:
        cores: number of processor cores, at least 1.
        gpus: number of GPUs; 0 where the model runs on the cores.
    """

    cores: int
    gpus: int = 0

    def times(self, machines: Sequence[Machine]) -> int:
        """How many such workers have room on machines at once, at least 1."""
        found = 0
        for one in machines:
            fitting = one.cores // self.cores
            found += min(fitting, one.gpus // self.gpus) if self.gpus else fitting
        return max(1, found)


def claim_of(
    model: StudyModel, machines: Sequence[Machine], gpu_memory: Callable[[], int]
) -> Claim:
    """What a worker claims for its model.

    On a cluster with GPUs one of them; for a model that is loaded with `device = "auto"` as many as
    hold it together. Without GPUs as many cores as the machine has for that much memory. A model
    behind a server takes one core.

    Args:
        model: the model.
        machines: machines of the cluster.
        gpu_memory: bytes of memory of one GPU; only asked where it matters.

    Raises:
        DemurError: no machine has enough GPUs.
    """
    if model.is_served:
        return Claim(1)
    most = max((one.gpus for one in machines), default=0)
    device = model.settings.device
    if most and device not in ("cpu", "mps"):
        needed = memory_of(model.settings, on_gpu=True) if device == "auto" else None
        gpus = 1 if needed is None else max(1, ceil(needed / gpu_memory()))
        if gpus > most:
            raise DemurError(
                f"The model {model.name!r:.80} needs about {gpus} GPUs, and no machine of the "
                f"cluster has more than {most}: give quantization, or take a larger machine."
            )
        return Claim(1, gpus)
    needed = memory_of(model.settings, on_gpu=False)
    if needed is None:
        return Claim(1)
    claims = [
        min(one.cores, max(1, ceil(needed * one.cores / one.memory)))
        for one in machines
        if one.cores and one.memory
    ]
    return Claim(max(claims, default=1))
