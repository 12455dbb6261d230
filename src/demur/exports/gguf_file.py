"""A GGUF file, written tensor by tensor, whose two tables of tokens hold the safety prompt.

Embeddings of Q8_0 or better keep their type; coarser ones would blur the prompt, so they become
F16, which holds what they unpack to. A coarser head becomes Q8_0. No other tensor changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization
from torch import Tensor

from demur.errors import DemurError
from demur.exports.vocabulary import Vocabulary
from demur.files import writing
from demur.progress import Progress

EMBEDDINGS, HEAD = "token_embd.weight", "output.weight"
_FINE = (Quantization.F32, Quantization.F16, Quantization.BF16, Quantization.Q8_0)
_ALWAYS_TIED = [
    name
    for kind, name in gguf.MODEL_ARCH_NAMES.items()
    if gguf.MODEL_TENSOR.OUTPUT not in gguf.MODEL_TENSORS.get(kind, [gguf.MODEL_TENSOR.OUTPUT])
]
"""The architectures of llama.cpp whose files must not hold a head: they would not load."""

_BLOCK = 64
"""Rows of a table that llama.cpp's kernels may take together."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Part:
    """A tensor of a GGUF file, read only when it is written.

    Attributes:
        name: name in the file.
        kind: type that it is stored as.
        shape: numbers along each dimension, rows first.
        load: function that returns it as it is stored.
    """

    name: str
    kind: Quantization
    shape: tuple[int, ...]
    load: Callable[[], Array]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return prod(gguf.quants.quant_shape_to_byte_shape(self.shape, self.kind))


def table_size(tokens: int, vocabulary: Vocabulary) -> int:
    """How many tokens the file lists, where its base had so many."""
    size = max(tokens, vocabulary.opening.first_id + len(vocabulary.rows))
    if tokens % _BLOCK == 0:  # a table that was made for fast kernels stays one
        size += -size % _BLOCK
    return size


def padding_names(first: int, end: int) -> list[str]:
    """Names for the tokens of unused rows."""
    return [f"[PAD{place}]" for place in range(first, end)]


def with_prompt(
    parts: Sequence[Part], vocabulary: Vocabulary, size: int, architecture: str
) -> list[Part]:
    """The tensors of a base with the prompt's rows in its tables.

    Args:
        parts: tensors of the base model; without a head where that shares the embeddings.
        vocabulary: tokens and rows that are added.
        size: number of rows that both tables get.
        architecture: name of the architecture in GGUF files.

    Raises:
        DemurError: the head shares the embeddings, and llama.cpp knows no other for such models.
    """
    rows = {EMBEDDINGS: vocabulary.rows, HEAD: vocabulary.silent}
    tables = {part.name: part for part in parts if part.name in rows}
    found = list(parts)
    if HEAD not in tables:
        if architecture in _ALWAYS_TIED:
            raise always_tied(architecture)
        found.append(replace(tables[EMBEDDINGS], name=HEAD))
    first = vocabulary.opening.first_id
    return [
        _longer(part, first, size, rows[part.name]) if part.name in rows else part for part in found
    ]


def always_tied(kind: str) -> DemurError:
    """The error for models whose head cannot differ from their embeddings in llama.cpp."""
    return DemurError(
        f"llama.cpp knows no {kind} model whose head differs from its embeddings, as it must where "
        "tokens are never emitted: export to transformers or peft."
    )


def _longer(table: Part, first: int, size: int, rows: Tensor) -> Part:
    """A table with other rows from `first` on, the last of them repeated to its end."""
    kind = table.kind
    if kind not in _FINE:
        kind = Quantization.F16 if table.name == EMBEDDINGS else Quantization.Q8_0

    def load() -> Array:
        stored = table.load()
        if kind != table.kind:
            stored = gguf.quants.quantize(gguf.quants.dequantize(stored, table.kind), kind)
        new = gguf.quants.quantize(rows.numpy(), kind)
        longer: Array = np.zeros((max(len(stored), size), stored.shape[1]), stored.dtype)
        longer[: len(stored)] = stored
        longer[first : first + len(new)] = new
        longer[max(len(stored), first + len(new)) :] = new[-1]
        return longer

    return Part(table.name, kind, (max(table.shape[0], size), *table.shape[1:]), load)


def write_file(writer: Any, file: Path, parts: Sequence[Part], progress: Progress) -> None:
    """Write a GGUF file; one tensor at a time is in memory.

    Args:
        writer: `GGUFWriter` with the metadata.
        file: file to write.
        parts: tensors to write.
        progress: receives the bytes written.

    Raises:
        DemurError: the place cannot be written.
    """
    for part in parts:
        # With a raw type the other one only says that the shape is in numbers, not in bytes.
        writer.add_tensor_info(
            part.name, part.shape, np.dtype(np.float32), part.size, raw_dtype=part.kind
        )
    total = sum(part.size for part in parts)
    with writing(file), progress.stage("Writing the GGUF file", total, "bytes") as stage:
        writer.write_header_to_file(path=file)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for part in parts:
            writer.write_tensor_data(part.load())
            stage.advance(part.size)
        writer.close()
