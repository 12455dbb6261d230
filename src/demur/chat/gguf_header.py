"""The header of a GGUF file, read before anything is made of the file.

transformers fills in sizes that a file leaves out, so a file of 300 bytes that is no model would
become one of seven billion random weights.

Source: the format is described in `docs/gguf.md` of ggml-org/ggml.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

from demur.errors import DemurError

Scalar: TypeAlias = int | float | str
_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_MOST_TEXT = 1 << 24
_MOST_DIMENSIONS = 8
_ALIGNMENT = 32
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_KINDS = {
    "adapter": "an adapter",
    "imatrix": "an importance matrix",
    "mmproj": "a projector of images or sound",
    "vocab": "a vocabulary",
    "dataset": "a data set",
}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor as a header lists it.

    Attributes:
        name: name of the tensor.
        shape: numbers along each dimension, the shortest stride first.
        kind: number of its type.
        offset: place of its first byte, counted from the start of the data.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Attributes:
        values: metadata by key; of an array its length alone.
        tensors: tensors in the order of the file.
        data: place of the first byte behind the header.
        size: size of the file in bytes.
    """

    values: dict[str, Scalar]
    tensors: tuple[GgufTensor, ...]
    data: int
    size: int

    @property
    def architecture(self) -> str:
        """Name of the architecture, or an empty text."""
        return str(self.values.get("general.architecture", ""))

    @property
    def template(self) -> str | None:
        """The chat template, or None."""
        found = self.values.get("tokenizer.chat_template")
        return found if isinstance(found, str) and found.strip() else None

    @property
    def templates(self) -> dict[str, str]:
        """All chat templates by name; the one of most conversations is the `default`."""
        key = "tokenizer.chat_template"
        return {
            name.removeprefix(key).lstrip(".") or "default": text
            for name, text in self.values.items()
            if (name == key or name.startswith(f"{key}."))
            and isinstance(text, str)
            and text.strip()
        }

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids of the tokens that end a text, a turn or a message."""
        found = [self.values.get(f"tokenizer.ggml.{name}") for name in _ENDS]
        tokens = self.number("tokenizer.ggml.tokens")
        return frozenset(each for each in found if isinstance(each, int) and 0 <= each < tokens)

    def number(self, key: str) -> int:
        """A count, a size or the length of an array; 0 where there is none."""
        found = self.values.get(key, 0)
        return found if isinstance(found, int) else 0

    def size_of_model(self, name: str) -> int:
        """A size of the architecture, for example `block_count`; 0 where there is none."""
        return self.number(f"{self.architecture}.{name}")


def read_header(file: Path, name: str) -> GgufHeader:
    """Read the header of a GGUF file.

    Args:
        file: a regular file.
        name: name of the model in messages.

    Raises:
        DemurError: the file is no GGUF file, or is damaged.
    """
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            settings = " (settings follow --config)" if file.suffix == ".toml" else ""
            raise DemurError(
                f"{file.name:.300} is not a GGUF file: give a GGUF file or a model "
                f"folder{settings}."
            )
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except (struct.error, ValueError, OverflowError, IndexError) as error:
                raise damaged(name, "its header cannot be read") from error


def read_values(file: Path, name: str) -> dict[str, Scalar | list[Scalar]]:
    """All metadata of a file whose header was read, with the values of its arrays.

    Args:
        file: the file.
        name: name of the model in messages.

    Raises:
        DemurError: a text is not UTF-8, or an array is of no kind that can be read.
    """
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        try:
            return _Reader(data).values()
        except (struct.error, ValueError, OverflowError, IndexError, KeyError) as error:
            raise damaged(name, "its header cannot be read") from error


def damaged(name: str, how: str) -> DemurError:
    """The error for a GGUF file that holds something other than it should."""
    return DemurError(f"{name} is a damaged GGUF file ({how}): download it again.")


def require_whole_model(header: GgufHeader, name: str) -> None:
    """Check that a GGUF file holds one whole language model.

    Raises:
        DemurError: it holds something else, or a part of one.
    """
    _require_model(header, name)
    parts = header.number("split.count")
    if parts > 1:
        part = header.number("split.no") + 1
        raise DemurError(
            f"{name} is part {part} of {parts} of a split model: merge the parts with "
            "`llama-gguf-split --merge FIRST-PART WHOLE.gguf` and give the whole file."
        )
    for key in ("block_count", "embedding_length"):
        if header.size_of_model(key) < 1:
            raise damaged(name, f"its metadata lack {header.architecture or 'NAME'}.{key}")
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    embeddings = shapes.get("token_embd.weight")
    if embeddings is None:
        raise damaged(name, "it has no token embeddings")
    if embeddings[0] != header.size_of_model("embedding_length"):
        raise damaged(name, "its embeddings are not as long as its metadata say")
    found = [re.search(r"(?:^|\.)blk\.(\d+)\.", each) for each in shapes]
    blocks = {int(each[1][:9]) for each in found if each}
    layers = header.size_of_model("block_count")
    # Of a million layers, only those that are there are counted.
    if any(block >= layers for block in blocks):
        raise damaged(name, f"it has layers beyond the {layers} that its metadata say")
    if len(blocks) < layers:
        raise damaged(name, f"it has {len(blocks)} of its {layers} layers")
    width, weights = header.size_of_model("embedding_length"), sum(map(prod, shapes.values()))
    if weights < layers * width**2 // 2:  # the attention of a layer alone has more
        raise damaged(name, f"it has {weights} weights for {layers} layers of a width of {width}")
    if not header.number("tokenizer.ggml.tokens"):
        raise DemurError(f"{name} has no tokenizer: give a GGUF file that has one.")
    _require_data(header, name)


def _require_model(header: GgufHeader, name: str) -> None:
    kind = str(header.values.get("general.type", "model"))
    if "adapter.type" in header.values:
        kind = "adapter"
    if any(key.startswith("imatrix.") for key in header.values):
        kind = "imatrix"
    if header.architecture == "clip":
        kind = "mmproj"
    if kind != "model":
        what = _KINDS.get(kind, f"of the type {kind!r:.40}")
        raise DemurError(f"{name} is {what}, not a model: give the file of the model itself.")


def _require_data(header: GgufHeader, name: str) -> None:
    """Check that the file has the bytes of every tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for tensor in header.tensors:
        try:
            numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
        except ValueError:
            raise damaged(name, f"{tensor.name!r:.60} has an unknown type") from None
        end = header.data + tensor.offset + prod(tensor.shape) // numbers * size
        if end > header.size:
            raise damaged(name, "it is cut off")


class _Reader:
    """Reads a header from its first byte on."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._place = 4

    def values(self) -> dict[str, Scalar | list[Scalar]]:
        """The metadata, arrays and all."""
        self._place += 4
        _, keys = self._number("Q"), self._number("Q")
        found: dict[str, Scalar | list[Scalar]] = {}
        for _ in self._times(keys):
            key = self._text()
            kind = self._number("I")
            found[key] = self._array() if kind == _ARRAY else self._value(kind)
        return found

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        tensors, keys = self._number("Q"), self._number("Q")
        values: dict[str, Scalar] = {}
        for _ in self._times(keys):
            key = self._text()
            kind = self._number("I")
            values[key] = self._skip_array() if kind == _ARRAY else self._value(kind)
        listed = tuple(self._tensor() for _ in self._times(tensors))
        alignment = values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError("alignment")
        start = -(-self._place // alignment) * alignment
        return GgufHeader(values, listed, start, len(self._data))

    def _times(self, count: int) -> Iterator[int]:
        if count > len(self._data):
            raise ValueError("more entries than bytes")
        return iter(range(count))

    def _number(self, code: str) -> int:
        found = self._value_as(code)
        assert isinstance(found, int)
        return found

    def _value_as(self, code: str) -> int | float:
        (found,) = struct.unpack_from(f"<{code}", self._data, self._place)
        self._place += struct.calcsize(f"<{code}")
        assert isinstance(found, (int, float))
        return found

    def _value(self, kind: int) -> Scalar:
        if kind == _STRING:
            return self._text()
        if kind not in _FORMATS:
            raise ValueError(f"type {kind}")
        return self._value_as(_FORMATS[kind])

    def _text(self) -> str:
        length = self._number("Q")
        if length > _MOST_TEXT or self._place + length > len(self._data):
            raise ValueError("a text is longer than the file")
        self._place += length
        return self._data[self._place - length : self._place].decode("utf-8", "replace")

    def _array(self) -> list[Scalar]:
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING:
            return self._texts(length)
        code = f"<{length}{_FORMATS[kind]}"
        found = struct.unpack_from(code, self._data, self._place)
        self._place += struct.calcsize(code)
        return list(found)

    def _texts(self, count: int) -> list[Scalar]:
        data, place, unpack = self._data, self._place, struct.Struct("<Q").unpack_from
        found: list[Scalar] = []
        for _ in self._times(count):
            start = place + 8
            place = start + unpack(data, place)[0]
            found.append(data[start:place].decode())
        self._place = place
        return found

    def _skip_array(self) -> int:
        """Read over an array; return its length."""
        kind, length = self._number("I"), self._number("Q")
        if length > len(self._data):
            raise ValueError("an array is longer than the file")
        if kind == _STRING:
            self._skip_texts(length)
        elif kind in _FORMATS:
            self._place += length * struct.calcsize(f"<{_FORMATS[kind]}")
        else:
            raise ValueError(f"array of type {kind}")
        if self._place > len(self._data):
            raise ValueError("an array is longer than the file")
        return length

    def _skip_texts(self, count: int) -> None:
        data, place, unpack = self._data, self._place, struct.Struct("<Q").unpack_from
        for _ in range(count):
            place += 8 + unpack(data, place)[0]
        self._place = place

    def _tensor(self) -> GgufTensor:
        name = self._text()
        dimensions = self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError("dimensions")
        shape = self._shape(dimensions)
        return GgufTensor(name, shape, self._number("I"), self._number("Q"))

    def _shape(self, dimensions: int) -> tuple[int, ...]:
        found: Sequence[int] = [self._number("Q") for _ in range(dimensions)]
        return tuple(found)
