"""Models of random weights by their shape, for machines without a network.

Speed and memory depend on the shape alone, but for how early responses end: random responses are
never settled by a verdict, so they run to their full length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from demur.chat import ChatModel
from demur.chat.allocator import keep_freed_memory as tell_allocator
from demur.chat.hardware import choose_device, choose_dtype
from demur.chat.loading import LoadedModel
from engine_texts import SENTENCE, queries

PREFIX = "random:"
"""Of the name of a model that is made and not loaded."""

_QWEN: dict[str, Any] = {"model_type": "qwen2", "rms_norm_eps": 1e-6, "rope_theta": 1e6}
_LLAMA: dict[str, Any] = {"model_type": "llama", "vocab_size": 128256, "rope_theta": 5e5}


def _shape(base: dict[str, Any], sizes: tuple[int, int, int, int, int], **more: Any) -> Any:
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    return {**base, **dict(zip(names, sizes, strict=True)), **more}


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _shape(_QWEN, (64, 128, 2, 4, 2), vocab_size=8192),
    "smollm2-135m": _shape(
        _LLAMA, (576, 1536, 30, 9, 3), vocab_size=49152, tie_word_embeddings=True
    ),
    "qwen2.5-0.5b": _shape(
        _QWEN, (896, 4864, 24, 14, 2), vocab_size=151936, tie_word_embeddings=True
    ),
    "qwen2.5-1.5b": _shape(
        _QWEN, (1536, 8960, 28, 12, 2), vocab_size=151936, tie_word_embeddings=True
    ),
    "qwen2.5-7b": _shape(_QWEN, (3584, 18944, 28, 28, 4), vocab_size=152064),
    "llama-3.1-8b": _shape(_LLAMA, (4096, 14336, 32, 32, 8)),
    "llama-3.1-70b": _shape(_LLAMA, (8192, 28672, 80, 64, 8)),
}
"""Configurations by name."""

_TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message.role }} \n {{ message.content }} "
    "<|im_end|> \n {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant \n {% endif %}"
)


def load(name: str, dtype: str, device: str, *, keep_freed_memory: bool) -> ChatModel:
    """A model by its name, or one of random weights where the name begins with `PREFIX`."""
    if not name.startswith(PREFIX):
        return ChatModel.load(name, dtype=dtype, device=device, keep_freed_memory=keep_freed_memory)
    place = choose_device(None if device == "auto" else device)
    number_format, reason = choose_dtype(dtype, place)
    if keep_freed_memory and place.type == "cpu":
        tell_allocator()
    config = AutoConfig.for_model(
        **SHAPES[name.removeprefix(PREFIX)], max_position_embeddings=8192, bos_token_id=None
    )
    torch.manual_seed(0)
    with place:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=number_format)
    model.eval().requires_grad_(False)
    tokenizer = _words(config.vocab_size)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    loaded = LoadedModel(
        model, tokenizer, name, name, place, number_format, reason, folder=Path(name)
    )
    return ChatModel(loaded)


def _words(size: int) -> PreTrainedTokenizerBase:
    """A tokenizer of so many words, with those of the benchmark's texts among them."""
    texts = [SENTENCE, *queries(200), "system user assistant"]
    splitter = pre_tokenizers.Whitespace()
    words = {"<|im_start|>": 0, "<|im_end|>": 1, "<unk>": 2}
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(text):
            words.setdefault(word, len(words))
    for number in range(len(words), size):
        words[f"w{number}"] = number
    tokenizer = Tokenizer(models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=_TEMPLATE,
    )
