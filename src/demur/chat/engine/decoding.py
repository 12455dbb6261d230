"""Sample responses to all queries of a condition in one running batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demur.chat.engine.decoder import Decoder
from demur.chat.engine.prefix import SuffixStates
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.sampler import Sample
from demur.chat.engine.slots import Arrival
from demur.progress import Stage


@dataclass(frozen=True)
class Sampled:
    """Representations of queries and responses to them.

    Attributes:
        representations: (N, d) float32 on the CPU.
        samples: for each query its sampled responses.
    """

    representations: Tensor
    samples: list[list[Sample]]


@dataclass(frozen=True)
class Prefilled:
    """A query that the model has read.

    Attributes:
        representation: (d,) float32 on the CPU.
        logits: (V,), of the response's first token.
        states: keys and values of its suffix and others; None on the plain path.
        place: of its suffix among these.
        length: S, the number of tokens of the suffix.
    """

    representation: Tensor
    logits: Tensor
    states: SuffixStates | None
    place: int
    length: int

    @property
    def arrival(self) -> Arrival:
        """What puts a response to it into a slot."""
        assert self.states is not None
        return Arrival(self.states, self.place)


def decode(
    decoder: Decoder,
    queries: Sequence[Prefilled],
    responses: Sequence[Growing],
    writer: ResponseWriter,
    most: int,
    stage: Stage,
) -> list[list[Sample]]:
    """Sample `responses` over one shared prefix.

    All responses run in one batch of at most `most`; one that is finished leaves and the next
    takes its place.

    Args:
        decoder: has the prefix in its slots, and room for `most` responses.
        queries: all of them.
        responses: their responses, in any order.
        writer: draws tokens.
        most: responses that run at once.
        stage: advanced by one for each response.

    Returns:
        For each query its samples in order.
    """
    samples: dict[tuple[int, int], Sample] = {}
    cache = decoder.cache
    waiting = deque(responses)
    running: list[Growing] = []

    def finish(rows: list[Growing], ended: list[Sample | None]) -> None:
        for row, sample in zip(rows, ended, strict=True):
            if sample is not None:
                samples[row.query, row.sample] = sample
                stage.advance()

    while waiting or running:
        room = most - len(running)
        arriving = [waiting.popleft() for _ in range(min(room, len(waiting)))]
        if arriving:
            logits = torch.stack([queries[row.query].logits for row in arriving])
            ended = writer.write(arriving, logits)
            finish(arriving, ended)
            staying = [row for row, end in zip(arriving, ended, strict=True) if end is None]
            cache.add([queries[row.query].arrival for row in staying])
            running += staying
        if not running:
            continue
        ended = writer.write(running, decoder.step([row.tokens[-1] for row in running]))
        finish(running, ended)
        leaving = [slot for slot, end in enumerate(ended) if end is not None]
        if leaving:
            running = [running[slot] for slot in cache.remove(leaving)]
    counts = [0] * len(queries)
    for query, _ in samples:
        counts[query] += 1
    return [[samples[query, index] for index in range(count)] for query, count in enumerate(counts)]
