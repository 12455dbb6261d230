"""The order in which training examples are read, and the learning rate of each step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from demur.optimization.groups import TrainingSettings
from demur.optimization.methods import TrainingExample


def order_of(
    examples: Sequence[TrainingExample],
    epoch: int,
    seed: int,
    *,
    balanced: bool,
    size: int | None = None,
) -> list[int]:
    """The shuffled examples of an epoch. They follow from the arguments alone, to be resumable.

    Epochs of a size of their own take their examples from passes over all of them, each shuffled
    anew: no example comes again before all others have come.

    Args:
        examples: all N training examples.
        epoch: number of the epoch, from 0.
        seed: seed of the run.
        balanced: whether the labels take turns. The n-th harmful example then stays with the n-th
            harmless one, where there are as many of each.
        size: examples of an epoch, where it is smaller than N; None for all of them.

    Returns:
        Indices of the examples, as many as `epoch_length` says.
    """
    length = epoch_length(len(examples), size)
    first, last = epoch * length, (epoch + 1) * length
    passes = range(first // len(examples), -(-last // len(examples)))
    order = [row for number in passes for row in _pass(examples, number, seed, balanced=balanced)]
    skipped = passes.start * len(examples)
    return order[first - skipped : last - skipped]


def epoch_length(examples: int, size: int | None) -> int:
    """Number of examples in an epoch.

    Args:
        examples: number of all examples.
        size: wanted size of an epoch; None for all examples.
    """
    return examples if size is None else min(examples, size)


def _pass(
    examples: Sequence[TrainingExample], number: int, seed: int, *, balanced: bool
) -> list[int]:
    """All examples, in the order of a pass, which counts from 0."""
    shuffle = seed * 100_003 + number
    if not balanced:
        return _shuffled(range(len(examples)), shuffle)
    rows_of_labels = (
        [row for row, one in enumerate(examples) if one.label == label]
        for label in ("harmful", "harmless")
    )
    places = [
        ((rank + 0.5) / len(rows), row)
        for rows in rows_of_labels
        for rank, row in enumerate(_shuffled(rows, shuffle))
    ]
    return [row for _, row in sorted(places)]


def learning_rate(settings: TrainingSettings, done: int, steps: int) -> float:
    """The learning rate of a step.

    It rises evenly over the first steps, because the first gradients are the least reliable and
    AdamW gives each of them a full step.

    Args:
        settings: how the prompt is trained.
        done: number of steps that came before.
        steps: number of all steps.
    """
    rising = round(settings.warm_up * steps)
    rate = settings.learning_rate * min(1.0, (done + 1) / (rising + 1))
    if not settings.learning_rate_decay:
        return rate
    return rate * float(0.5 * (1 + torch.cos(torch.tensor(done / steps * torch.pi))))


def _shuffled(rows: Sequence[int], seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [rows[int(index)] for index in torch.randperm(len(rows), generator=generator)]
