"""A GGUF file whose vocabulary holds the safety prompt and whose template opens with it.

Every tensor but the embeddings keeps its bytes. The embeddings keep theirs where they are Q8_0 or
better; coarser ones would blur the prompt, so they become F16, which holds what they unpack to. A
coarser head becomes Q8_0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization
from torch import Tensor

from demur.errors import DemurError
from demur.exports.opening import Opening, safety_token_names
from demur.exports.vocabulary import Vocabulary
from demur.files import writing
from demur.progress import Stage
from demur.prompts import SafetyPrompt

_EMBEDDINGS, _HEAD = "token_embd.weight", "output.weight"
_FINE = (Quantization.F32, Quantization.F16, Quantization.BF16, Quantization.Q8_0)
_CONTROL = int(gguf.TokenType.CONTROL)
_TOKENS = "tokenizer.ggml.tokens"
_NEW_ITEMS = {"tokenizer.ggml.token_type": _CONTROL, "tokenizer.ggml.scores": -1000.0}
_TEMPLATE = "tokenizer.chat_template"
_ALIGNMENT = "general.alignment"
_BLOCK = 64
"""Rows of a table that llama.cpp's kernels may take together."""

Array = np.ndarray[Any, Any]


def write_gguf(
    base: Path,
    file: Path,
    vocabulary: Vocabulary,
    prompt: SafetyPrompt,
    stage: Stage,
) -> None:
    """Write the base with the prompt's rows as tokens of its vocabulary.

    Args:
        base: a GGUF file.
        file: the one to write.
        vocabulary: what is added.
        prompt: names the tokens.
        stage: hears of the bytes.

    Raises:
        DemurError: the file is no language model's, or the place cannot be written.
    """
    opening, rows, silent = vocabulary.opening, vocabulary.rows, vocabulary.silent
    reader = gguf.GGUFReader(base)
    architecture = _value(reader, "general.architecture")
    tokens = _value(reader, _TOKENS)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if not architecture or not tokens or _EMBEDDINGS not in tensors:
        raise DemurError(f"{base} holds no language model with its tokenizer: export to peft.")
    writer = gguf.GGUFWriter(None, architecture)
    size = max(len(tokens), opening.first_id + len(rows))
    if len(tokens) % _BLOCK == 0:  # a table that was made for fast kernels stays one
        size += -size % _BLOCK
    _write_metadata(reader, writer, size, opening, safety_token_names(prompt))
    for tensor in reader.tensors:
        if tensor.name == _EMBEDDINGS:
            _add(writer, tensor.name, tensor, opening.first_id, size, rows)
        elif tensor.name == _HEAD:
            _add(writer, tensor.name, tensor, opening.first_id, size, silent)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if _HEAD not in tensors:  # it shared the embeddings
        _add(writer, _HEAD, tensors[_EMBEDDINGS], opening.first_id, size, silent)
    with writing(file):
        writer.write_header_to_file(path=file)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file(progress=False)
        writer.close()
    stage.advance(file.stat().st_size)


def _value(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _write_metadata(
    reader: Any, writer: Any, size: int, opening: Opening, names: list[str]
) -> None:
    """Copy the metadata; lengthen the lists of tokens and exchange the template."""
    skipped = ("GGUF.", "general.architecture", _ALIGNMENT, _TEMPLATE)
    if reader.get_field(_ALIGNMENT) is not None:
        writer.add_custom_alignment(int(reader.alignment))
    for field in reader.fields.values():
        kind, value = field.types[0], field.contents()
        if field.name.startswith(skipped) or (kind == gguf.GGUFValueType.ARRAY and not value):
            continue  # the format has no way to write an empty list
        if field.name == _TOKENS:
            value = [*value, *(f"[PAD{place}]" for place in range(len(value), size))]
            value[opening.first_id : opening.first_id + len(names)] = names
        elif field.name in _NEW_ITEMS:
            item = _NEW_ITEMS[field.name]
            value = [*value, *([item] * (size - len(value)))]
            value[opening.first_id : opening.first_id + len(names)] = [item] * len(names)
        elif field.name.endswith(".vocab_size"):
            value = size
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=items)
    writer.add_chat_template(opening.tokenizer.chat_template)


def _add(writer: Any, name: str, table: Any, first: int, size: int, rows: Tensor) -> None:
    """Add a table of embeddings with other rows from `first` on, the last repeated to its end."""
    kind, stored = table.tensor_type, table.data
    if kind not in _FINE:
        kind = Quantization.F16 if name == _EMBEDDINGS else Quantization.Q8_0
        stored = gguf.quants.quantize(gguf.quants.dequantize(stored, table.tensor_type), kind)
    new = gguf.quants.quantize(rows.numpy(), kind)
    longer: Array = np.zeros((max(len(stored), size), stored.shape[1]), stored.dtype)
    longer[: len(stored)] = stored
    longer[first : first + len(new)] = new
    longer[max(len(stored), first + len(new)) :] = new[-1]
    writer.add_tensor(name, longer, raw_dtype=kind)
