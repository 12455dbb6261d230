"""Measure queries under a condition: representations, sampled responses, verdicts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from demur.chat import ChatModel, Condition
from demur.chat.engine import Sample, SamplingSettings
from demur.judges import RefusalJudge
from demur.progress import Progress
from demur.runs import Measurement, Queries, Response, RunFolder

RESPONSES_AT_ONCE = 256
"""How many responses make a batch, after which the measurement is saved."""


@dataclass(frozen=True)
class Protocol:
    """How responses are sampled and counted.

    Attributes:
        sampling: of each response; its `most_tokens` is the larger of the two limits.
        tokens_harmful: new tokens of a response to a harmful query at most.
        tokens_harmless: the same for harmless queries.
        kept: how many of the samples count, the longest in words first.
        cut_unfinished: whether the last paragraph of a response that ran into the limit is cut.
        whole: whether somebody reads more of a response than the verdict on its refusal.
    """

    sampling: SamplingSettings
    tokens_harmful: int
    tokens_harmless: int
    kept: int
    cut_unfinished: bool
    whole: bool = False

    @property
    def reads_whole_responses(self) -> bool:
        """Whether what counts depends on more than the verdict, so that none may stop early."""
        return self.whole or self.cut_unfinished or self.kept < self.sampling.samples


def measure(
    model: ChatModel,
    queries: Queries,
    condition: Condition,
    protocol: Protocol,
    judge: RefusalJudge,
    progress: Progress,
    *,
    folder: RunFolder | None = None,
    name: str = "",
    description: str = "Reading queries",
) -> Measurement:
    """Measure queries under one condition, batch by batch.

    Args:
        model: whose representations and responses are wanted.
        queries: N of them.
        condition: what stands before them.
        protocol: of the sampling.
        judge: decides which responses refuse.
        progress: hears of it.
        folder: where batches are kept; a measurement that was stopped goes on after the last one.
        name: of the measurement in the folder.
        description: of the stage.
    """
    done = folder.load_measurement(name, condition.name, queries) if folder else None
    responses = list(done.responses) if done else []
    parts = [done.representations] if done else []
    settled = None if protocol.reads_whole_responses else judge.is_settled
    at_once = max(1, RESPONSES_AT_ONCE // protocol.sampling.samples)
    total = len(queries) * protocol.sampling.samples
    with progress.stage(f"{description}: {condition.name}", total, "responses") as stage:
        stage.advance(len(responses) * protocol.sampling.samples)
        while len(responses) < len(queries):
            batch = range(len(responses), min(len(responses) + at_once, len(queries)))
            reading = model.read_and_sample(
                [queries.texts[row] for row in batch],
                condition,
                protocol.sampling,
                limits=[
                    protocol.tokens_harmful if queries.harmful[row] else protocol.tokens_harmless
                    for row in batch
                ],
                settled=settled,
                stage=stage,
            )
            responses += [judged(samples, protocol, judge) for samples in reading.samples]
            parts.append(reading.representations)
            if folder is not None:
                part = Measurement(condition.name, queries, tuple(responses), torch.cat(parts))
                folder.save_measurement(name, part)
    return Measurement(condition.name, queries, tuple(responses), torch.cat(parts))


def judged(samples: list[Sample], protocol: Protocol, judge: RefusalJudge) -> tuple[Response, ...]:
    """The responses that count, with their verdicts."""
    texts = [
        cut_unfinished_paragraph(sample.text)
        if protocol.cut_unfinished and sample.end == "length"
        else sample.text
        for sample in samples
    ]
    longest = sorted(range(len(texts)), key=lambda index: -len(texts[index].split()))
    counted = sorted(longest[: protocol.kept])
    return tuple(
        Response(texts[index], judge.refuses(texts[index]), samples[index].end) for index in counted
    )


def cut_unfinished_paragraph(text: str) -> str:
    """Drop the last paragraph where there is more than one."""
    paragraphs = re.split(r"\n+", text.rstrip("\n"))
    return text if len(paragraphs) < 2 else text[: text.rindex(paragraphs[-1])].rstrip("\n")
