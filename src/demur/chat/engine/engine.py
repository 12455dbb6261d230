"""The single entry point to a model: represent, score, sample, differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demur.chat.engine.architecture import decoder_layers, shortest_window
from demur.chat.engine.attention import use_grouped_attention
from demur.chat.engine.buckets import halving, overhead_of
from demur.chat.engine.capability import PrefixSharing, judge_paths
from demur.chat.engine.decoder import Decoders
from demur.chat.engine.decoding import Prefilled, Sampled, decode
from demur.chat.engine.finite import FiniteNumbers
from demur.chat.engine.forward import input_device, read_positions
from demur.chat.engine.gradient import PartialLoss, gradient_of
from demur.chat.engine.head import Head
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.memory import ceilings, room_for
from demur.chat.engine.plain import generate_whole
from demur.chat.engine.prefix import PrefixStates, SuffixStates
from demur.chat.engine.reading import (
    packing_of,
    parts_of,
    prefix_states,
    read_part,
    read_targets,
    states_at_targets,
)
from demur.chat.engine.recording import recorder_for
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.row_graphs import RowGraphs
from demur.chat.engine.sampler import Sample, SamplingSettings, Settled, random_stream
from demur.chat.engine.streaming import Stream
from demur.chat.engine.targets import Read, TargetTokens, TokenReader, log_probability
from demur.chat.engine.turn_end import FILES_ONLY, TurnEnd
from demur.progress import SilentStage, Stage

Result = TypeVar("Result")

_AT_ONCE = 16
"""Short sequences that are read together at every position."""


class Engine:
    """Runs a causal language model over conversations that share their opening.

    Args:
        model: in evaluation mode; no parameter requires a gradient.
        tokenizer: the model's own.
        prefix_sharing: `auto` shares the computation of the opening where that is exact for the
            model, `on` insists on it, `off` runs whole conversations.
        name: name of the model in messages.
        turn_end: what ends an answer, beside what the model's files call its end.

    Attributes:
        verdict: which path serves this model and why; found once, by comparing the two.
        shares_prefix: whether the shared path is taken.
        most_read: tokens that one batch may hold; halved when memory runs out.
        most_trained: the same where a gradient is wanted.
        slots: responses sampled at once at most; halved when memory runs out.
        head: the LM head, which bounds the logits that are computed at once.

    Raises:
        DemurError: the model cannot be run, gives NaN, or cannot do what `prefix_sharing` asks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        prefix_sharing: PrefixSharing = "auto",
        name: str = "The model",
        turn_end: TurnEnd = FILES_ONLY,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.turn_end = turn_end
        room = self._room = room_for(model)
        self.most_read, self.most_trained, self.slots = (
            room.read,
            room.trained,
            ceilings(model).slots,
        )
        use_grouped_attention(model)
        self.verdict = judge_paths(model, prefix_sharing, name)
        self.shares_prefix = self.verdict.shares_prefix
        self._numbers = FiniteNumbers(model, name)
        self.head = Head(model, room.logits, self._numbers)
        self._window, self._overhead = shortest_window(model), overhead_of(input_device(model))
        recorder = recorder_for(model)
        self._rows = RowGraphs(model, room.free, recorder)
        self._decoders = Decoders(model, recorder)

    def represent(
        self, inputs: Inputs, prompt: Tensor | None = None, stage: Stage | None = None
    ) -> Tensor:
        """Representations of the last input token, (N, d) float32 on the CPU.

        Args:
            inputs: N conversations.
            prompt: (L, d) embeddings that take the place of the prompt span.
            stage: advanced by one for each conversation.
        """
        return self.score(inputs.without_targets(), prompt, stage=stage).representations

    def score(
        self,
        inputs: Inputs,
        prompt: Tensor | None = None,
        reader: TokenReader = log_probability,
        stage: Stage | None = None,
    ) -> Read:
        """Log-probabilities of target tokens, and representations of the last input token.

        Every target is read behind its query (teacher forcing). The tokens of a query are read once
        for all of its targets, and those of the opening once for all queries.

        Args:
            inputs: N conversations with their targets.
            prompt: (L, d) embeddings that take the place of the prompt span.
            reader: what to read of the logits that predict target tokens, if not their
                log-probabilities.
            stage: advanced by one for each conversation.

        Returns:
            Representations (N, d) and token values (n,), or (n, k) as the reader returns them, on
            the CPU.

        Raises:
            DemurError: the model computes values that are not numbers.
        """
        stage = stage or SilentStage()
        with torch.inference_mode():
            prefix, inputs = self._split(inputs, prompt)

            def read(rows: list[int]) -> list[tuple[Tensor, Tensor]]:
                positions = read_part(self.model, inputs.select(rows), prefix, prompt)
                self._numbers.check_hidden(positions.hidden)
                part = read_targets(self.head, positions, inputs, rows, reader)
                counts = [sum(some) for some in part.lengths]
                stage.advance(len(rows))
                values = torch.split(part.token_values, counts)
                return list(zip(part.representations, values, strict=True))

            found = self._in_parts(inputs, read)
        values = [value for _, value in found if len(value)]
        return Read(
            representations=torch.stack([representation for representation, _ in found]),
            token_values=torch.cat(values) if values else torch.zeros(0),
            tokens=TargetTokens.of(inputs, range(len(inputs))),
            lengths=tuple(tuple(map(len, inputs.targets_of(row))) for row in range(len(inputs))),
        )

    def target_states(
        self, inputs: Inputs, prompt: Tensor | None = None, stage: Stage | None = None
    ) -> Tensor:
        """What enters the LM head where the model predicts each target token.

        Args:
            inputs: N conversations with their targets, n tokens in all, at least one.
            prompt: (L, d) embeddings that take the place of the prompt span.
            stage: advanced by one for each conversation.

        Returns:
            (n, d) float32 on the CPU, query by query, target by target.

        Raises:
            DemurError: the model computes values that are not numbers.
        """
        stage = stage or SilentStage()
        with torch.inference_mode():
            prefix, inputs = self._split(inputs, prompt)

            def read(rows: list[int]) -> list[Tensor]:
                positions = read_part(self.model, inputs.select(rows), prefix, prompt)
                self._numbers.check_hidden(positions.hidden)
                stage.advance(len(rows))
                return states_at_targets(positions, inputs, rows)

            return torch.cat(self._in_parts(inputs, read))

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
                found.append(read.hidden.float().cpu())
        return torch.cat(found)

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
            prefix, inputs = self._split(inputs.without_targets(), prompt)

            def read(rows: list[int]) -> list[Tensor]:
                chosen = inputs.select(rows)
                positions = read_part(self.model, chosen, prefix, prompt, layers=True)
                stage.advance(len(rows))
                assert positions.layers is not None
                self._numbers.check_hidden(positions.layers)
                return list(positions.layers)

            return torch.stack(self._in_parts(inputs, read))

    def read_and_sample(
        self,
        inputs: Inputs,
        keys: Sequence[str],
        settings: SamplingSettings,
        prompt: Tensor | None = None,
        limits: Sequence[int] | None = None,
        settled: Settled | None = None,
        stage: Stage | None = None,
        opening: Sequence[int] = (),
    ) -> Sampled:
        """Represent every query and sample its responses, reading each query once.

        Args:
            inputs: N conversations.
            keys: for each what keys its random streams; see `random_stream`.
            settings: settings of the sampling.
            prompt: (L, d) embeddings that take the place of the prompt span.
            limits: new tokens at most for each query; `settings.most_tokens` for all by default.
            settled: stops a response whose verdict no continuation can change.
            stage: advanced by one for each response.
            opening: ids at the end of every conversation that the texts of responses begin with.
        """
        stage = stage or SilentStage()
        numbers, turn_end = self._numbers, self.turn_end
        writer = ResponseWriter(
            self.model, self.tokenizer, settings, settled, numbers, turn_end, opening
        )
        limits = limits or [settings.most_tokens] * len(keys)
        streams = [
            (query, sample, random_stream(settings, key, sample)[:limit])
            for query, (key, limit) in enumerate(zip(keys, limits, strict=True))
            for sample in range(settings.samples)
        ]
        with torch.inference_mode():
            prefix, inputs = self._split(inputs.without_targets(), prompt)
            if prefix is not None and inputs.longest + settings.most_tokens > self._window:
                prefix, inputs = None, inputs.unshared()
            read = self._in_parts(inputs, lambda rows: self._prefill(inputs, prefix, prompt, rows))

            def sample(at_once: int) -> list[list[Sample]]:
                responses = [Growing(*stream) for stream in streams]
                if prefix is None:
                    return generate_whole(
                        self.model, inputs, prompt, responses, writer, stage, at_once
                    )
                slots = min(at_once, len(responses))
                with self._decoders.opened(prefix, slots, capacity, at_once) as decoder:
                    return decode(decoder, read, responses, writer, slots, stage)

            capacity = inputs.longest + settings.most_tokens
            samples, self.slots = halving(
                sample, min(self.slots, self._decoders.slots_at(capacity))
            )
        return Sampled(torch.stack([query.representation for query in read]), samples)

    def stream(self) -> Stream:
        """A new conversation that is answered token by token, while its answer is shown."""
        numbers, turn_end = self._numbers, self.turn_end
        return Stream(self.model, self.tokenizer, numbers, turn_end, reuses=self.shares_prefix)

    def next_token_logits(self, representations: Tensor) -> Tensor:
        """Logits of the next token at representations (N, d); (N, V) float32 on the CPU."""
        with torch.inference_mode():
            logits = self.head.logits(representations).float().cpu()
        self._numbers.check_logits(logits)
        return logits

    def prompt_gradient(
        self,
        inputs: Inputs,
        prompt: Tensor,
        partial_loss: PartialLoss,
        reader: TokenReader = log_probability,
    ) -> tuple[float, Tensor]:
        """The loss of a batch and its gradient with respect to the prompt.

        Args:
            inputs: B conversations whose prompt span the rows take, with targets if the loss reads
                any.
            prompt: (L, d) float32.
            partial_loss: the share of the loss of a part of the batch.
            reader: what to read of the logits that predict target tokens, if not their
                log-probabilities.

        Returns:
            The loss, and its gradient (L, d) float32 on the CPU.
        """
        if not self._shareable(inputs):
            inputs = inputs.unshared()

        def attempt(most_tokens: int) -> tuple[float, Tensor]:
            parts = self._parts(inputs, range(len(inputs)), most_tokens)
            return gradient_of(self.head, inputs, prompt, parts, partial_loss, reader, self._rows)

        width = len(inputs.prefix) + max(inputs.lengths)
        most = min(self.most_trained, self._room.trained_at(self.model, width))
        result, fitting = halving(attempt, most, release=self._forget)
        if fitting < most:
            self.most_trained = fitting
        return result

    def _shareable(self, inputs: Inputs) -> bool:
        """Whether the shared path serves these conversations.

        Packed rows do without the sliding windows of a model, so each must fit in the shortest.
        """
        return self.shares_prefix and bool(inputs.prefix) and inputs.longest <= self._window

    def _split(self, inputs: Inputs, prompt: Tensor | None) -> tuple[PrefixStates | None, Inputs]:
        """The prefix's states where the shared path serves; otherwise whole conversations."""
        if not self._shareable(inputs):
            return None, inputs.unshared()
        return prefix_states(self.model, inputs, prompt), inputs

    def _prefill(
        self,
        inputs: Inputs,
        prefix: PrefixStates | None,
        prompt: Tensor | None,
        rows: list[int],
    ) -> list[Prefilled]:
        chosen = inputs.select(rows)
        cache = prefix.cache() if prefix is not None else None
        last = read_part(self.model, chosen, prefix, prompt, cache=cache, logits=True)
        assert last.logits is not None
        self._numbers.check_hidden(last.hidden)
        states = None
        if cache is not None:
            states = SuffixStates.of(cache, packing_of(chosen, inside=False))
        hidden = last.hidden.float().cpu()
        return [
            Prefilled(hidden[row], last.logits[row], states, row, chosen.lengths[row])
            for row in range(len(rows))
        ]

    def _forget(self) -> None:
        """Give back the memory of what is kept to be faster."""
        self._rows.forget()
        self._decoders.forget()

    def _parts(self, inputs: Inputs, waiting: Sequence[int], most: int) -> list[list[int]]:
        return parts_of(inputs, waiting, most, self._window, self._overhead)

    def _in_parts(self, inputs: Inputs, work: Callable[[list[int]], list[Result]]) -> list[Result]:
        """Apply `work` to parts of a batch; its results in the order of the batch."""
        results: dict[int, Result] = {}

        def attempt(most_tokens: int) -> None:
            waiting = [row for row in range(len(inputs)) if row not in results]
            for rows in self._parts(inputs, waiting, most_tokens):
                results.update(zip(rows, work(rows), strict=True))

        _, self.most_read = halving(attempt, self.most_read, release=self._forget)
        return [results[row] for row in range(len(inputs))]
