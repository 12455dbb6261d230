"""Checks of a model's weights against its configuration, and of the numbers in them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from demur.errors import DemurError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_WITH_EXTREMES = torch.float32, torch.bfloat16, torch.float16, torch.float64
_NO_FRACTIONS = ("I", "U", "BOOL", "C")  # the beginnings of the names of safetensors' formats


@dataclass(frozen=True)
class Weights:
    """What the headers of a model's weight files list.

    Attributes:
        count: number of weights.
        shapes: shape of each tensor by its name.
        kinds: number format of each tensor by its name, as the files call it.
    """

    count: int
    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, str]


def check_complete(loading: dict[str, Any], name: str) -> None:
    """Refuse a model that transformers had to fill up with random weights."""
    missing = sorted(loading.get("missing_keys") or ())
    if missing:
        raise DemurError(
            f"{name} lacks {len(missing)} of its weights ({missing[0]} is one); "
            "download it again or check that config.json belongs to it."
        )


def check_all_used(loading: dict[str, Any], model: PreTrainedModel, name: str) -> None:
    """Refuse a model whose files have more layers than config.json says."""
    known = {re.sub(r"\.\d+\.", ".N.", key) for key in model.state_dict()}
    left = [
        key
        for key in sorted(loading.get("unexpected_keys") or ())
        if re.search(r"\.\d+\.", key) and re.sub(r"\.\d+\.", ".N.", key) in known
    ]
    if left:
        raise DemurError(
            f"{name} has weights that config.json does not ask for ({left[0]:.100} is one of "
            f"{len(left)}); check that config.json belongs to it."
        )


def check_numbers(model: PreTrainedModel, name: str) -> None:
    """Refuse a model with weights, or tables made of its settings, that are NaN or infinite.

    Attention can turn them into numbers again, so what it computes does not always show them.
    """
    for key, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.device.type == "meta":
            continue
        if not _all_finite(_own_part(weight.detach())):
            raise no_numbers(name, key)
    check_tables(model, name)


def check_tables(model: PreTrainedModel, name: str) -> None:
    """Refuse a model with tables, made of its settings, that are NaN or infinite."""
    for key, table in model.named_buffers():
        if not table.is_floating_point() or table.device.type == "meta":
            continue
        # A mask may be minus infinity.
        if bool(table.isnan().any()) or bool((table == torch.inf).any()):
            raise DemurError(
                f"{name} has tables that are not numbers ({key} holds NaN or infinity), made of "
                "settings that cannot be right; download it again."
            )


def no_numbers(name: str, key: str) -> DemurError:
    """The error for weights that are NaN or infinite, with the name of their tensor."""
    return DemurError(
        f"{name} has weights that are not numbers ({key} holds NaN or infinity); "
        "get its weights again."
    )


def _own_part(weights: torch.Tensor) -> torch.Tensor:
    """What this process has of weights that are divided among several."""
    to_local = getattr(weights, "to_local", None)
    return weights if to_local is None else to_local()


def _all_finite(weights: torch.Tensor) -> bool:
    """Whether all of some weights are numbers."""
    if not weights.numel():
        return True
    if weights.dtype not in _WITH_EXTREMES:
        # A sum reads each weight once; it may be too large where each weight is a number.
        return bool(weights.sum(dtype=torch.float32).isfinite() or weights.isfinite().all())
    least, most = torch.aminmax(weights)  # both NaN where one weight is
    return isfinite(least.item()) and isfinite(most.item())


def _without_weights(config: PreTrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """The model that a configuration asks for, with no memory behind its weights."""
    transformers: Any = importlib.import_module("transformers")
    with torch.device("meta"):
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(
            config, trust_remote_code=trust_remote_code
        )
    return model


def check_weights(
    config: PreTrainedConfig, weights: Weights, name: str, trust_remote_code: bool
) -> None:
    """Refuse files with fewer weights than half the model, or with weights that are no fractions.

    transformers would make up the weights that are missing, and round the others.
    """
    try:
        empty = _without_weights(config, trust_remote_code)
    except Exception:  # a model's own code may not build it so, and explains itself when it loads
        return
    wanted = sum(parameter.numel() for parameter in empty.parameters())
    if weights.count < wanted / 2:
        raise DemurError(
            f"{name} has {weights.count:,} of the {wanted:,} weights that config.json asks for; "
            "download it again or check that config.json belongs to it."
        )
    wanted_names = {key for key, _ in empty.named_parameters()}
    for key, kind in weights.kinds.items():
        if key in wanted_names and kind.startswith(_NO_FRACTIONS):
            raise DemurError(
                f"{name} has weights that are no fractions ({key:.100} is of the type "
                f"{kind!r:.20}), and config.json names no quantization; download it again."
            )


def other_shapes(
    config: PreTrainedConfig, weights: Weights, name: str, trust_remote_code: bool
) -> DemurError:
    """The error for weights of other shapes than config.json asks for, with one that has."""
    which = ""
    with suppress(Exception):
        empty = _without_weights(config, trust_remote_code)
        wanted = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
        which = next(
            f" ({key:.100} is {list(shape)} instead of {list(wanted[key])})"
            for key, shape in weights.shapes.items()
            if wanted.get(key, shape) != shape
        )
    return DemurError(
        f"{name} has weights of other shapes than config.json says{which}; download it again or "
        "check that config.json belongs to it."
    )
