"""Sample responses to all queries of a condition in one running batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine.forward import (
    attention_mask,
    input_device,
    input_embeddings,
    read_positions,
)
from demur.chat.engine.prefix import PrefixStates
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.sampler import Sample
from demur.chat.engine.slots import SlotCache
from demur.progress import Stage


@dataclass(frozen=True)
class Prefilled:
    """A query that the model has read.

    Attributes:
        representation: (d,) float32 on the CPU.
        logits: (V,) float32 on the CPU, of the response's first token.
        states: keys and values of the suffix for each layer in turn, each (H, S, D); empty on the
            plain path.
        length: S, the number of tokens of the suffix.
    """

    representation: Tensor
    logits: Tensor
    states: tuple[Tensor, ...]
    length: int


def decode(
    model: PreTrainedModel,
    prefix: PrefixStates,
    queries: Sequence[Prefilled],
    responses: Sequence[Growing],
    writer: ResponseWriter,
    slots: int,
    stage: Stage,
) -> list[list[Sample]]:
    """Sample `responses` over one shared prefix.

    All responses run in one batch of at most `slots`; one that is finished leaves and the next
    takes its place.

    Returns:
        For each query its samples in order.
    """
    samples: dict[tuple[int, int], Sample] = {}
    capacity = prefix.length + max(query.length for query in queries) + writer.settings.most_tokens
    cache = SlotCache(prefix, min(slots, len(responses)), capacity)
    waiting = deque(responses)
    running: list[Growing] = []

    def finish(rows: list[Growing], ended: list[Sample | None]) -> None:
        for row, sample in zip(rows, ended, strict=True):
            if sample is not None:
                samples[row.query, row.sample] = sample
                stage.advance()

    while waiting or running:
        room = cache.slots - len(running)
        arriving = [waiting.popleft() for _ in range(min(room, len(waiting)))]
        if arriving:
            logits = torch.stack([queries[row.query].logits for row in arriving])
            ended = writer.write(arriving, logits)
            finish(arriving, ended)
            for row, sample in zip(arriving, ended, strict=True):
                if sample is None:
                    cache.add(queries[row.query].states)
                    running.append(row)
        if not running:
            continue
        ended = writer.write(running, step(model, cache, [row.tokens[-1] for row in running]))
        finish(running, ended)
        for slot in reversed(range(len(running))):
            if ended[slot] is not None:
                cache.remove(slot)
                running[slot] = running[-1]
                running.pop()
    counts = [0] * len(queries)
    for query, _ in samples:
        counts[query] += 1
    return [[samples[query, index] for index in range(count)] for query, count in enumerate(counts)]


def step(model: PreTrainedModel, cache: SlotCache, tokens: Sequence[int]) -> Tensor:
    """Feed one token to each active slot.

    Args:
        tokens: A token ids, in the order of the slots.

    Returns:
        (A, V) logits of what follows.
    """
    device = input_device(model)
    position_ids, visible = cache.step_inputs()
    embeddings = input_embeddings(model, torch.tensor(tokens)[:, None])
    last = read_positions(
        model,
        embeddings,
        torch.zeros(len(tokens), dtype=torch.long),
        cache=cache.cache,
        logits=True,
        position_ids=position_ids.to(device),
        attention_mask=attention_mask(model, visible.to(device), embeddings.dtype),
    )
    cache.stepped()
    assert last.logits is not None
    return last.logits
