"""The gradient of a loss with respect to the rows of a safety prompt."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from demur.chat.engine.head import Head
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.lean import lean
from demur.chat.engine.reading import prefix_states, read_part, read_targets, read_with_prefix
from demur.chat.engine.row_graphs import RowGraphs
from demur.chat.engine.targets import Read, TokenReader

PartialLoss = Callable[[Read, list[int]], Tensor]
"""The share of the loss of a part of a batch.

It takes what the model makes of the part and the places of its conversations in the batch, and
returns a scalar. The shares of all parts add up to the loss of the batch, so a mean over the batch
is a sum divided by the size of the batch, not by that of the part. A conversation and all of its
targets are always in the same part.
"""


def gradient_of(
    head: Head,
    inputs: Inputs,
    prompt: Tensor,
    parts: list[list[int]],
    partial_loss: PartialLoss,
    reader: TokenReader,
    graphs: RowGraphs | None = None,
) -> tuple[float, Tensor]:
    """The loss of a batch and its gradient.

    One part runs in one row with the prefix. For several, the prefix runs once with its graph kept,
    each part's backward pass ends at the prefix's keys and values, and one backward pass through
    the prefix follows.

    Args:
        head: of the model.
        inputs: B conversations; the plain path serves where their prefix is empty.
        prompt: (L, d) rows.
        parts: places of the conversations in the batch, part by part.
        partial_loss: a part's share of the loss.
        reader: what is read of the logits at target tokens.
        graphs: recorded passes over rows, where the device can record any.

    Returns:
        The loss, and its gradient (L, d) float32 on the CPU.
    """
    leaf = prompt.detach().clone().requires_grad_()
    with lean(head.model):
        if len(parts) == 1 and inputs.prefix:
            (rows,) = parts
            positions = read_with_prefix(head.model, inputs.select(rows), leaf, graphs)
            loss = _share(partial_loss, read_targets(head, positions, inputs, rows, reader), rows)
        else:
            loss = _in_parts(head, inputs, leaf, parts, partial_loss, reader)
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return loss, gradient.float().cpu()


def _in_parts(
    head: Head,
    inputs: Inputs,
    leaf: Tensor,
    parts: list[list[int]],
    partial_loss: PartialLoss,
    reader: TokenReader,
) -> float:
    """Backward part by part, down to the prefix, and then once through the prefix."""
    prefix = prefix_states(head.model, inputs, leaf)
    leaves = prefix.as_leaves() if prefix is not None else None
    loss = 0.0
    for rows in parts:
        positions = read_part(head.model, inputs.select(rows), leaves, leaf)
        loss += _share(partial_loss, read_targets(head, positions, inputs, rows, reader), rows)
    if prefix is not None and leaves is not None:
        pairs = [
            (states, cut.grad)
            for states, cut in zip(prefix.tensors(), leaves.tensors(), strict=True)
            if states.requires_grad and cut.grad is not None
        ]
        if pairs:
            torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return loss


def _share(partial_loss: PartialLoss, read: Read, rows: list[int]) -> float:
    """Add a part's gradients to those of its leaves; its share of the loss."""
    share = partial_loss(read, rows)
    if share.requires_grad:  # not where the loss reads targets and the part has none
        torch.autograd.backward(share)
    return float(share.detach())
