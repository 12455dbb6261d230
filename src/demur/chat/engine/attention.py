"""Attention without copies of grouped keys and values and without scores that a mask hides.

transformers' `sdpa` repeats keys and values for every query head of a group as soon as there is a
mask. Folding the heads of a group into the query axis gives the same products without the copy. And
where conversations lie end to end in one row, most of the mask is empty: each suffix attends to the
prefix and to itself alone, and a suffix that branches is one block with a mask of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from demur.chat.engine.packing import Packing
from demur.chat.engine.suffix_attention import RowLayout, suffix_attention

NAME = "demur_grouped_sdpa"

_row: ContextVar[tuple[Packing | None, RowLayout | None]] = ContextVar("row", default=(None, None))


@contextmanager
def packed(packing: Packing, layout: RowLayout | None = None) -> Iterator[None]:
    """Tell attention that the forward pass inside runs on a packed row.

    Args:
        packing: what lies where in the row.
        layout: holds it for a pass that is recorded.
    """
    token = _row.set((packing, layout))
    try:
        yield
    finally:
        _row.reset(token)


def grouped_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of (B, Hq, T, D) queries on (B, Hkv, S, D) keys; returns (B, T, Hq, D).

    On a packed row the mask only says that there is one: `Packing` knows what a token sees.
    """
    packing, layout = _row.get()
    simple = (
        attention_mask is not None
        and attention_mask.dim() == 4
        and attention_mask.shape[1] == 1
        and kwargs.get("position_bias") is None
        and kwargs.get("dropout", 0.0) == 0.0
    )
    if simple and packing is not None:
        if key.requires_grad and key.device.type in ("cpu", "cuda"):
            return suffix_attention(query, key, value, packing, scaling, layout=layout), None
        attended = _packed_attention(query[0], key[0], value[0], packing, scaling)[None]
    elif simple and query.shape[1] != key.shape[1]:
        assert attention_mask is not None
        mask = attention_mask[..., : key.shape[2]]
        attended = _grouped(query, key, value, mask, scaling)
    else:
        if packing is not None:
            attention_mask = packing.visible.to(query.device)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    return attended.transpose(1, 2).contiguous(), None


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None
) -> Tensor:
    """(B, Hq, T, D) queries on (B, Hkv, S, D) keys under a (B or 1, 1, T, S) mask."""
    groups = query.shape[1] // key.shape[1]
    return _folded(query, key, value, mask.repeat(1, 1, groups, 1), scaling)


def _folded(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None
) -> Tensor:
    """The same under a (B or 1, 1, G * T, S) mask, for the G query heads of each group of heads."""
    batch, heads, length, width = query.shape
    folded = query.reshape(batch, key.shape[1], heads // key.shape[1] * length, width)
    attended = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=mask, scale=scaling
    )
    return attended.reshape(batch, heads, length, value.shape[-1])


def _packed_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None
) -> Tensor:
    """(Hq, T, D) queries of a packed row on its (Hkv, P + S, D) keys; returns (Hq, T, D)."""
    sizes = [packing.prefix, packing.total]
    keys, values = torch.split(key, sizes, dim=1), torch.split(value, sizes, dim=1)
    prefix, own = (keys[0], values[0]), (keys[1], values[1])
    if query.shape[1] == packing.total:
        return _fused_suffix_attention(query, prefix, own, packing, scaling)
    opening, rest = torch.split(query, sizes, dim=1)
    nothing = keys[0].detach()[:, :0], values[0].detach()[:, :0]
    alone = Packing(0, (packing.prefix,), inside=False)
    first = _fused_suffix_attention(opening, nothing, prefix, alone, scaling)
    second = _fused_suffix_attention(rest, prefix, own, packing, scaling)
    return torch.cat([first, second], dim=1)


def _fused_suffix_attention(
    query: Tensor,
    prefix: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    packing: Packing,
    scaling: float | None,
) -> Tensor:
    """Attention of suffixes by a fused kernel, which wants the prefix copied for every suffix."""
    batch, longest = packing.padded.shape
    groups = query.shape[0] // own[0].shape[0]
    layout = _layout(packing, groups, query.device, query.dtype)

    def spread(states: Tensor) -> Tensor:
        """The suffixes' (H, S, D) as (B, H, longest, D)."""
        rows = states.index_select(1, layout.padded)
        return rows.view(rows.shape[0], batch, longest, rows.shape[2]).transpose(0, 1)

    key, value = (
        torch.cat([shared.expand(batch, -1, -1, -1), spread(states)], dim=2)
        for shared, states in zip(prefix, own, strict=True)
    )
    attended = _folded(spread(query), key, value, layout.mask, scaling)
    return attended.transpose(0, 1).flatten(1, 2).index_select(1, layout.flat)


@dataclass(frozen=True)
class _Layout:
    """Where the tokens of a packed row stand, on the device of its states.

    Attributes:
        padded: (B * L,), the token at each place of the padded suffixes.
        flat: (S,), the place of each token among these.
        mask: (1 or B, 1, G * L, P + L), added to the scores of the G query heads of a group: 0
            where a token may look. It is finite elsewhere, because kernels for GPUs have returned
            gradients that are no numbers where all keys of a block are at minus infinity.
    """

    padded: Tensor
    flat: Tensor
    mask: Tensor


@lru_cache(maxsize=4)  # the same for every layer, and each copy to a GPU waits for what runs there
def _layout(packing: Packing, groups: int, device: torch.device, dtype: torch.dtype) -> _Layout:
    longest = packing.longest
    # What is sampled or scored may make a layout that a step of the training then uses as well, and
    # autograd refuses tensors of the inference mode.
    with torch.inference_mode(False):
        own_visible = packing.own_visible.clone().view(-1, 1, longest, longest)
        visible = torch.nn.functional.pad(own_visible, (packing.prefix, 0), value=True)
        return _Layout(
            packing.padded.clone().flatten().to(device),
            packing.flat.clone().to(device),
            torch.zeros(visible.shape, dtype=dtype)
            .masked_fill(~visible, torch.finfo(dtype).min / 2)
            .repeat(1, 1, groups, 1)
            .to(device),
        )


def is_grouped(model: PreTrainedModel) -> bool:
    """Whether a model uses `grouped_sdpa`."""
    return bool(model.config._attn_implementation == NAME)


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Switch a model that uses `sdpa` to `grouped_sdpa`; leave every other model alone."""
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, grouped_sdpa)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
