"""The one door to the model: represent, sample, differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from demur.chat.engine.attention import use_grouped_attention
from demur.chat.engine.buckets import halving, length_buckets
from demur.chat.engine.capability import shares_prefix, shortest_window
from demur.chat.engine.decoding import Prefilled, decode
from demur.chat.engine.forward import (
    LastPosition,
    embedding_table,
    input_embeddings,
    logits_of,
    read_positions,
)
from demur.chat.engine.inputs import Inputs, pad
from demur.chat.engine.plain import generate_whole, read_whole, replace_rows
from demur.chat.engine.prefix import PrefixStates, compute_prefix, suffix_states
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.sampler import Sample, SamplingSettings, Settled, random_stream
from demur.progress import SilentStage, Stage

Result = TypeVar("Result")

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
        most_tokens: padded tokens that one batch may hold; halved when memory runs out.
        slots: responses sampled at once at most; halved when memory runs out.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.most_tokens = 4096
        self.slots = 256
        use_grouped_attention(model)
        self.shares_prefix = shares_prefix(model)

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
            window = shortest_window(self.model)
            if prefix is not None and inputs.longest + settings.most_tokens > window:
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

            samples, self.slots = halving(sample, self.slots)
        return Reading(
            torch.stack([query.representation for query in read]),
            samples,
        )

    def next_token_logits(self, representations: Tensor) -> Tensor:
        """Logits of the next token at representations (N, d); (N, V) float32 on the CPU."""
        with torch.inference_mode():
            return logits_of(self.model, representations).float().cpu()

    def prompt_gradient(
        self, inputs: Inputs, prompt: Tensor, partial_loss: PartialLoss
    ) -> tuple[float, Tensor]:
        """The loss of a batch and its gradient with respect to the prompt.

        The prefix runs once with its graph kept; each bucket's backward pass ends at the prefix's
        keys and values, and one backward pass through the prefix follows.

        Args:
            inputs: B conversations whose prompt span the rows take.
            prompt: (L, d) float32.
            partial_loss: a bucket's share of the loss.

        Returns:
            The loss, and its gradient (L, d) float32 on the CPU.
        """

        def attempt(most_tokens: int) -> tuple[float, Tensor]:
            leaf = prompt.detach().clone().requires_grad_()
            prefix, rest = self._split(inputs, leaf)
            leaves = prefix.as_leaves() if prefix is not None else None
            loss = 0.0
            for rows in length_buckets(rest.lengths, most_tokens):
                last = self._read(rest.select(rows), leaves, leaf)
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

        result, self.most_tokens = halving(attempt, self.most_tokens)
        return result

    def _split(self, inputs: Inputs, prompt: Tensor | None) -> tuple[PrefixStates | None, Inputs]:
        """The prefix's states where the shared path serves; otherwise whole conversations."""
        if not self.shares_prefix or not inputs.prefix:
            return None, inputs.unshared()
        ids = torch.tensor([inputs.prefix])
        embeddings = input_embeddings(self.model, ids)
        if prompt is not None:
            embeddings = replace_rows(embeddings, inputs.prompt_span, prompt)
        return compute_prefix(self.model, embeddings), inputs

    def _read(
        self,
        inputs: Inputs,
        prefix: PrefixStates | None,
        prompt: Tensor | None,
        *,
        cache: Cache | None = None,
        logits: bool = False,
    ) -> LastPosition:
        if prefix is None:
            return read_whole(self.model, inputs, prompt, logits=logits)
        ids, lengths = pad(inputs.suffixes, embedding_table(self.model).device)
        return read_positions(
            self.model,
            input_embeddings(self.model, ids),
            lengths - 1,
            cache=cache if cache is not None else prefix.expanded(len(inputs)),
            logits=logits,
        )

    def _prefill(
        self,
        inputs: Inputs,
        prefix: PrefixStates | None,
        prompt: Tensor | None,
        rows: list[int],
    ) -> list[Prefilled]:
        chosen = inputs.select(rows)
        cache = prefix.expanded(len(rows)) if prefix is not None else None
        last = self._read(chosen, prefix, prompt, cache=cache, logits=True)
        assert last.logits is not None
        states = suffix_states(cache, prefix.length, chosen.lengths) if cache and prefix else None
        return [
            Prefilled(
                representation=last.representation[row].float().cpu(),
                logits=last.logits[row].float().cpu(),
                states=states[row] if states else (),
                length=chosen.lengths[row],
            )
            for row in range(len(rows))
        ]

    def _in_buckets(
        self, inputs: Inputs, work: Callable[[list[int]], list[Result]]
    ) -> list[Result]:
        """Apply `work` to buckets of rows; its results in the order of the rows."""
        results: dict[int, Result] = {}

        def attempt(most_tokens: int) -> None:
            waiting = [row for row in range(len(inputs)) if row not in results]
            lengths = [len(inputs.suffixes[row]) for row in waiting]
            for bucket in length_buckets(lengths, most_tokens):
                rows = [waiting[index] for index in bucket]
                results.update(zip(rows, work(rows), strict=True))

        _, self.most_tokens = halving(attempt, self.most_tokens)
        return [results[row] for row in range(len(inputs))]
