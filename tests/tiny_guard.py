"""A tiny guard model whose answer is settled by the last word that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "ask", "good", "bad", "odd", "safe", "unsafe", "S1"]
WORDS += ["maybe", "UNSAFE", "CONTENT", "CATEGORIES", "policy", "strict", "[END]", "mild"]

# What follows each word; `</s>` ends the answer.
NEXT = {"good": "safe", "safe": "</s>", "bad": "unsafe", "unsafe": "</s>"}
NEXT |= {"odd": "maybe", "maybe": "</s>", "mild": "safe", "strict": "unsafe"}

# The response stands last, so that its last word decides.
TEMPLATE = (
    "{{ bos_token }} UNSAFE CONTENT CATEGORIES"
    "{% for m in messages %} {{ m.content }}{% endfor %}"
    "{% if policy is defined %} {{ policy }}{% endif %}"
)


def guard_tokenizer(template: str | None = TEMPLATE) -> Any:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<s>", "</s>", "[END]"])
    build: Any = PreTrainedTokenizerFast
    tokenizer = build(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.chat_template = template
    return tokenizer


def save_guard(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Write the guard as `save_pretrained` does."""
    size = len(WORDS)
    width = size + size % 2
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=8,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # One-hot words and silent layers: the next word depends on the last one alone.
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, width))
        for word, follower in NEXT.items():
            model.lm_head.weight[WORDS.index(follower), WORDS.index(word)] = 1.0
    model.save_pretrained(folder)
    guard_tokenizer(template).save_pretrained(folder)
    return folder
