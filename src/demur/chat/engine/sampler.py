"""How a next token is drawn: temperature, top-k, top-p, and a random stream for each sequence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from demur.chat.engine.targets import TargetTokens, TokenReader


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are sampled.

    Attributes:
        samples: number of responses to each query.
        most_tokens: largest number of new tokens of a response.
        least_tokens: number of new tokens before a response may end.
        temperature: divisor of the logits; 0 takes the likeliest token.
        top_k: number of the likeliest tokens that may be drawn; 0 for all.
        top_p: probability, from 0 to 1, that the tokens which may be drawn reach together.
        seed: seed of every random stream.
    """

    samples: int = 1
    most_tokens: int = 24
    least_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One sampled response.

    Attributes:
        text: text of the response, without special tokens.
        tokens: number of tokens that were sampled.
        end: reason for its end: `stop` (the model ended it), `length` (the limit did) or `settled`
            (no continuation could have changed the verdict).
    """

    text: str
    tokens: int
    end: str


Settled = Callable[[str], bool]
"""Whether no continuation of a text can change the verdict on it."""


def random_stream(settings: SamplingSettings, key: str, sample: int) -> Tensor:
    """The uniform numbers of one sequence, `(most_tokens,)` float64 in [0, 1).

    They depend on the seed, the query and the sample alone: a sequence is the same whatever shares
    its batch, and the prompts of a comparison are sampled with the same numbers.

    Args:
        settings: has the seed and the number of tokens.
        key: identity of the query (`identity_of`).
        sample: number of the sample among those of the query.
    """
    digest = hashlib.sha256(f"{settings.seed}\0{sample}\0{key}".encode()).digest()
    generator = numpy.random.Generator(numpy.random.Philox(int.from_bytes(digest[:16], "big")))
    return torch.from_numpy(generator.random(settings.most_tokens))


def draw(logits: Tensor, uniforms: Tensor, settings: SamplingSettings) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Args:
        logits: (B, V); `-inf` where a token is forbidden.
        uniforms: (B,) in [0, 1).

    Returns:
        (B,) token ids, int64, on the CPU.
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1).cpu()
    values, tokens = _likeliest(logits, settings)
    probabilities = (values.double() / settings.temperature).softmax(dim=-1).cpu()
    probabilities = probabilities.masked_fill(_beyond(probabilities, settings), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    targets = uniforms[:, None] * cumulative[:, -1:]
    choice = torch.searchsorted(cumulative, targets, right=True)
    choice = choice.clamp(max=tokens.shape[-1] - 1)
    return tokens.cpu().gather(1, choice)[:, 0]


def drawn_log_probability(settings: SamplingSettings) -> TokenReader:
    """A token reader: the log-probability with which `draw` takes each target token.

    Args:
        settings: temperature, top-k and top-p of the sampling.

    Returns:
        A reader of (n, V) logits that returns (n,): `-inf` where a token is never drawn. It has a
        gradient where a token can be drawn, the tokens that may be drawn being given.
    """

    def read(logits: Tensor, tokens: TargetTokens) -> Tensor:
        if settings.temperature == 0:
            taken = logits.argmax(dim=-1) == tokens.ids
            return torch.where(taken, 0.0, -torch.inf)
        values, ids = _likeliest(logits, settings)
        log_p = (values / settings.temperature).log_softmax(dim=-1)
        excluded = _beyond(log_p.detach().double().exp(), settings)
        log_p = log_p - log_p.masked_fill(excluded, -torch.inf).logsumexp(dim=-1, keepdim=True)
        wanted = (ids == tokens.ids[:, None]) & ~excluded
        return torch.where(wanted, log_p, -torch.inf).amax(dim=-1)

    return read


def _likeliest(logits: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The logits and ids of the tokens that top-k leaves, (..., k), the likeliest first."""
    size = logits.shape[-1]
    values, ids = logits.topk(min(settings.top_k or size, size), dim=-1)
    return values, ids


def _beyond(probabilities: Tensor, settings: SamplingSettings) -> Tensor:
    """Which of these tokens top-p leaves out; the likeliest come first."""
    return probabilities.cumsum(dim=-1) - probabilities >= settings.top_p
