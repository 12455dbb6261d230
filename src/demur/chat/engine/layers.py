"""The output of each layer at the positions that are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.architecture import decoder_layers


@contextmanager
def layer_outputs(
    model: PreTrainedModel, rows: Tensor, positions: Tensor
) -> Iterator[list[Tensor]]:
    """Collect the output of every layer while a forward pass runs.

    Args:
        model: one for which `decoder_layers` finds the layers.
        rows: (N,), of the batch.
        positions: (N,), in these rows.

    Yields:
        A list that fills with (N, d) float32 on the CPU, layer by layer.
    """
    layers = decoder_layers(model)
    assert layers is not None
    seen: list[Tensor] = []

    def keep(_module: torch.nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        read = hidden[rows.to(hidden.device), positions.to(hidden.device)]
        seen.append(read.float().cpu())

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
