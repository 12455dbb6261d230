"""The plain path: whole conversations, no shared prefix.

It serves models that cannot share a prefix (state-space and hybrid ones, for example) and is what
the shared path is checked against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from demur.chat.engine.forward import (
    Positions,
    input_device,
    input_embeddings,
    read_positions,
)
from demur.chat.engine.inputs import Inputs, pad
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.sampler import Sample
from demur.progress import Stage


def embed_whole(
    model: PreTrainedModel, inputs: Inputs, prompt: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Embed whole conversations (`Inputs.sequences`), with the prompt's rows in their place.

    Returns:
        embeddings: (B, T, d).
        lengths: (B,).
    """
    ids, lengths = pad(inputs.sequences(), input_device(model))
    embeddings = input_embeddings(model, ids)
    if prompt is not None:
        embeddings = replace_rows(embeddings, inputs.spans(), prompt)
    return embeddings, lengths


def replace_rows(embeddings: Tensor, spans: Sequence[tuple[int, int]], prompt: Tensor) -> Tensor:
    """Put the prompt into embeddings; differentiable.

    Args:
        embeddings: (B, T, d).
        spans: B places `[start, end)` of L tokens each.
        prompt: (L, d).

    Returns:
        (B, T, d).
    """
    start, end = spans[0]
    rows = prompt.to(embeddings.device, embeddings.dtype)
    rows = rows[None].expand(embeddings.shape[0], -1, -1)
    if all(span == spans[0] for span in spans):
        return torch.cat([embeddings[:, :start], rows, embeddings[:, end:]], dim=1)
    starts = torch.tensor([span[0] for span in spans])
    places = starts[:, None] + torch.arange(end - start)
    numbers = torch.arange(len(spans))[:, None]
    device = embeddings.device
    return embeddings.index_put((numbers.to(device), places.to(device)), rows)


def read_whole(
    model: PreTrainedModel,
    inputs: Inputs,
    prompt: Tensor | None,
    *,
    logits: bool = False,
    layers: bool = False,
) -> Positions:
    """Read whole conversations at the positions that `Packing.reads` names for packed ones.

    These are the last input token of each conversation, then each token of a target but its last.
    """
    embeddings, _ = embed_whole(model, inputs, prompt)
    rows, positions = _reads(inputs)
    return read_positions(model, embeddings, positions, rows=rows, logits=logits, layers=layers)


def _reads(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Which row and position of the padded sequences each position that is read has."""
    ends: list[tuple[int, int]] = []
    targets: list[tuple[int, int]] = []
    row = 0
    for suffix, branches in zip(inputs.suffixes, inputs.branches, strict=True):
        length = len(inputs.prefix) + len(suffix)
        ends.append((row, length - 1))
        for branch in branches:
            targets += [(row, length + step) for step in range(branch)]
            row += 1
        row += not branches
    rows, positions = torch.tensor(ends + targets).unbind(1)
    return rows, positions


def generate_whole(
    model: PreTrainedModel,
    inputs: Inputs,
    prompt: Tensor | None,
    responses: Sequence[Growing],
    writer: ResponseWriter,
    stage: Stage,
    batch: int,
) -> list[list[Sample]]:
    """Sample with the model's own cache, whatever it is.

    Only conversations of one length share a batch, so nothing is padded.
    """
    samples: dict[tuple[int, int], Sample] = {}
    lengths = inputs.lengths
    for length in sorted(set(lengths)):
        alike = [row for row in responses if lengths[row.query] == length]
        for start in range(0, len(alike), batch):
            rows = alike[start : start + batch]
            chosen = inputs.select([row.query for row in rows])
            for row, sample in zip(
                rows, _generate(model, chosen, prompt, rows, writer), strict=True
            ):
                samples[row.query, row.sample] = sample
                stage.advance()
    per_query = len(responses) // len(inputs)
    return [[samples[query, index] for index in range(per_query)] for query in range(len(inputs))]


class _Scripted(LogitsProcessor):
    """Lets `generate` say what the writer draws: every other token is forbidden."""

    def __init__(self, rows: Sequence[Growing], writer: ResponseWriter) -> None:
        self.rows = rows
        self.writer = writer
        self.samples: list[Sample | None] = [None] * len(rows)

    @property
    def filler(self) -> int:
        return min(self.writer.end_tokens, default=0)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        going_on = [index for index, sample in enumerate(self.samples) if sample is None]
        said = [self.filler] * len(self.rows)
        if going_on:
            rows = [self.rows[index] for index in going_on]
            ended = self.writer.write(rows, scores[torch.tensor(going_on)])
            for index, row, sample in zip(going_on, rows, ended, strict=True):
                self.samples[index] = sample
                said[index] = row.tokens[-1] if sample is None else self.filler
        scripted = torch.full_like(scores, -torch.inf)
        scripted[torch.arange(len(said)), torch.tensor(said)] = 0.0
        return scripted


def _generate(
    model: PreTrainedModel,
    inputs: Inputs,
    prompt: Tensor | None,
    rows: Sequence[Growing],
    writer: ResponseWriter,
) -> list[Sample]:
    embeddings, _ = embed_whole(model, inputs, prompt)
    script = _Scripted(rows, writer)

    def all_done(ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.tensor([sample is not None for sample in script.samples], device=ids.device)

    generate: Any = model.generate
    generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
        max_new_tokens=writer.settings.most_tokens,
        do_sample=False,
        logits_processor=LogitsProcessorList([script]),
        stopping_criteria=[all_done],
        eos_token_id=None,
        pad_token_id=script.filler,
    )
    return [sample for sample in script.samples if sample is not None]
