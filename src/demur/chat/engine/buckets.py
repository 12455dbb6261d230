"""Cutting work into batches that waste little on padding and fit in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from demur import processes

Result = TypeVar("Result")

OVERHEAD_TOKENS = 48
"""Cost of one more batch, as the number of tokens that take as much time.

Measured on two cores; the optimum is flat, so other processors lose little by it."""

OVERHEAD_ON_GPU = 4096
"""The same on a GPU, where launching the kernels of a small batch takes longer than they run."""

PACKED_PADDING = 0.1
"""Cost of a token of padding where conversations are packed: it is in the attention alone."""


def overhead_of(device: torch.device) -> int:
    """The cost of one more batch on a device, in tokens."""
    return OVERHEAD_ON_GPU if device.type == "cuda" else OVERHEAD_TOKENS


def length_buckets(
    lengths: Sequence[int],
    most_tokens: float,
    padding_cost: float = 1.0,
    counts: Sequence[int] | None = None,
    overhead: int = OVERHEAD_TOKENS,
) -> list[list[int]]:
    """Group sequences of similar length.

    Dynamic programming over the sequences sorted by length: the cheapest cut, where a batch costs
    its tokens, what its padding costs, and an overhead.

    Args:
        lengths: tokens of each sequence.
        most_tokens: padded tokens that a batch may hold; a longer sequence gets a batch alone.
        padding_cost: cost of a token of padding in relation to that of a token.
        counts: number of sequences that each entry stands for, which stay together; 1 by default.
        overhead: tokens that take as much time as one more batch.

    Returns:
        Lists of indices into `lengths`, shortest sequences first, each index once.
    """
    counts = counts or [1] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    cost = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        longest, own, rows = lengths[order[end - 1]], 0, 0
        for start in range(end - 1, -1, -1):
            rows += counts[order[start]]
            padded = longest * rows
            if padded > most_tokens and end - start > 1:
                break
            own += lengths[order[start]] * counts[order[start]]
            total = cost[start] + own + padding_cost * (padded - own) + overhead
            if total < cost[end]:
                cost[end], start_of[end] = total, start
    buckets: list[list[int]] = []
    end = len(order)
    while end:
        buckets.append(order[start_of[end] : end])
        end = start_of[end]
    return buckets[::-1]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a smaller batch might work."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def halving(
    work: Callable[[int], Result],
    amount: int,
    least: int = 1,
    release: Callable[[], None] = lambda: None,
) -> tuple[Result, int]:
    """Call `work(amount)`, with half the amount after each failure for lack of memory.

    Args:
        work: the work.
        amount: of it at first.
        least: amount that is tried.
        release: gives back what is only kept to be faster; called after each such failure.

    Returns:
        What `work` returned and the amount that worked, to start from next time.

    Raises:
        Whatever `work` raises for another reason, at the least amount, or where several processes
        share the model, since the others go on with the whole amount.
    """
    while True:
        try:
            return work(amount), amount
        except (RuntimeError, MemoryError) as error:
            if amount <= least or not is_out_of_memory(error) or processes.count() > 1:
                raise
            amount = max(least, amount // 2)
        release()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
