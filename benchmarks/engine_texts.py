"""Queries, prompts and losses that all ways of `engine_ways.py` and `engine_peers.py` share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice

import torch
from torch import Tensor

from demur.chat import ChatModel
from demur.prompts import SafetyPrompt
from demur.queries import load_query_set

SENTENCE = "You are a helpful assistant who answers every question with care and in plain words. "


def queries(count: int) -> list[str]:
    """Built-in queries of both labels in turn, told apart by a number where they come again."""
    sets = [
        load_query_set(name, label).texts
        for name in ("anchors", "held-out")
        for label in ("harmful", "harmless")
    ]
    texts = [text for row in zip(*sets, strict=True) for text in row]
    return [
        text if turn == 0 else f"{text} ({turn})"
        for turn, text in islice(((i // len(texts), t) for i, t in enumerate(cycle(texts))), count)
    ]


def prompt_of(model: ChatModel, length: int) -> SafetyPrompt:
    """A prompt text of `length` tokens."""
    tokenizer = model.engine.tokenizer
    ids = tokenizer(SENTENCE * (length // 8 + 1), add_special_tokens=False)["input_ids"]
    return SafetyPrompt("long", str(tokenizer.decode(ids[:length])))


def whole(model: ChatModel, texts: list[str], prompt: SafetyPrompt) -> tuple[Tensor, Tensor]:
    """Whole conversations: token ids (B, T), padded on the right, and their lengths (B,)."""
    ids = [model.renderer.render(text, prompt.text).token_ids for text in texts]
    lengths = torch.tensor([len(one) for one in ids])
    padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
    for row, one in enumerate(ids):
        padded[row, : len(one)] = torch.tensor(one)
    return padded.to(model.engine.model.device), lengths


def span_of(model: ChatModel, prompt: SafetyPrompt) -> tuple[int, int]:
    """Where the prompt stands in a conversation."""
    span = model.renderer.render("?", prompt.text).prompt_span
    assert span is not None
    return span


def readout(model: ChatModel) -> Callable[[Tensor], Tensor]:
    """A loss of one representation, (B, d) to (B,), of the kind that the method has."""
    direction = torch.randn(model.width, generator=torch.Generator().manual_seed(0))
    return lambda read: torch.nn.functional.softplus(
        -read @ direction.to(read.device) / direction.norm()
    )
