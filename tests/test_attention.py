"""Attention of suffixes on their shared prefix is attention under the whole mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from demur.chat.engine.packing import Packing
from demur.chat.engine.suffix_attention import MOST_SCORES, suffix_attention

LENGTHS = (3, 9, 1, 6, 6, 2, 12)
OF_ONE_LENGTH = (4, 4)
"""Nothing is padded."""


def states(heads: int, length: int, width: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(heads, length, width, generator=random).requires_grad_()


def under_the_mask(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """The textbook's: every key for every query head, and what the mask hides left out."""
    groups = query.shape[0] // key.shape[0]
    attended: Tensor = torch.nn.functional.scaled_dot_product_attention(
        query[None],
        key.repeat_interleave(groups, 0)[None],
        value.repeat_interleave(groups, 0)[None],
        attn_mask=packing.visible,
    )
    return attended[0]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None = None,
    most_scores: int = MOST_SCORES,
) -> Tensor:
    """The engine's, (Hq, T, E)."""
    row = suffix_attention(query[None], key[None], value[None], packing, scaling, most_scores)
    return row[0].transpose(0, 1)


@pytest.mark.parametrize(("prefix", "inside"), [(0, False), (7, False), (7, True), (20, True)])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("most_scores", [2**21, 700])
@pytest.mark.parametrize("lengths", [LENGTHS, OF_ONE_LENGTH])
def test_equals_attention_under_the_mask(
    prefix: int,
    inside: bool,
    heads: tuple[int, int],
    most_scores: int,
    lengths: tuple[int, ...],
) -> None:
    packing = Packing(prefix, lengths, inside)
    total = prefix + sum(lengths)
    row = total if inside else sum(lengths)
    query, key = states(heads[0], row, 8, seed=0), states(heads[1], total, 8, seed=1)
    value = states(heads[1], total, 5, seed=2)
    wanted = torch.randn(heads[0], row, 5, generator=torch.Generator().manual_seed(3))

    expected = under_the_mask(query, key, value, packing)
    found = attention(query, key, value, packing, most_scores=most_scores)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (query, key, value), wanted),
        torch.autograd.grad(expected, (query, key, value), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_low_precision_stays_near_float32() -> None:
    packing = Packing(7, LENGTHS, inside=False)
    query = states(6, sum(LENGTHS), 8, seed=0).bfloat16()
    key, value = (states(2, 7 + sum(LENGTHS), 8, seed=seed).bfloat16() for seed in (1, 2))
    found = attention(query, key, value, packing, scaling=0.5)
    exact = attention(query.float(), key.float(), value.float(), packing, scaling=0.5)
    assert found.dtype == torch.bfloat16
    # The scores are float32, so only the result is rounded.
    torch.testing.assert_close(found, exact.bfloat16())
