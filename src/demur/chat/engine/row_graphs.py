"""Training passes over packed rows, recorded once and replayed, for devices that wait for launches.

A training step launches thousands of kernels, and where they are small a GPU waits for each launch.
CUDA can record a pass and launch it whole. The recorded pass reads and writes tensors that stay
where they are, so all rows of one shape can use it. Rows are rounded up to few shapes: by tokens
behind the last suffix that nobody reads, and by room for suffixes that are longer. Nothing that
is read changes by that, because no token sees what follows it or what is in another suffix.

What cannot be recorded runs as it is: the first row of a shape, a model that is spread over
devices, quantized, or does something that CUDA cannot record, and a row that would not fit in
memory.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.attention import is_grouped
from demur.chat.engine.buckets import is_out_of_memory
from demur.chat.engine.forward import RowTensors, embedding_table, input_device, read_packed
from demur.chat.engine.memory import row_bytes
from demur.chat.engine.packing import Packing
from demur.chat.engine.recording import Recorder, weights_at
from demur.chat.engine.shapes import size_above, step_at
from demur.chat.engine.suffix_attention import RowLayout

MOST_SHAPES = 32
"""Recorded passes that are kept; the one that was not used for longest is dropped."""


def rounded(packing: Packing) -> Packing:
    """The same row with more suffixes behind it, so that many rows have one shape.

    Args:
        packing: a row whose prefix is inside.

    Returns:
        A packing whose first suffixes are those of `packing`. Its `reads` begin with theirs.
    """
    width = size_above(packing.longest, 16, 2)
    tokens = packing.prefix + packing.total
    # The next size lies less than two steps away. Each suffix behind the row has a token at least.
    more = -(-2 * step_at(tokens, 64) // (width - 1))
    missing = size_above(tokens + more, 64) - tokens
    sizes = [missing // more + (place < missing % more) for place in range(more)]
    branches = packing.branches and (*packing.branches, *((),) * more)
    return replace(packing, lengths=(*packing.lengths, *sizes), branches=branches, width=width)


@dataclass(frozen=True)
class _Shape:
    """What two rows must have in common to use one recorded pass.

    Attributes:
        prefix: P, tokens of the prefix.
        suffixes: B, of the rounded row.
        width: L, room for each suffix.
        tokens: T, of the whole row.
        reads: N, places that are read.
    """

    prefix: int
    suffixes: int
    width: int
    tokens: int
    reads: int

    @classmethod
    def of(cls, packing: Packing, reads: int) -> _Shape:
        """The shape of a rounded row that is read at so many places."""
        tokens = packing.prefix + packing.total
        suffixes = len(packing.lengths)
        return cls(packing.prefix, suffixes, packing.width, tokens, size_above(reads, 16, 2))

    def has_room_for(self, packing: Packing) -> bool:
        """Whether there are places enough that the row itself does not read."""
        return self.reads - len(packing.reads) <= self.tokens - packing.total


class RowGraphs:
    """The recorded passes of a model.

    Args:
        model: a causal language model.
        most_bytes: that a pass may take beside the weights.
        recorder: records passes; None where the device cannot.
    """

    def __init__(
        self, model: PreTrainedModel, most_bytes: float, recorder: Recorder | None
    ) -> None:
        self._model = model
        self._most_bytes = most_bytes
        self._recorder = recorder if is_grouped(model) else None
        self._weights = 0
        self._seen: Counter[_Shape] = Counter()
        self._recorded: OrderedDict[_Shape, RecordedRow | None] = OrderedDict()

    def recorded(self, packing: Packing) -> RecordedRow | None:
        """The recorded pass for a row, which it then holds; None to run the row as it is.

        Args:
            packing: the row, its prefix inside.
        """
        if self._recorder is None or not packing.inside:
            return None
        if self._weights != (weights := weights_at(self._model)):
            self.forget()
            self._weights = weights
        whole = rounded(packing)
        shape = _Shape.of(whole, len(packing.reads))
        self._seen[shape] += 1
        if self._seen[shape] == 1 or not shape.has_room_for(packing):
            return None
        if shape in self._recorded:
            found = self._recorded[shape]
            if found is not None:
                found.hold(whole, packing)
        else:
            found = self._recorded[shape] = self._record(shape, whole, packing)
        self._recorded.move_to_end(shape)
        if len(self._recorded) > MOST_SHAPES:
            self._recorded.popitem(last=False)
        return found

    def _record(self, shape: _Shape, whole: Packing, packing: Packing) -> RecordedRow | None:
        assert self._recorder is not None
        if row_bytes(self._model, whole) > self._most_bytes:
            return None
        try:
            return RecordedRow(self._model, shape.reads, whole, packing, self._recorder)
        except Exception as error:  # whatever cannot be recorded runs as it is
            if is_out_of_memory(error):
                self.forget()
            return None

    def forget(self) -> None:
        """Drop all recorded passes and the memory that they hold."""
        self._recorded.clear()


class RecordedRow:
    """A forward and a backward pass over rows of one shape.

    Args:
        model: a causal language model.
        reads: N, places that are read.
        whole: the first row, rounded.
        packing: the same as it is.
        recorder: records the passes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reads: int,
        whole: Packing,
        packing: Packing,
        recorder: Recorder,
    ) -> None:
        device, table = input_device(model), embedding_table(model)
        self._model = model
        self._packing, self._layout = whole, RowLayout(whole)
        tokens = whole.prefix + whole.total
        self._reads = torch.zeros(reads, dtype=torch.long, device=device)
        self._positions = torch.zeros(1, tokens, dtype=torch.long, device=device)
        self._tensors = RowTensors(self._reads, self._positions, self._layout)
        self._row = torch.zeros(
            1, tokens, table.shape[1], dtype=table.dtype, device=device
        ).requires_grad_()
        self._arriving = torch.zeros(reads, table.shape[1], dtype=model.dtype, device=device)
        self._hidden: Tensor | None = None
        self._gradient: Tensor | None = None
        self.hold(whole, packing)
        self._forward, self._backward = recorder.record(self._run_forward, self._run_backward)

    def hold(self, whole: Packing, packing: Packing) -> None:
        """Put a row of the shape in place.

        Args:
            whole: the row, rounded.
            packing: the row as it is.
        """
        self._packing = whole
        self._layout.hold(whole)
        self._count, self.more = len(packing.reads), whole.total - packing.total
        # Places that nothing else reads: behind the row, and in the prefix.
        end = packing.prefix + packing.total
        spare = torch.cat([torch.arange(end, end + self.more), torch.arange(packing.prefix)])
        reads = torch.cat([packing.reads, spare[: len(self._reads) - self._count]])
        self._reads.copy_(reads)
        positions = packing.position_ids
        # What stands behind the row must not be further on than the row itself: some models compute
        # other positions as soon as one token lies beyond their first context.
        self._positions.copy_(whole.position_ids.clamp(max=int(positions.max())))

    def read(self, embeddings: Tensor) -> Tensor:
        """What enters the LM head where the row is read.

        Args:
            embeddings: (1, T, d), the rounded row; `more` tokens stand behind the row itself.

        Returns:
            (N, d), the places that the row itself has; differentiable.
        """
        replayed: Callable[..., Tensor] = _Replayed.apply
        return replayed(embeddings, self)

    def forward(self, embeddings: Tensor) -> Tensor:
        """The forward pass without a graph of its own."""
        self._row.detach().copy_(embeddings)
        self._forward()
        assert self._hidden is not None
        return self._hidden.detach()[: self._count].clone()

    def backward(self, arriving: Tensor) -> Tensor:
        """The gradient (1, T, d) of the last forward pass."""
        self._arriving[: self._count] = arriving
        self._arriving[self._count :] = 0
        self._backward()
        assert self._gradient is not None
        return self._gradient.clone()

    def _run_forward(self) -> None:
        self._hidden = None
        with torch.enable_grad():
            self._hidden = read_packed(
                self._model, self._row, self._packing, tensors=self._tensors
            ).hidden

    def _run_backward(self) -> None:
        assert self._hidden is not None
        (self._gradient,) = torch.autograd.grad(self._hidden, self._row, self._arriving)


class _Replayed(torch.autograd.Function):
    """A recorded pass as one differentiable function."""

    @staticmethod
    def forward(context: Any, embeddings: Tensor, recorded: RecordedRow) -> Tensor:
        context.recorded = recorded
        return recorded.forward(embeddings)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return context.recorded.backward(gradients[0]), None
