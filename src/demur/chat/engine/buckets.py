"""Cut work into batches that waste little on padding and fit in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Result = TypeVar("Result")

OVERHEAD_TOKENS = 48
"""What starting one more batch costs, in tokens' worth of time (measured on two cores; the
optimum is flat, so other machines lose little by it)."""


def length_buckets(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Group sequences of similar length.

    Dynamic programming over the sequences sorted by length: the cheapest cut, where a batch costs
    its padded tokens plus `OVERHEAD_TOKENS`.

    Args:
        lengths: tokens of each sequence.
        most_tokens: padded tokens that a batch may hold; a longer sequence gets a batch alone.

    Returns:
        Lists of indices into `lengths`, shortest sequences first, each index once.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    cost = [0.0] + [float("inf")] * len(order)
    start_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        for start in range(end - 1, -1, -1):
            tokens = longest * (end - start)
            if tokens > most_tokens and end - start > 1:
                break
            if cost[start] + tokens + OVERHEAD_TOKENS < cost[end]:
                cost[end] = cost[start] + tokens + OVERHEAD_TOKENS
                start_of[end] = start
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


def halving(work: Callable[[int], Result], amount: int, least: int = 1) -> tuple[Result, int]:
    """Call `work(amount)`, with half the amount after each failure for want of memory.

    Returns:
        What `work` returned and the amount that worked, to start from next time.

    Raises:
        Whatever `work` raises for another reason, or at the least amount.
    """
    while True:
        try:
            return work(amount), amount
        except (RuntimeError, MemoryError) as error:
            if amount <= least or not is_out_of_memory(error):
                raise
            amount = max(least, amount // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
