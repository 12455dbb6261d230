"""Rows of the LM head for tokens that must never be emitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demur.chat import ChatModel
from demur.queries import load_query_set

MOST_PROBABLE = 1e-6
"""The probability that a safety token stays below."""

_MARGIN = 5.0
"""Nats below that on what was read, for what was not."""

_QUERIES = 60
_RANDOM_TOKENS = 12
_CHUNK = 64


@dataclass(frozen=True)
class UnlikelyRow:
    """A row of the LM head.

    Attributes:
        row: (d,) float32.
        probability: the highest that its token had at any position that was read, at most
            1; 0 where it is below the smallest float.
    """

    row: Tensor
    probability: float


def unlikely_row(states: Tensor, log_partition: Tensor, scale: float = 1.0) -> UnlikelyRow:
    """A row whose logit is far below all others.

    A head without a bias gives a token a low logit everywhere only along a direction that all
    states share. That one is found by ridge regression of a constant on the states.

    Args:
        states: (N, d), what entered the LM head at many positions.
        log_partition: (N,), the logarithm of the sum over the vocabulary of exp(logit) there.
        scale: what the model multiplies products with the head by.
    """
    double = states.double()
    gram = double.T @ double
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    direction = -torch.linalg.solve(gram + ridge, double.sum(dim=0))
    products = double @ direction * scale
    needed = log_partition.double() + math.log(MOST_PROBABLE) - _MARGIN
    below = products < 0
    factors = (needed[below] / products[below]).clamp(min=0)
    factor = float(factors.max()) if below.any() else 1.0
    highest = float((factor * products - log_partition.double()).max().clamp(max=0).exp())
    return UnlikelyRow((factor * direction).float(), highest)


def head_row(model: ChatModel) -> UnlikelyRow:
    """`unlikely_row` for a model, from conversations and from random tokens."""
    sequences = _sequences(model)
    states = model.engine.states(sequences)
    partition, slopes = [], []
    head = model.engine.model.get_output_embeddings().weight
    rows = torch.arange(0, head.shape[0], max(1, head.shape[0] // 256))
    sample = head[rows.to(head.device)].float().cpu()
    for start in range(0, len(states), _CHUNK):
        part = states[start : start + _CHUNK]
        logits = model.next_token_logits(part)
        partition.append(logits.logsumexp(dim=1))
        products = part @ sample.T
        slopes.append((products * logits[:, rows]).sum() / (products**2).sum())
    return unlikely_row(states, torch.cat(partition), float(torch.stack(slopes).mean()))


def _sequences(model: ChatModel) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    most = len(model.engine.tokenizer)
    texts = [
        query
        for label in ("harmful", "harmless")
        for query in load_query_set("anchors", label).head(_QUERIES // 2).texts
    ]
    sequences = []
    for text in texts:
        random = torch.randint(most, (_RANDOM_TOKENS,), generator=generator).tolist()
        sequences.append((*model.renderer.render(text).token_ids, *random))
    return sequences
