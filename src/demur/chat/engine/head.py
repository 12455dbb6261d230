"""From representations to logits, a few positions at a time.

The logits of a large vocabulary are by far the largest tensor of a forward pass: at 150,000 tokens,
0.6 MB for each position. So they are computed for a few positions, what is wanted is read of them,
and they are dropped. With gradients, the derivative of each value by its hidden state, a row of
width d, is computed along with it. The backward pass multiplies these rows, so it needs no logits
and computes nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from demur.chat.engine.architecture import backbone, shape_of
from demur.chat.engine.buckets import is_out_of_memory
from demur.chat.engine.finite import FiniteNumbers
from demur.chat.engine.forward import input_device
from demur.chat.engine.targets import TargetTokens, TokenReader


class Head:
    """The LM head of a model, with whatever the model does to its logits.

    Args:
        model: a causal language model.
        most_logits: number of logits that are computed at once, unless one position has more.
        numbers: checks logits that are read without a gradient.
    """

    def __init__(self, model: PreTrainedModel, most_logits: int, numbers: FiniteNumbers) -> None:
        self.model = model
        self._numbers = numbers
        self.positions = max(1, most_logits // shape_of(model).vocabulary)
        self._alone = backbone(model) is not None

    def logits(self, representations: Tensor) -> Tensor:
        """The logits (N, V) that the model gives at representations (N, d); differentiable.

        A pass over one token whose representation is exchanged in front of the head, so that
        whatever the architecture does behind it (scaling, soft-capping) is done here too. The
        layers, whose output is exchanged anyway, are left out if the model can do without them.
        """
        if self._alone:
            try:
                with _layers_left_out(self.model, representations.shape[-1]):
                    return _exchanged(self.model, representations)
            except Exception as error:  # a model's forward function may want anything
                if is_out_of_memory(error):
                    raise
                self._alone = False
        return _exchanged(self.model, representations)

    def read_tokens(self, hidden: Tensor, tokens: TargetTokens, reader: TokenReader) -> Tensor:
        """What `reader` reads of the logits at which target tokens are predicted.

        Args:
            hidden: (n, d), the representations at which the tokens are predicted.
            tokens: the n target tokens, at least one, on the device of `hidden`.
            reader: reads (m,) or (m, k) of the logits of m positions.

        Returns:
            (n,) or (n, k) float32, with gradients if `hidden` has them.

        Raises:
            ValueError: the reader returned another shape.
            DemurError: logits are not numbers, where no gradient is wanted. A training tells that
                from its loss, because its steps may be the cause.
        """
        size = self.positions

        def read(some: Tensor, start: int) -> Tensor:
            logits = self.logits(some).float()  # a spread model may have them elsewhere
            if not torch.is_grad_enabled():
                self._numbers.check_logits(logits)
            chosen = tokens[start : start + size].to(logits.device)
            found = reader(logits, chosen)
            if found.shape[:1] != chosen.ids.shape or found.dim() > 2:
                raise ValueError(
                    f"a token reader returned {tuple(found.shape)} for {len(chosen)} tokens"
                )
            return found.to(hidden.device, torch.float32)

        if hidden.requires_grad and torch.is_grad_enabled():
            values: Callable[..., Tensor] = _TokenValues.apply
            return values(hidden, read, size)
        return torch.cat([read(hidden[i : i + size], i) for i in range(0, len(hidden), size)])


class _TokenValues(torch.autograd.Function):
    """Token values (n,) or (n, k), each with its gradient with respect to its own representation.

    A value depends on one position alone, so its gradient is one row, found while the logits are
    there. The backward pass multiplies these rows by what arrives.
    """

    @staticmethod
    def forward(
        context: Any, hidden: Tensor, read: Callable[[Tensor, int], Tensor], size: int
    ) -> Tensor:
        values, slopes = [], []
        for start in range(0, len(hidden), size):
            with torch.enable_grad():
                some = hidden[start : start + size].detach().requires_grad_()
                found = read(some, start)
                columns = found.view(len(found), -1).sum(0).unbind()
            slopes.append(torch.stack([_gradient(column, some) for column in columns]))
            values.append(found.detach())
        context.save_for_backward(torch.cat(slopes, dim=1))
        return torch.cat(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = context.saved_tensors  # (k, n, d)
        arriving = gradients[0].reshape(slopes.shape[1], -1).T[..., None]
        return (slopes * arriving.to(slopes.dtype)).sum(0), None, None


def _gradient(column: Tensor, hidden: Tensor) -> Tensor:
    """The gradient of one sum, zeros where it does not depend on `hidden`."""
    if not column.requires_grad:
        return torch.zeros_like(hidden)
    (found,) = torch.autograd.grad(
        column, hidden, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return found


def _exchanged(model: PreTrainedModel, representations: Tensor) -> Tensor:
    def exchange(_module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden: Tensor = arguments[0]
        return (representations[None].to(hidden.device, hidden.dtype), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(exchange)
    one = torch.zeros(1, 1, dtype=torch.long, device=input_device(model))
    try:
        output = model(input_ids=one, use_cache=False)
    finally:
        handle.remove()
    logits: Tensor = output.logits[0]
    return logits


@dataclass
class _Nothing(ModelOutput):
    """The output of a backbone that was left out: one hidden state, and None for all else."""

    last_hidden_state: Tensor | None = None

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _layers_left_out(model: PreTrainedModel, width: int) -> Iterator[None]:
    """Let the model's backbone return one blank hidden state instead of computing one."""
    body = backbone(model)
    if body is None:
        yield
        return
    blank = torch.zeros(1, 1, width, dtype=model.dtype, device=input_device(model))

    def left_out(*_arguments: object, **_options: object) -> _Nothing:
        return _Nothing(last_hidden_state=blank)

    own = vars(body).get("forward")  # accelerate sets one
    body.forward = left_out
    try:
        yield
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own
