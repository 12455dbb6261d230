"""What a training step has to compute, and what the machine could compute in that time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from demur.chat import ChatModel, Condition
from demur.prompts import SafetyPrompt


def timed(work: Callable[[], Any], repetitions: int) -> float:
    """Seconds of the fastest of some repetitions."""
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


def necessary_operations(model: ChatModel, texts: list[str], prompt: SafetyPrompt) -> float:
    """Floating-point operations of the matrix products that a step needs at least.

    The shared opening once, every query's own tokens once; forward and the gradient of the
    activations, none of the weights. Of the last layer, of which one position a query is read: keys
    and values everywhere, the rest at that position. Of the first, below which only the prompt's
    rows have a gradient: the projections of queries, keys and values at these rows. Attention: two
    products forward and four backward over the pairs of positions that see each other.
    """
    inputs = model.inputs(texts, Condition(prompt))
    prefix, suffixes = len(inputs.prefix), [len(suffix) for suffix in inputs.suffixes]
    tokens = prefix + sum(suffixes)
    read, trained = len(texts), model.prompt_embeddings(prompt).shape[0]
    pairs = prefix * (prefix + 1) / 2 + sum(n * prefix + n * (n + 1) / 2 for n in suffixes)
    read_pairs = sum(prefix + n for n in suffixes)
    layers = list(model.engine.model.get_submodule("model.layers").children())
    operations = 0.0
    for index, layer in enumerate(layers):
        last = index == len(layers) - 1
        for name, part in layer.named_modules():
            if not isinstance(part, torch.nn.Linear):
                continue
            projection = name.rsplit(".", 1)[-1]
            forward = backward = tokens
            if last and projection not in ("k_proj", "v_proj"):
                forward = backward = read
            if index == 0 and projection in ("q_proj", "k_proj", "v_proj"):
                backward = trained
            operations += 2.0 * part.weight.numel() * (forward + backward)
            if projection == "q_proj":
                operations += 2.0 * part.out_features * (read_pairs if last else pairs) * (2 + 4)
    return operations


def matrix_peak(model: ChatModel) -> float:
    """Operations a second of the best matrix product in the model's dtype."""
    network = model.engine.model
    best = 0.0
    for size in (1024, 2048, 4096):
        left = torch.randn(size, size, device=network.device).to(network.dtype)
        right = torch.randn(size, size, device=network.device).to(network.dtype)
        best = max(best, 2.0 * size**3 / timed(partial(torch.matmul, left, right), 8))
    return best
