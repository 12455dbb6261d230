"""Sizes that shapes are rounded up to, so that recorded work serves many of them."""

from __future__ import annotations


def size_above(amount: int, least: int, each: int = 4) -> int:
    """The next of the sizes that shapes are rounded to.

    Args:
        amount: of tokens, suffixes or slots.
        least: between two sizes, at least.
        each: sizes for each power of two.
    """
    step = step_at(amount, least, each)
    return -(-amount // step) * step


def step_at(amount: int, least: int, each: int = 4) -> int:
    """How far the sizes near an amount lie apart."""
    return max(least, (1 << max(0, amount.bit_length() - 1)) // each)
