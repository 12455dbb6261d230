"""The one door to the model: represent, sample, differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from demur.chat.allocator import keep_freed_memory
from demur.chat.engine.attention import use_grouped_attention
from demur.chat.engine.buckets import PACKED_PADDING, halving, length_buckets
from demur.chat.engine.capability import shares_prefix, shortest_window
from demur.chat.engine.decoding import Prefilled, decode
from demur.chat.engine.forward import (
    LastPosition,
    input_device,
    input_embeddings,
    logits_of,
    read_packed,
    read_positions,
)
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.layers import decoder_layers
from demur.chat.engine.memory import MOST_SLOTS, room_for, slots_for
from demur.chat.engine.packing import Packing
from demur.chat.engine.plain import generate_whole, read_whole, replace_rows
from demur.chat.engine.prefix import PrefixStates, compute_prefix, suffix_states
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.sampler import Sample, SamplingSettings, Settled, random_stream
from demur.chat.engine.streaming import Stream
from demur.progress import SilentStage, Stage

Result = TypeVar("Result")

_AT_ONCE = 16
"""Short sequences that are read together at every position."""

PartialLoss = Callable[[Tensor, list[int]], Tensor]
"""Takes representations (b, d) and their places in the batch; returns their share of the loss."""


@dataclass(frozen=True)
class Reading:
    """What the model makes of queries and says to them.

    Attributes:
        representations: (N, d) float32 on the CPU.
        samples: for each query its sampled responses.
    """

    representations: Tensor
    samples: list[list[Sample]]


class Engine:
    """Runs a causal language model over conversations that share their opening.

    Attributes:
        shares_prefix: whether the shared path serves this model; found once, by comparing it with
            the plain path.
        most_read: tokens that one batch may hold; halved when memory runs out.
        most_trained: the same where a gradient is wanted.
        slots: responses sampled at once at most; halved when memory runs out.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        if input_device(model).type == "cpu":
            keep_freed_memory()
        room = room_for(model)
        self.most_read, self.most_trained, self.slots = room.read, room.trained, MOST_SLOTS
        use_grouped_attention(model)
        self.shares_prefix = shares_prefix(model)
        self._window = shortest_window(model)

    def represent(
        self, inputs: Inputs, prompt: Tensor | None = None, stage: Stage | None = None
    ) -> Tensor:
        """Representations of the last input token, (N, d) float32 on the CPU.

        Args:
            inputs: N conversations.
            prompt: (L, d) embeddings that take the place of the prompt span.
            stage: advanced by one for each conversation.
        """
        stage = stage or SilentStage()
        with torch.inference_mode():
            prefix, inputs = self._split(inputs, prompt)

            def read(rows: list[int]) -> list[Tensor]:
                last = self._read(inputs.select(rows), prefix, prompt)
                stage.advance(len(rows))
                return list(last.representation.float().cpu())

            return torch.stack(self._in_buckets(inputs, read))

    def states(self, conversations: Sequence[Tensor]) -> Tensor:
        """What enters the LM head at every position of some conversations.

        Args:
            conversations: the embeddings of each, (T, d).

        Returns:
            (N, d) float32 on the CPU, N tokens in all, in their order.
        """
        found: list[Tensor] = []
        device, dtype = input_device(self.model), self.model.dtype
        with torch.inference_mode():
            for start in range(0, len(conversations), _AT_ONCE):
                some = list(conversations[start : start + _AT_ONCE])
                # Padding on the right needs no mask: nothing after a token changes it.
                padded = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
                lengths = torch.tensor([len(one) for one in some])
                rows, places = torch.nonzero(
                    torch.arange(padded.shape[1])[None] < lengths[:, None], as_tuple=True
                )
                read = read_positions(self.model, padded.to(device, dtype), places, rows=rows)
                found.append(read.representation.float().cpu())
        return torch.cat(found)

    def prefix_embeddings(self, inputs: Inputs, prompt: Tensor | None) -> Tensor:
        """The embeddings of the opening that all conversations share, (P, d)."""
        with torch.no_grad():
            return self._prefix_embeddings(inputs, prompt)[0]

    def represent_layers(
        self, inputs: Inputs, prompt: Tensor | None = None, stage: Stage | None = None
    ) -> Tensor | None:
        """What each layer puts out at the last input token.

        Args:
            inputs: N conversations.
            prompt: (L, d) embeddings that take the place of the prompt span.
            stage: advanced by one for each conversation.

        Returns:
            (N, layers, d) float32 on the CPU, or None where the layers cannot be told apart.
        """
        stage = stage or SilentStage()
        if decoder_layers(self.model) is None:
            return None
        with torch.inference_mode():
            prefix, inputs = self._split(inputs, prompt)

            def read(rows: list[int]) -> list[Tensor]:
                last = self._read(inputs.select(rows), prefix, prompt, layers=True)
                stage.advance(len(rows))
                assert last.layers is not None
                return list(last.layers)

            return torch.stack(self._in_buckets(inputs, read))

    def read_and_sample(
        self,
        inputs: Inputs,
        queries: Sequence[str],
        settings: SamplingSettings,
        prompt: Tensor | None = None,
        limits: Sequence[int] | None = None,
        settled: Settled | None = None,
        stage: Stage | None = None,
    ) -> Reading:
        """Represent every query and sample its responses, reading each query once.

        Args:
            inputs: N conversations.
            queries: their texts, which key the random streams.
            settings: of the sampling.
            prompt: (L, d) embeddings that take the place of the prompt span.
            limits: new tokens at most for each query, where not `settings.most_tokens` for all.
            settled: stops a response whose verdict no continuation can change.
            stage: advanced by one for each response.
        """
        stage = stage or SilentStage()
        writer = ResponseWriter(self.model, self.tokenizer, settings, settled)
        limits = limits or [settings.most_tokens] * len(queries)
        streams = [
            (query, sample, random_stream(settings, text, sample)[:limit])
            for query, (text, limit) in enumerate(zip(queries, limits, strict=True))
            for sample in range(settings.samples)
        ]
        with torch.inference_mode():
            prefix, inputs = self._split(inputs, prompt)
            if prefix is not None and inputs.longest + settings.most_tokens > self._window:
                prefix, inputs = None, inputs.unshared()
            read = self._in_buckets(
                inputs, lambda rows: self._prefill(inputs, prefix, prompt, rows)
            )

            def sample(at_once: int) -> list[list[Sample]]:
                responses = [Growing(*stream) for stream in streams]
                if prefix is None:
                    return generate_whole(
                        self.model, inputs, prompt, responses, writer, stage, at_once
                    )
                return decode(self.model, prefix, read, responses, writer, at_once, stage)

            capacity = inputs.longest + settings.most_tokens
            samples, self.slots = halving(sample, min(self.slots, slots_for(self.model, capacity)))
        return Reading(
            torch.stack([query.representation for query in read]),
            samples,
        )

    def stream(self) -> Stream:
        """A new conversation that is answered while somebody reads."""
        return Stream(self.model, self.tokenizer, reuses=self.shares_prefix)

    def next_token_logits(self, representations: Tensor) -> Tensor:
        """Logits of the next token at representations (N, d); (N, V) float32 on the CPU."""
        with torch.inference_mode():
            return logits_of(self.model, representations).float().cpu()

    def prompt_gradient(
        self, inputs: Inputs, prompt: Tensor, partial_loss: PartialLoss
    ) -> tuple[float, Tensor]:
        """The loss of a batch and its gradient with respect to the prompt.

        All conversations run in one row behind the prefix. Where they need several, the prefix runs
        once with its graph kept, each row's backward pass ends at the prefix's keys and values, and
        one backward pass through the prefix follows.

        Args:
            inputs: B conversations whose prompt span the rows take.
            prompt: (L, d) float32.
            partial_loss: a bucket's share of the loss.

        Returns:
            The loss, and its gradient (L, d) float32 on the CPU.
        """

        if not self._shareable(inputs):
            inputs = inputs.unshared()

        def attempt(most_tokens: int) -> tuple[float, Tensor]:
            leaf = prompt.detach().clone().requires_grad_()
            buckets = self._buckets(inputs, range(len(inputs)), most_tokens)
            if len(buckets) == 1 and inputs.prefix:
                last = self._read_with_prefix(inputs.select(buckets[0]), leaf)
                loss = partial_loss(last.representation.float(), buckets[0])
                torch.autograd.backward(loss)
                assert leaf.grad is not None
                return float(loss.detach()), leaf.grad.float().cpu()
            return self._gradient_in_parts(inputs, leaf, buckets, partial_loss)

        result, self.most_trained = halving(attempt, self.most_trained)
        return result

    def _gradient_in_parts(
        self, inputs: Inputs, leaf: Tensor, buckets: list[list[int]], partial_loss: PartialLoss
    ) -> tuple[float, Tensor]:
        """Backward bucket by bucket, down to the prefix, and then once through the prefix."""
        prefix = self._prefix(inputs, leaf)
        leaves = prefix.as_leaves() if prefix is not None else None
        loss = 0.0
        for rows in buckets:
            last = self._read(inputs.select(rows), leaves, leaf)
            part = partial_loss(last.representation.float(), rows)
            torch.autograd.backward(part)
            loss += float(part.detach())
        if prefix is not None and leaves is not None:
            pairs = [
                (states, cut.grad)
                for states, cut in zip(prefix.tensors(), leaves.tensors(), strict=True)
                if states.requires_grad and cut.grad is not None
            ]
            torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        assert leaf.grad is not None
        return loss, leaf.grad.float().cpu()

    def _shareable(self, inputs: Inputs) -> bool:
        """Whether the shared path serves these conversations.

        Packed rows do without the sliding windows of a model, so each must fit in the shortest.
        """
        return self.shares_prefix and bool(inputs.prefix) and inputs.longest <= self._window

    def _split(self, inputs: Inputs, prompt: Tensor | None) -> tuple[PrefixStates | None, Inputs]:
        """The prefix's states where the shared path serves; otherwise whole conversations."""
        if not self._shareable(inputs):
            return None, inputs.unshared()
        return self._prefix(inputs, prompt), inputs

    def _prefix(self, inputs: Inputs, prompt: Tensor | None) -> PrefixStates | None:
        if not inputs.prefix:
            return None
        return compute_prefix(self.model, self._prefix_embeddings(inputs, prompt))

    def _prefix_embeddings(self, inputs: Inputs, prompt: Tensor | None) -> Tensor:
        embeddings = input_embeddings(self.model, torch.tensor([inputs.prefix]))
        if prompt is None:
            return embeddings
        return replace_rows(embeddings, inputs.prompt_span, prompt)

    def _read(
        self,
        inputs: Inputs,
        prefix: PrefixStates | None,
        prompt: Tensor | None,
        *,
        cache: Cache | None = None,
        logits: bool = False,
        layers: bool = False,
    ) -> LastPosition:
        if prefix is None:
            return read_whole(self.model, inputs, prompt, logits=logits, layers=layers)
        return read_packed(
            self.model,
            input_embeddings(self.model, torch.tensor([sum(inputs.suffixes, ())])),
            Packing(prefix.length, tuple(inputs.lengths), inside=False),
            cache=cache if cache is not None else prefix.cache(),
            logits=logits,
            layers=layers,
        )

    def _read_with_prefix(self, inputs: Inputs, prompt: Tensor) -> LastPosition:
        """Prefix and suffixes in one row, so that gradients need no detour."""
        suffixes = input_embeddings(self.model, torch.tensor([sum(inputs.suffixes, ())]))
        return read_packed(
            self.model,
            torch.cat([self._prefix_embeddings(inputs, prompt), suffixes], dim=1),
            Packing(len(inputs.prefix), tuple(inputs.lengths), inside=True),
        )

    def _prefill(
        self,
        inputs: Inputs,
        prefix: PrefixStates | None,
        prompt: Tensor | None,
        rows: list[int],
    ) -> list[Prefilled]:
        chosen = inputs.select(rows)
        cache = prefix.cache() if prefix is not None else None
        last = self._read(chosen, prefix, prompt, cache=cache, logits=True)
        assert last.logits is not None
        states: list[tuple[Tensor, ...]] = [()] * len(rows)
        if cache is not None and prefix is not None:
            packing = Packing(prefix.length, tuple(chosen.lengths), inside=False)
            states = suffix_states(cache, packing)
        return [
            Prefilled(
                representation=last.representation[row].float().cpu(),
                logits=last.logits[row].float().cpu(),
                states=states[row],
                length=chosen.lengths[row],
            )
            for row in range(len(rows))
        ]

    def _buckets(self, inputs: Inputs, waiting: Sequence[int], most_tokens: int) -> list[list[int]]:
        """Rows that are read together."""
        lengths = [len(inputs.suffixes[row]) for row in waiting]
        limit, padding = float(most_tokens), 1.0
        if inputs.prefix:
            limit, padding = min(limit, self._window - len(inputs.prefix)), PACKED_PADDING
        buckets = length_buckets(lengths, limit, padding)
        return [[waiting[index] for index in bucket] for bucket in buckets]

    def _in_buckets(
        self, inputs: Inputs, work: Callable[[list[int]], list[Result]]
    ) -> list[Result]:
        """Apply `work` to buckets of rows; its results in the order of the rows."""
        results: dict[int, Result] = {}

        def attempt(most_tokens: int) -> None:
            waiting = [row for row in range(len(inputs)) if row not in results]
            for rows in self._buckets(inputs, waiting, most_tokens):
                results.update(zip(rows, work(rows), strict=True))

        _, self.most_read = halving(attempt, self.most_read)
        return [results[row] for row in range(len(inputs))]
