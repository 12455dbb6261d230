"""Grouped-query attention that does not copy its keys and values.

transformers' `sdpa` repeats keys and values for every query head of a group as soon as there is a
mask. Folding the heads of a group into the query axis gives the same products without the copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "demur_grouped_sdpa"


def grouped_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of (B, Hq, T, D) queries on (B, Hkv, S, D) keys; returns (B, T, Hq, D)."""
    batch, heads, length, width = query.shape
    groups = heads // key.shape[1]
    foldable = (
        attention_mask is not None
        and attention_mask.dim() == 4
        and attention_mask.shape[1] == 1
        and kwargs.get("position_bias") is None
        and kwargs.get("dropout", 0.0) == 0.0
    )
    if groups == 1 or not foldable:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    assert attention_mask is not None
    folded = query.reshape(batch, key.shape[1], groups * length, width)
    mask = attention_mask[..., : key.shape[2]].repeat(1, 1, groups, 1)
    attended = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=mask, scale=scaling
    )
    attended = attended.reshape(batch, heads, length, value.shape[-1])
    return attended.transpose(1, 2).contiguous(), None


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Switch a model that uses `sdpa` to `grouped_sdpa`; leave every other model alone."""
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, grouped_sdpa)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
