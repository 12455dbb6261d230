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

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' * (self.cores > 1)}"
        return f"{self.gpus} GPU{'s' * (self.gpus > 1)} and {cores}" if self.gpus else cores

    def times(self, machines: Sequence[Machine]) -> int:
        """How many such workers have room on machines at once, at least 1."""
        found = 0
        for one in machines:
            fitting = one.cores // self.cores
            found += min(fitting, one.gpus // self.gpus) if self.gpus else fitting
        return max(1, found)


def claim_of(
    model: StudyModel, machines: Sequence[Machine], gpu_memory: Callable[[], int | None]
) -> Claim:
    """What a worker claims for its model.

    On a cluster with GPUs one of them; for a model that is loaded with `device = "auto"` as many as
    hold it together. Without GPUs as many cores as the machine has for that much memory. A model
    behind a server takes one core.

    Args:
        model: the model.
        machines: machines of the cluster.
        gpu_memory: bytes of memory of one GPU, or None where that is not known; only asked where
            it matters.

    Raises:
        DemurError: no machine has enough GPUs, or the model is larger than one and is not spread.
    """
    if model.is_served:
        return Claim(1)
    most = max((one.gpus for one in machines), default=0)
    device = model.settings.device
    if most and device not in ("cpu", "mps"):
        return Claim(1, _gpus_of(model, most, gpu_memory))
    needed = memory_of(model.settings, on_gpu=False)
    if needed is None:
        return Claim(1)
    claims = [
        min(one.cores, max(1, ceil(needed * one.cores / one.memory)))
        for one in machines
        if one.cores and one.memory
    ]
    return Claim(max(claims, default=1))


def _gpus_of(model: StudyModel, most: int, gpu_memory: Callable[[], int | None]) -> int:
    """How many GPUs a worker claims for its model.

    Args:
        model: the model, which runs on GPUs.
        most: number of GPUs of the largest machine.
        gpu_memory: as for `claim_of`.

    Raises:
        DemurError: as for `claim_of`.
    """
    is_spread = model.settings.device == "auto"
    # A model that is not spread is refused only where its weights alone are too large.
    needed = memory_of(model.settings, on_gpu=True, at_work=is_spread)
    memory = None if needed is None else gpu_memory()
    gpus = 1 if needed is None or memory is None else max(1, ceil(needed / memory))
    if gpus > 1 and not is_spread:
        raise DemurError(
            f"The weights of the model {model.name!r:.80} take about {_gigabytes(needed)} GB, and "
            f'a GPU of the cluster has {_gigabytes(memory)} GB: set device = "auto" for it, '
            "which spreads it over several GPUs of a machine."
        )
    if gpus > most:
        raise DemurError(
            f"The model {model.name!r:.80} needs about {gpus} GPUs, and no machine of the "
            f"cluster has more than {most}: give quantization, or take a larger machine."
        )
    return gpus


def _gigabytes(size: int | None) -> int:
    return round((size or 0) / 1e9)
