"""One more token for every response of a running batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.forward import (
    attention_mask,
    input_device,
    input_embeddings,
    read_positions,
)
from demur.chat.engine.memory import slots_for
from demur.chat.engine.prefix import PrefixStates
from demur.chat.engine.recording import Recorder, weights_at
from demur.chat.engine.shapes import size_above
from demur.chat.engine.slots import SlotCache


class Decoder:
    """Runs a model over the slots of a cache, one token each.

    Where the device can record work, a step is recorded for some numbers of slots and tokens, and
    replayed for all numbers that round up to these: slots without a sequence write behind the last
    token of their slot. A decoder is kept for the next batch, as its recorded steps are.

    Args:
        model: a causal language model.
        prefix: what every sequence opens with.
        slots: sequences that may run at once.
        capacity: tokens of the longest sequence, prefix included.
        recorder: records steps; None to run each as it is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prefix: PrefixStates,
        slots: int,
        capacity: int,
        recorder: Recorder | None = None,
    ) -> None:
        self.cache = SlotCache(prefix, slots, capacity)
        self.weights = weights_at(model) if recorder is not None else 0
        self._model, self._recorder = model, recorder
        self._logits: Tensor | None = None  # of recorded steps: (slots, V)
        self._seen: Counter[tuple[int, int]] = Counter()
        self._steps: dict[tuple[int, int], _RecordedStep | None] = {}

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Feed one token to each active slot.

        Args:
            tokens: A token ids, in the order of the slots.

        Returns:
            (A, V) logits of what follows, which the next step may overwrite.
        """
        recorded = self._recorded() if self._recorder is not None else None
        if recorded is not None:
            logits = recorded.run(tokens, self.cache.lengths)
        else:
            lengths = torch.tensor(self.cache.lengths)
            width = max(self.cache.lengths) + 1
            logits = run_step(self._model, self.cache, torch.tensor(tokens), lengths, width)
            if self._recorder is not None and self._logits is None:
                self._logits = logits.new_zeros(self.cache.slots, logits.shape[1])
        self.cache.stepped()
        return logits

    def _recorded(self) -> _RecordedStep | None:
        slots = min(size_above(self.cache.active, 64, 2), self.cache.slots)
        width = min(size_above(max(self.cache.lengths) + 1, 128), self.cache.spare)
        self._seen[slots, width] += 1
        if self._seen[slots, width] == 1:
            return None
        if (slots, width) not in self._steps:
            self._steps[slots, width] = self._record(slots, width)
        return self._steps[slots, width]

    def _record(self, slots: int, width: int) -> _RecordedStep | None:
        assert self._recorder is not None
        assert self._logits is not None
        into = self._logits[:slots]
        try:
            return _RecordedStep(self._model, self.cache, into, width, self._recorder)
        except Exception:  # whatever cannot be recorded runs as it is
            return None


class Decoders:
    """Makes decoders for a model, and keeps the last one where its recorded steps can serve again.

    Args:
        model: a causal language model.
        recorder: records steps; None to keep nothing.
    """

    def __init__(self, model: PreTrainedModel, recorder: Recorder | None) -> None:
        self._model, self._recorder = model, recorder
        self._kept: Decoder | None = None

    def slots_at(self, capacity: int) -> int:
        """How many sequences of `capacity` tokens may run at once."""
        kept = self._kept_for(capacity)
        fitting = slots_for(self._model, self._rounded(capacity))
        return fitting if kept is None else max(fitting, kept.cache.slots)

    @contextmanager
    def opened(
        self, prefix: PrefixStates, slots: int, capacity: int, most: int
    ) -> Iterator[Decoder]:
        """A decoder whose slots open with a prefix. It is dropped where the work inside fails.

        Args:
            prefix: what every sequence opens with.
            slots: sequences that run at once.
            capacity: tokens of the longest sequence, prefix included.
            most: slots that there is room for.
        """
        decoder, self._kept = self._kept_for(capacity), None
        if decoder is not None and slots <= decoder.cache.slots:
            decoder.cache.open(prefix)
        else:
            decoder = None  # its memory is free for the next one
            if self._recorder is not None:
                slots = max(slots, min(size_above(slots, 64, 2), most))
            decoder = Decoder(self._model, prefix, slots, self._rounded(capacity), self._recorder)
        yield decoder
        if self._recorder is not None:
            self._kept = decoder

    def forget(self) -> None:
        """Drop what is kept, and the memory that it holds."""
        self._kept = None

    def _rounded(self, capacity: int) -> int:
        return capacity if self._recorder is None else size_above(capacity, 128)

    def _kept_for(self, capacity: int) -> Decoder | None:
        """The decoder that is kept, if it has room for such sequences; otherwise it is dropped."""
        if self._kept is not None:
            weights = weights_at(self._model)
            if capacity > self._kept.cache.spare or weights != self._kept.weights:
                self._kept = None
        return self._kept


class _RecordedStep:
    """A step of the first slots, whose sequences have some number of tokens at most.

    Args:
        model: a causal language model.
        cache: has the slots.
        logits: (A, V), where those of the A slots are put; all recorded steps share it.
        width: places that a slot may look at.
        recorder: records the step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: SlotCache,
        logits: Tensor,
        width: int,
        recorder: Recorder,
    ) -> None:
        self._spare, self._logits, slots = cache.spare, logits, len(logits)
        # Tokens and the places where they go. At first no slot has a sequence.
        self._inputs = torch.tensor([[0] * slots, [cache.spare] * slots])
        self._inputs = self._inputs.to(input_device(model))

        def work() -> None:
            tokens, positions = self._inputs.unbind()
            self._logits.copy_(run_step(model, cache, tokens, positions, width))

        (self._replay,) = recorder.record(work)

    def run(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """The logits (A, V) behind A tokens at places `lengths`."""
        missing = self._inputs.shape[1] - len(tokens)
        inputs = [[*tokens, *[0] * missing], [*lengths, *[self._spare] * missing]]
        self._inputs.copy_(torch.tensor(inputs))
        self._replay()
        return self._logits[: len(tokens)]


def run_step(
    model: PreTrainedModel, cache: SlotCache, tokens: Tensor, positions: Tensor, width: int
) -> Tensor:
    """Run a model over the first slots of a cache.

    Args:
        model: a causal language model.
        cache: grows by one token a slot.
        tokens: (A,) token ids.
        positions: (A,), the place of each in its slot.
        width: places that a slot may look at; all positions of sequences lie below.

    Returns:
        (A, V) logits of what follows.
    """
    device = input_device(model)
    cache.point_at(positions, width)
    embeddings = input_embeddings(model, tokens[:, None])
    positions = positions.to(device)
    visible = torch.arange(width, device=device)[None] <= positions[:, None]
    last = read_positions(
        model,
        embeddings,
        torch.zeros(len(tokens), dtype=torch.long, device=device),
        rows=torch.arange(len(tokens), device=device),
        cache=cache.cache,
        logits=True,
        # Some models compute other positions as soon as one token lies beyond their first context,
        # so a slot without a sequence is at the first position.
        position_ids=torch.where(positions < cache.spare, positions, 0)[:, None],
        attention_mask=attention_mask(model, visible[:, None, None], embeddings.dtype),
    )
    assert last.logits is not None
    return last.logits
