"""Sizes that shapes are rounded up to, so that recorded work serves many of them."""

from __future__ import annotations


def steps_of(amount: int, least: int) -> int:
    """The next of the sizes that shapes are rounded to: four for each power of two.

    Args:
        amount: a number of tokens.
        least: between two sizes, at least.
    """
    step = step_at(amount, least)
    return -(-amount // step) * step


def step_at(amount: int, least: int) -> int:
    """How far sizes near an amount lie apart, at least `least`."""
    return max(least, 1 << max(0, amount.bit_length() - 3))
