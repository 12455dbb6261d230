"""In the last layer only the positions that are read need the feed-forward block.

Nothing attends to what the last layer puts out, so leaving it out at the other positions changes
nothing that is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.architecture import last_feed_forward


@contextmanager
def only_read(model: PreTrainedModel, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Run the last layer's feed-forward block at the given positions alone.

    Does nothing for a model whose block is not found under one of the usual names.

    Args:
        model: a causal language model.
        rows: (N,), of the batch.
        positions: (N,), in these rows.
    """
    block = last_feed_forward(model)
    if block is None:
        yield
        return
    shapes: list[torch.Size] = []

    def narrow(_module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if len(arguments) != 1 or arguments[0].dim() != 3:
            return None
        hidden: Tensor = arguments[0]
        shapes.append(hidden.shape)
        return (hidden[rows.to(hidden.device), positions.to(hidden.device)][None],)

    def widen(_module: torch.nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        if not shapes:
            return None
        narrowed = output[0] if isinstance(output, tuple) else output
        places = (rows.to(narrowed.device), positions.to(narrowed.device))
        whole = narrowed.new_zeros(shapes.pop()).index_put(places, narrowed[0])
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    handles = [block.register_forward_pre_hook(narrow), block.register_forward_hook(widen)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
