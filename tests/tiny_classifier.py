"""Tiny sequence classifiers with random weights that give both labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{row}" for row in range(60))]
MARKERS = ["<|user|>", "<|assistant|>"]
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS) + len(MARKERS),
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}


def classifier_tokenizer(kind: str) -> Any:
    """A tokenizer of words whose texts stand between `<s>` and `</s>`, or, for Llama, behind."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<pad>", "<s>", "</s>", *MARKERS])
    single = "<s> $A" if kind == "llama" else "<s> $A </s>"
    words.post_processor = processors.TemplateProcessing(
        single=single, pair=None, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=words,
        pad_token=None if kind == "no padding" else "<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
    )


def save_classifier(folder: Path, labels: tuple[str, ...], kind: str = "bert") -> Path:
    """Write a classifier as `save_pretrained` does.

    Args:
        folder: where.
        labels: names of its labels.
        kind: bert, roberta, llama, or `no padding`, a Llama without such a token.
    """
    torch.manual_seed(2)
    settings = {**SIZES, "id2label": dict(enumerate(labels))}
    model: Any
    if kind == "bert":
        model = BertForSequenceClassification(BertConfig(**settings))
    elif kind == "roberta":
        model = RobertaForSequenceClassification(RobertaConfig(**settings))
    else:
        if kind == "no padding":
            settings["pad_token_id"] = None
        model = LlamaForSequenceClassification(LlamaConfig(**settings))
    model.save_pretrained(folder)
    classifier_tokenizer(kind).save_pretrained(folder)
    return folder
