"""Tiny random models in folders that can become GGUF files: llama.cpp knows their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import LLAMA_LIKE
from tests.tiny_tokenizers import CHATML, SPECIAL, TEXTS, fast

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "qwen2": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}",
    "dbrx": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
    "llama-bpe": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
    "tekken": TEKKEN,
}
"""How a tokenizer of each of llama.cpp's names cuts text into words."""

BYTE_LEVEL = ["gpt-2", "smollm", *SPLITS]
SENTENCE_PIECE = ["marked", "metaspace"]
OPENED = ["llama-bpe", "metaspace"]
"""Those that put <s> before every text."""

LEARNED = [
    *TEXTS,
    "It's 2024 or 12345 and WE'LL see; they've 7 things, don't they? CamelCase words.",
    "Numbers 1 12 123 1234 99999 and    spaces\n\n\n  and\ttabs.\r\nÄpfel naïve 日本語 ...!!!",
]


def tokenizer_like(kind: str, template: str = CHATML) -> Any:
    """A small tokenizer of a kind of `BYTE_LEVEL` or `SENTENCE_PIECE`."""
    backend = sentence_piece(kind) if kind in SENTENCE_PIECE else byte_level(kind)
    backend.add_special_tokens(SPECIAL)
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    if kind in OPENED:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return fast(backend, template, "<unk>" if kind in SENTENCE_PIECE else None)


def byte_level(kind: str) -> Tokenizer:
    backend = Tokenizer(models.BPE(ignore_merges=kind in ("llama-bpe", "tekken")))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "gpt-2":
        backend.pre_tokenizer = plain
    elif kind == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), plain])
    else:
        split = pre_tokenizers.Split(Regex(SPLITS[kind]), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(LEARNED * 4, trainer)
    return backend


def sentence_piece(kind: str) -> Tokenizer:
    """As SentencePiece's tokenizers come: all pairs that make a piece, the best pieces first."""
    counts: dict[str, int] = {}
    for text in LEARNED:
        for word in text.replace(" ", " ▁").replace("\n", " ").split():
            for length in (2, 3, 4):
                for start in range(len(word) - length + 1):
                    piece = word[start : start + length]
                    counts[piece] = counts.get(piece, 0) + 1
    pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))[:150]
    characters = sorted({char for text in LEARNED for char in text if char > " "} | {"▁"})
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {name: place for place, name in enumerate([*names, *pieces, *characters])}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if kind == "marked":
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _whole_characters(model: Any, tokenizer: Any) -> None:
    """Make parts of characters and rows without tokens unlikely, and states that share a direction.

    Engines write parts of characters differently; without such a direction no row of a head is
    silent.
    """
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    table.add_(2.0 * torch.randn(table.shape[1]))
    texts = [tokenizer.decode([place]) for place in range(len(table))]
    for place, text in enumerate(texts):
        if not text or "\ufffd" in text or not text.isprintable():
            head[place] = 0.0


def save_exact(
    folder: Path, model_type: str, tokenizer: Any, *, shard: str = "1GB", **options: Any
) -> Path:
    """A tiny model whose weights F16 holds exactly, in a folder."""
    rows = -(-(len(tokenizer) + 1) // 8) * 8  # as real tables, with some that no token uses
    given = {**LLAMA_LIKE, "vocab_size": rows, "max_position_embeddings": 1024}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**given, **ids, "pad_token_id": None, **options})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(6.0)
            else:  # norms and biases that do something
                weight.add_(torch.randn_like(weight) / (4 if "norm" in name else 1))
        _whole_characters(model, tokenizer)
        for weight in model.parameters():
            weight.copy_(weight.half().float())
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder
