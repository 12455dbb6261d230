"""A GGUF file with the safety prompt, from a GGUF file: what is not about tokens is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from demur.errors import DemurError
from demur.exports.gguf_file import (
    EMBEDDINGS,
    Part,
    padding_names,
    table_size,
    with_prompt,
    write_file,
)
from demur.exports.opening import Opening, safety_token_names
from demur.exports.vocabulary import Vocabulary
from demur.progress import Progress
from demur.prompts import SafetyPrompt

_CONTROL = int(gguf.TokenType.CONTROL)
_TOKENS = "tokenizer.ggml.tokens"
_NEW_ITEMS = {"tokenizer.ggml.token_type": _CONTROL, "tokenizer.ggml.scores": -1000.0}
_TEMPLATE = "tokenizer.chat_template"
_ADDS_FIRST = "tokenizer.ggml.add_bos_token"
_ALIGNMENT = "general.alignment"


def write_from_gguf(
    base: Path,
    file: Path,
    vocabulary: Vocabulary,
    prompt: SafetyPrompt,
    progress: Progress,
    *,
    adds_first: bool = True,
) -> None:
    """Write the base with the prompt's rows as tokens of its vocabulary.

    Args:
        base: GGUF file of the base model.
        file: file to write.
        vocabulary: tokens and rows that are added.
        prompt: prompt that the tokens are named after.
        progress: receives the bytes written.
        adds_first: whether an engine may put the first token before texts, where the base lets it.

    Raises:
        DemurError: the file is no language model's, or the place cannot be written.
    """
    reader = gguf.GGUFReader(base)
    architecture = _value(reader, "general.architecture")
    tokens = _value(reader, _TOKENS)
    parts = [_part(tensor) for tensor in reader.tensors]
    if not architecture or not tokens or all(part.name != EMBEDDINGS for part in parts):
        raise DemurError(f"{base} holds no language model with its tokenizer: export to peft.")
    writer = gguf.GGUFWriter(None, architecture)
    size = table_size(len(tokens), vocabulary)
    _write_metadata(
        reader, writer, size, vocabulary.opening, safety_token_names(prompt), adds_first
    )
    write_file(writer, file, with_prompt(parts, vocabulary, size, architecture), progress)


def _part(tensor: Any) -> Part:
    shape = tuple(int(length) for length in reversed(tensor.shape))
    return Part(tensor.name, tensor.tensor_type, shape, lambda: tensor.data)


def _value(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _write_metadata(
    reader: Any,
    writer: Any,
    size: int,
    opening: Opening,
    names: list[str],
    adds_first: bool,
) -> None:
    """Copy the metadata; lengthen the lists of tokens and exchange the template."""
    skipped = ("GGUF.", "general.architecture", _ALIGNMENT, _TEMPLATE)
    if reader.get_field(_ALIGNMENT) is not None:
        writer.add_custom_alignment(int(reader.alignment))
    for field in reader.fields.values():
        kind, value = field.types[0], field.contents()
        if field.name == _ADDS_FIRST and not adds_first:
            continue
        if field.name.startswith(skipped) or (kind == gguf.GGUFValueType.ARRAY and not value):
            continue  # the format has no way to write an empty list
        if field.name == _TOKENS:
            value = [*value, *padding_names(len(value), size)]
            value[opening.first_id : opening.first_id + len(names)] = names
        elif field.name in _NEW_ITEMS:
            item = _NEW_ITEMS[field.name]
            value = [*value, *([item] * (size - len(value)))]
            value[opening.first_id : opening.first_id + len(names)] = [item] * len(names)
        elif field.name.endswith(".vocab_size"):
            value = size
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=items)
    writer.add_chat_template(opening.named_templates)
    if not adds_first:
        writer.add_add_bos_token(False)
