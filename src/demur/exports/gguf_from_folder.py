"""A GGUF file with the safety prompt, from a model folder: matrices in F16, vectors in F32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization
from safetensors import safe_open

from demur.chat import ChatModel
from demur.errors import DemurError
from demur.exports.gguf_file import (
    EMBEDDINGS,
    HEAD,
    Array,
    Part,
    table_size,
    with_prompt,
    write_file,
)
from demur.exports.gguf_models import Layout
from demur.exports.gguf_tokenizer import TokenizerMetadata
from demur.exports.vocabulary import Vocabulary
from demur.exports.weights import Tables
from demur.progress import Progress

_STRIPPED = ("phi-3", "phi3")
"""Where a file's name for the model has one of these, llama.cpp strips spaces behind its tokens."""


def write_from_folder(
    model: ChatModel,
    layout: Layout,
    file: Path,
    vocabulary: Vocabulary,
    progress: Progress,
    *,
    adds_first: bool = True,
) -> None:
    """Write a model of safetensors with the prompt's rows as tokens of its vocabulary.

    Args:
        model: base model.
        layout: layout of the base model.
        file: file to write.
        vocabulary: tokens and rows that are added.
        progress: receives the bytes written.
        adds_first: whether an engine may put the first token before texts, as the tokenizer does.

    Raises:
        DemurError: the tokenizer or a tensor cannot be written, or the place cannot.
    """
    tables = Tables.of(model)
    tokenizer = TokenizerMetadata(vocabulary.opening, _ends(model), model.name)
    size = table_size(tables.rows, vocabulary)
    parts = with_prompt(_parts(model, layout, tables), vocabulary, size, layout.architecture)
    writer = gguf.GGUFWriter(None, layout.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    if not any(word in model.name.lower() for word in _STRIPPED):
        writer.add_name(model.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    layout.add_to(writer, size)
    tokenizer.add_to(writer, size, adds_first=adds_first)
    write_file(writer, file, parts, progress)


def _ends(model: ChatModel) -> list[int]:
    """The tokens that end an answer, by the model's own settings."""
    settings: Any = getattr(model.engine.model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    if ends is None:
        return []
    return [ends] if isinstance(ends, int) else list(ends)


def _parts(model: ChatModel, layout: Layout, tables: Tables) -> list[Part]:
    parts = layout.extra_parts()
    for file in tables.files:
        with safe_open(str(file), framework="pt") as stored:
            names = stored.keys()
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in names}
        for name, shape in shapes.items():
            target: str | None
            if name == tables.embeddings:
                target = EMBEDDINGS
            elif name == tables.head:
                target = None if tables.tied else HEAD
            else:
                target = layout.stored(name)
            if target is not None:
                parts.append(_part(model.name, layout, file, name, target, shape))
    return parts


def _part(
    model: str, layout: Layout, file: Path, name: str, target: str, shape: tuple[int, ...]
) -> Part:
    kind = Quantization.F32 if len(shape) == 1 else Quantization.F16

    def load() -> Array:
        with safe_open(str(file), framework="pt") as stored:
            tensor = layout.converted(target, stored.get_tensor(name))
        numbers: Array = tensor.contiguous().numpy()
        if kind == Quantization.F16:
            with np.errstate(over="ignore"):
                numbers = numbers.astype(np.float16)
        if not np.isfinite(numbers).all():
            raise DemurError(f"{model} has weights that F16 cannot hold ({name}): export to peft.")
        return numbers

    return Part(target, kind, shape, load)
