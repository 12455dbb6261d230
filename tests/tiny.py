"""Tiny random models of many architectures, built on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 96
LLAMA_LIKE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MULTI_HEAD = {"num_key_value_heads": 4}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT_LIKE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, grouped attention": ("llama", LLAMA_LIKE),
    "llama, multi-head attention, tied": (
        "llama",
        {**LLAMA_LIKE, **MULTI_HEAD, "tie_word_embeddings": True},
    ),
    "qwen2": ("qwen2", LLAMA_LIKE),
    "qwen3": ("qwen3", LLAMA_LIKE),
    "mistral, sliding window": ("mistral", {**LLAMA_LIKE, "sliding_window": 8}),
    "gemma, embedding scaling": ("gemma", LLAMA_LIKE),
    "gemma2, soft-capping, sliding window": ("gemma2", {**LLAMA_LIKE, "sliding_window": 40}),
    "gemma3, sliding window": ("gemma3_text", {**LLAMA_LIKE, "sliding_window": 24}),
    "phi3": ("phi3", LLAMA_LIKE),
    "olmo2": ("olmo2", LLAMA_LIKE),
    "cohere, logit scale": ("cohere", LLAMA_LIKE),
    "granite, embedding and logit scale": (
        "granite",
        {**LLAMA_LIKE, "embedding_multiplier": 3.0, "logits_scaling": 2.0},
    ),
    "stablelm": ("stablelm", LLAMA_LIKE),
    "starcoder2": ("starcoder2", LLAMA_LIKE),
    "mixtral, mixture of experts": ("mixtral", {**LLAMA_LIKE, **EXPERTS}),
    "gpt2, absolute positions": (
        "gpt2",
        {**GPT_LIKE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    ),
    "opt, absolute positions": (
        "opt",
        {
            **GPT_LIKE,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 32,
        },
    ),
    "gpt-neox, parallel residual": (
        "gpt_neox",
        {**LLAMA_LIKE, "num_key_value_heads": None},
    ),
    "bloom, linear biases": (
        "bloom",
        {**GPT_LIKE, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "mamba, state-space": (
        "mamba",
        {**GPT_LIKE, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ),
    "lfm2, hybrid": (
        "lfm2",
        {
            **LLAMA_LIKE,
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
        },
    ),
}
"""Name for people: model type and configuration."""

CANNOT_SHARE = {"mamba, state-space", "lfm2, hybrid"}
"""Those whose cache cannot be expanded."""


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model of `ARCHITECTURES[name]`, float32, frozen."""
    model_type, options = ARCHITECTURES[name]
    given = {key: value for key, value in options.items() if value is not None}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **given)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        # The usual initialization is so small that every token would look alike.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    model.eval().requires_grad_(False)
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of `VOCABULARY` words with a chat template.

    Every sixth word is one that refuses, so that a random model refuses some queries.
    """
    words = ["<pad>", "<s>", "</s>", "<unk>", "user", "system", "assistant", ":", "?", "."]
    words += [
        f"I apologize {index}" if index % 6 == 0 else f"w{index}"
        for index in range(VOCABULARY - len(words))
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %} {{ message.role }} : "
        "{{ message.content }} {% endfor %}{% if add_generation_prompt %} assistant : {% endif %}"
    )
    return fast


def save_tiny_model(folder: Path, name: str = "llama, grouped attention") -> Path:
    """A tiny model with its tokenizer as a local folder."""
    tiny_model(name).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
