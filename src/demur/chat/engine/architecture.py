"""What demur assumes about a model from the names of its parts and settings.

transformers has no common interface for these facts, so each is read from the names that
architectures use. All such guesses stand here, and each has a safe answer for a model that uses
other names: a part that is not found is run as it is, and a size that is not found is estimated.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

_FEED_FORWARD = ("mlp", "feed_forward", "block_sparse_moe")
_INNER_SIZES = ("intermediate_size", "ffn_dim", "n_inner")
_EPSILONS = ("variance_epsilon", "eps")
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as far as memory estimates need them.

    Attributes:
        layers: number of layers.
        hidden: width of the hidden states.
        inner: width of what a token computes inside the feed-forward block, over all experts that
            are chosen for it.
        key_value: width of the keys (or values) of all heads of a layer.
        vocabulary: number of logits at a position.
        heads: number of heads that query in a layer.
    """

    layers: int
    hidden: int
    inner: int
    key_value: int
    vocabulary: int
    heads: int


def text_config(model: PreTrainedModel) -> Any:
    """The configuration of the language model, which multimodal models nest in their own."""
    return model.config.get_text_config(decoder=True)


def shape_of(model: PreTrainedModel) -> Shape:
    """The sizes of a model."""
    config = text_config(model)
    hidden = int(config.hidden_size)
    heads = getattr(config, "num_attention_heads", None) or 1
    head_width = getattr(config, "head_dim", None) or hidden // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    sizes = [getattr(config, name, None) for name in _INNER_SIZES]
    inner: Any = next((size for size in sizes if size), 4 * hidden)
    inner = max(inner) if isinstance(inner, list | tuple) else int(inner)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    return Shape(
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        inner=inner * int(experts),
        key_value=int(key_value_heads * head_width),
        vocabulary=int(config.vocab_size),
        heads=int(heads),
    )


def context_length(model: PreTrainedModel) -> int:
    """The number of tokens that a conversation may hold; 10**9 where the model names no limit."""
    return int(getattr(text_config(model), "max_position_embeddings", None) or _NO_LIMIT)


def shortest_window(model: PreTrainedModel) -> float:
    """The fewest tokens that a layer of the model looks back; infinite without windows."""
    layers = DynamicCache(config=model.config).layers
    windows = [layer.sliding_window for layer in layers if hasattr(layer, "sliding_window")]
    chunk = getattr(text_config(model), "attention_chunk_size", None)
    return float(min([*windows, *([chunk] if chunk else [])], default=float("inf")))


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList | None:
    """The layers in their order, or None where a model does not keep them in one list."""
    count = text_config(model).num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    return None


def last_feed_forward(model: PreTrainedModel) -> torch.nn.Module | None:
    """The feed-forward block of the last layer, or None where it has an unusual name."""
    layers = decoder_layers(model)
    if layers is None:
        return None
    blocks = [getattr(layers[-1], name, None) for name in _FEED_FORWARD]
    return next((block for block in blocks if isinstance(block, torch.nn.Module)), None)


def backbone(model: PreTrainedModel) -> torch.nn.Module | None:
    """The part of the model that runs before the LM head, or None where it is not apart."""
    body = model.base_model
    return None if body is model else body


def takes_position_ids(model: PreTrainedModel) -> bool:
    """Whether the model can be told the position of each token."""
    return "position_ids" in inspect.signature(model.forward).parameters


def cached(model: PreTrainedModel, cache: Cache | None) -> dict[str, Cache | None]:
    """The argument that hands a model the states of earlier tokens.

    transformers calls it `cache` from 5.24 on, and warns of the name that it had before.
    """
    new = "cache" in inspect.signature(model.forward).parameters
    return {"cache" if new else "past_key_values": cache}


def takes_boolean_masks(model: PreTrainedModel) -> bool:
    """Whether the model's attention takes a mask of booleans rather than one to add to scores."""
    return "sdpa" in (model.config._attn_implementation or "")


def execution_device(module: torch.nn.Module) -> torch.device | None:
    """Where accelerate runs a module whose weights it has offloaded; None where it has not."""
    place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return None if place is None else torch.device(place)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a response."""
    size = len(tokenizer)
    ends: set[int] = set()
    configured = [
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ]
    for value in configured:
        values = value if isinstance(value, (list, tuple, set)) else [value]
        ends.update(each for each in values if isinstance(each, int) and 0 <= each < size)
    return frozenset(ends)


def root_mean_square_norm(module: torch.nn.Module) -> tuple[Tensor, float] | None:
    """The factors (d,) and the epsilon of what looks like a root mean square norm, or None."""
    weights = list(module.named_parameters())
    if "RMSNorm" not in type(module).__name__ or [name for name, _ in weights] != ["weight"]:
        return None
    epsilon = next(
        (getattr(module, name) for name in _EPSILONS if hasattr(module, name)),
        None,
    )
    ((_, weight),) = weights
    return (weight, float(epsilon)) if epsilon is not None and weight.dim() == 1 else None


def code_of(model: PreTrainedModel) -> list[ModuleType]:
    """The Python modules in which the parts of a model are written."""
    names = dict.fromkeys(type(module).__module__ for module in model.modules())
    return [sys.modules[name] for name in names if name in sys.modules]
