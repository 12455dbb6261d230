"""A model's own answers: the next-token distributions along them, and how far a prompt moves it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST_ANSWER = 0.05
"""Probability of no refusal from which the model's own distribution of answers is trusted."""


def without_refusals(
    answer: Sequence[int],
    ids: Tensor,
    log_q: Tensor,
    openings: Sequence[Sequence[int]],
    likely: Sequence[Tensor],
) -> Tensor:
    """The next-token distributions along an answer, given that no refusal opening follows.

    Args:
        answer: its t tokens.
        ids: (t, k), the likeliest next tokens.
        log_q: (t, k), their log-probabilities.
        openings: tokens of each opening.
        likely: for each opening the log-probabilities of its tokens.

    Returns:
        (t, k); all -inf at a token where the model would rather refuse.
    """
    q = log_q.exp()
    removed = torch.zeros(len(answer))
    for opening, values in zip(openings, likely, strict=True):
        for step in range(min(len(opening), len(answer))):
            if tuple(opening[:step]) != tuple(answer[:step]):
                break
            mass = values[step:].sum().exp()
            removed[step] += mass
            q[step] -= mass * (ids[step] == opening[step])
    left = (1 - removed)[:, None]
    found = (q.clamp_min(0) / left.clamp_min(_LEAST_ANSWER)).log()
    return torch.where(left < _LEAST_ANSWER, -torch.inf, found)


def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(Q || P) of distributions of which k probabilities are known and the rest is one bin.

    Args:
        log_q: (n, k), log-probabilities of Q; all -inf where there is no Q.
        log_p: (n, k), log-probabilities that P gives to the same tokens.

    Returns:
        (n,), in nats, at least 0 up to rounding; 0 where there is no Q. The true divergence is no
        smaller.
    """
    q, p = log_q.exp(), log_p.exp()
    inside = torch.where(q > 0, q * (log_q - log_p), 0.0).sum(-1)
    rest_q, rest_p = (1 - q.sum(-1)).clamp_min(1e-6), (1 - p.sum(-1)).clamp_min(1e-6)
    whole = inside + rest_q * (rest_q.log() - rest_p.log())
    return torch.where(log_q.isneginf().all(-1), 0.0, whole)
