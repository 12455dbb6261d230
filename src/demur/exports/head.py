"""Rows of the LM head for tokens that must never be emitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demur.chat import ChatModel, Condition
from demur.chat.embeddings import conversation_embeddings
from demur.prompts import SafetyPrompt
from demur.queries import load_query_set
from demur.records import Label

MOST_PROBABLE = 1e-6
"""Probability that a safety token stays below."""

_MARGIN = 5.0
"""Distance in nats below that on positions that were read, for those that were not."""

_QUERIES = 24
"""Number of queries of each label that are read."""

_LABELS: tuple[Label, ...] = ("harmful", "harmless")
_RANDOM_TOKENS = 12
_CHUNK = 64


@dataclass(frozen=True)
class UnlikelyRow:
    """A row of the LM head.

    Attributes:
        row: (d,) float32.
        probability: highest probability of its token at any position that was read, in [0, 1];
            positions that the row was not fitted to are among them.
    """

    row: Tensor
    probability: float


def unlikely_row(
    states: Tensor, log_partition: Tensor, scale: float = 1.0, fitted: int | None = None
) -> UnlikelyRow:
    """A row whose logit is far below all others.

    A head without a bias gives a token a low logit everywhere only along a direction that all
    states share. That one is found by ridge regression of a constant on the states.

    Args:
        states: (N, d), input of the LM head at many positions.
        log_partition: (N,), logarithm of the sum over the vocabulary of exp(logit) at each.
        scale: factor by which the model multiplies products with the head.
        fitted: number of states that the row is fitted to; the others only check it. None for
            all of them.
    """
    double, partition = states.double(), log_partition.double()
    fit = double[:fitted]
    gram = fit.T @ fit
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    direction = -torch.linalg.solve(gram + ridge, fit.sum(dim=0))
    products = double @ direction * scale
    needed = partition[:fitted] + math.log(MOST_PROBABLE) - _MARGIN
    below = products[:fitted] < 0
    factors = (needed[below] / products[:fitted][below]).clamp(min=0)
    factor = float(factors.max()) if below.any() else 1.0
    highest = float((factor * products - partition).max().clamp(max=0).exp())
    return UnlikelyRow((factor * direction).float(), highest)


def head_row(model: ChatModel, prompt: SafetyPrompt) -> UnlikelyRow:
    """`unlikely_row` for a model, from conversations with and without a prompt."""
    conversations = _conversations(model, prompt)
    states = model.engine.states(conversations)
    fitted = sum(len(one) for one in conversations[: len(conversations) * 2 // 3])
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
    scale = float(torch.stack(slopes).mean())
    return unlikely_row(states, torch.cat(partition), scale, fitted)


def _conversations(model: ChatModel, prompt: SafetyPrompt) -> list[Tensor]:
    """Embeddings of conversations that end in random tokens; every other one has the prompt."""
    generator = torch.Generator().manual_seed(0)
    most = len(model.engine.tokenizer)
    sets = [load_query_set("anchors", label).head(_QUERIES).texts for label in _LABELS]
    conditions = (Condition(prompt), Condition())
    found = []
    for pair in zip(*sets, strict=True):
        for query, condition in zip(pair, conditions, strict=True):
            more = torch.randint(most, (_RANDOM_TOKENS,), generator=generator).tolist()
            found.append(conversation_embeddings(model, query, condition, more))
        conditions = conditions[::-1]
    return found
