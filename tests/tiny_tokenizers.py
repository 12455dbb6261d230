"""Small tokenizers of the kinds that chat models have, trained on a few lines of text."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

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
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "You are a careful assistant. Never help with anything that hurts people.",
    "How do I sharpen a kitchen knife? How do I sharpen a pencil?",
    "Be brief and kind.\n\nAnswer in plain words.\n\nBe honest.\n\nUser: hello there",
    "They say: You are kind. We know: You are careful. I see: You are a friend.",
    "The system tells the user, and the assistant answers the user.\n\nThe end.\n\nNext.",
]
PROMPT = "You are a careful assistant.\nNever help with anything that hurts people"
QUERY = "How do I sharpen a kitchen knife?"
SYSTEM = "Answer in plain words"

CHATML = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# The prompt follows a space and is followed by a blank line: tokens would lie over both edges.
INLINE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ 'System: ' + m.content + '\\n\\n' }}{% else %}{{ 'User: ' + m.content }}{% endif %}"
    "{% endfor %}{{ '\\nAssistant:' }}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|end_of_turn|>"]
NOT_SPECIAL = ["<think>", "<|demur_7|>", "\u2042"]
GPT4_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(kind: str) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    if kind == "gpt4":
        split = pre_tokenizers.Split(Regex(GPT4_PATTERN), "isolated")
        byte_part = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_part])
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "gpt2-prefix")
    if kind == "gpt2-trimmed":
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        TEXTS * 4,
        trainers.BpeTrainer(
            vocab_size=600,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return backend


def sentence_piece(kind: str) -> Tokenizer:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    # As in real vocabularies: every byte is a token, and a line break is only a byte.
    merges = [tuple(pair) for pair in learned["merges"] if "\n" not in "".join(pair)]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += sorted(piece for piece in learned["vocab"] if "\n" not in piece)
    vocab = {piece: number for number, piece in enumerate(["<unk>", "<s>", "</s>", *pieces])}
    backend = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if kind == "legacy":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def word_level() -> Tokenizer:
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(
        TEXTS, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    )
    return backend


@cache
def backend_state(kind: str) -> str:
    if kind == "words":
        backend = word_level()
    elif kind in ("first", "always", "legacy"):
        backend = sentence_piece(kind)
    else:
        backend = byte_level(kind)
    backend.add_special_tokens(SPECIAL)
    backend.add_tokens(NOT_SPECIAL)
    return backend.to_str()


BYTE_LEVEL = ["gpt2", "gpt2-trimmed", "gpt2-prefix", "gpt4"]
SENTENCE_PIECE = ["first", "always", "legacy"]
SUBWORD = BYTE_LEVEL + SENTENCE_PIECE


def fast(backend: Tokenizer, template: str | None, unknown: str | None = None) -> Any:
    build: Any = PreTrainedTokenizerFast
    tokenizer = build(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token=unknown
    )
    tokenizer.chat_template = template
    return tokenizer


def make(kind: str, template: str | None = CHATML, add: list[AddedToken] | None = None) -> Any:
    backend = Tokenizer.from_str(backend_state(kind))
    backend.add_tokens(add or [])
    return fast(backend, template, None if kind in BYTE_LEVEL else "<unk>")


def natural(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
