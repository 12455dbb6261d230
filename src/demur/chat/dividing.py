"""Models that are divided among processes: each has a part of every layer's weights.

transformers divides them (tensor parallelism), by a plan that an architecture brings along. Between
the parts of a layer the processes add up what they found, so each has the same hidden states, and
everything above the model works as it does in one process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch

from demur import processes
from demur.errors import DemurError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
"""Settings of an architecture that count what is divided."""


def device_of_process(requested: str | None) -> torch.device:
    """The device of this process: a GPU of its own, or the processor where there are no GPUs.

    Args:
        requested: the device that a user chose, or None.

    Raises:
        DemurError: it is another one, or there are fewer GPUs than processes on this machine.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if requested not in (None, kind):
        raise DemurError(
            f"Several processes compute on {kind} here, not on {requested!r:.40}: leave --device "
            "out, or hide the GPUs with CUDA_VISIBLE_DEVICES=."
        )
    if kind == "cpu":
        return torch.device(kind)
    gpus, wanted = torch.cuda.device_count(), processes.count_here()
    if gpus < wanted:
        raise DemurError(
            f"{wanted} processes were started on this machine, and it has {gpus} GPUs: start one "
            "for each GPU."
        )
    torch.cuda.set_device(processes.place_here())
    return torch.device(kind, processes.place_here())


def device_name(device: torch.device) -> str:
    """What is recorded of a model's device; the same in all processes that share the model."""
    count = processes.count()
    return str(device) if count == 1 else f"{device.type}, {count} processes"


def check_divisible(config: PreTrainedConfig, name: str) -> None:
    """Check that a model can be divided among the processes.

    Args:
        config: of the model.
        name: of the model, for messages.

    Raises:
        DemurError: transformers has no plan for its architecture, or its heads cannot be divided.
    """
    count, inner = processes.count(), config.get_text_config(decoder=True)
    if not getattr(inner, "base_model_tp_plan", None):
        raise DemurError(
            f"{name} cannot be divided among {count} processes, since transformers has no plan for "
            f"its architecture ({config.model_type}): run one process, with --device auto where "
            "the model is too large for one GPU."
        )
    for setting in _DIVIDED:
        size = getattr(inner, setting, None)
        if isinstance(size, int) and size % count:
            raise DemurError(
                f"{name} cannot be divided among {count} processes: its {setting} is {size}. "
                f"Start as many processes as divide it."
            )


def dividing_options() -> dict[str, Any]:
    """What `from_pretrained` takes to load the part of this process.

    Raises:
        DemurError: transformers is too old.
    """
    try:
        distributed: Any = importlib.import_module("transformers.distributed")  # hardly typed
        return {"distributed_config": distributed.DistributedConfig(tp_plan="auto")}
    except (ImportError, AttributeError, TypeError):
        raise DemurError(
            "Dividing a model among processes needs a newer transformers: run `pip install "
            "--upgrade transformers`."
        ) from None
