"""How transformers reads a GGUF file while demur unpacks it: once, and with several threads.

transformers opens such a file up to three times, through `gguf.GGUFReader`, which makes an array of
every string of the vocabulary, one byte at a time; most of a minute for a large vocabulary. Inside
`read_fast` it gets a reader that has read the file once, and tensors that are taken apart ahead of
it (`gguf_blocks.py`). What it makes of them (names, configurations, permutations) stays its own.
"""

from __future__ import annotations

import importlib
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demur.chat.gguf_blocks import Ahead, Bytes, dequantized, threads
from demur.chat.gguf_header import GgufHeader, read_values

_alone = threading.Lock()
"""Only one file at a time is read so: what stands in for the reader is seen by all threads."""


_LEGACY = (
    "_gguf_parse_value",
    "load_gguf_checkpoint",
    "get_gguf_hf_weights_map",
    "TensorProcessor",
    "TENSOR_PROCESSORS",
)
"""The parts of transformers that are used or replaced here."""


@dataclass(frozen=True)
class _Field:
    """A value of the header, or the values of an array, as `gguf.ReaderField` shows them."""

    parts: list[Any]
    data: range
    types: list[int]


@dataclass(frozen=True)
class _Tensor:
    """A tensor, as `gguf.ReaderTensor` shows it where no data are read."""

    name: str


class _Reader:
    """Stands in for `gguf.GGUFReader`."""

    def __init__(self, file: Path, header: GgufHeader, name: str) -> None:
        self.fields = {
            key: _Field(
                value if isinstance(value, list) else [value],
                range(len(value) if isinstance(value, list) else 1),
                [],
            )
            for key, value in read_values(file, name).items()
        }
        self.tensors = [_Tensor(tensor.name) for tensor in header.tensors]


@contextmanager
def read_fast(file: Path, header: GgufHeader, name: str) -> Iterator[None]:
    """Let transformers read a file fast inside.

    Args:
        file: the GGUF file.
        header: its header, which was checked.
        name: name of the model in messages.

    Raises:
        DemurError: the metadata cannot be read.
    """
    package: Any = importlib.import_module("gguf")
    try:
        legacy: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    except ImportError:
        legacy = None
    if not all(hasattr(legacy, part) for part in _LEGACY):
        yield  # a version of transformers that reads files in another way
        return
    reader = _Reader(file, header, name)
    own_reader, own_parse = package.GGUFReader, legacy._gguf_parse_value

    def opened(path: Any, *arguments: Any, **options: Any) -> Any:
        same = Path(path).resolve() == file.resolve()  # other threads may read other files
        return reader if same else own_reader(path, *arguments, **options)

    def parsed(value: Any, kind: Any) -> Any:
        return own_parse(value, kind) if isinstance(value, np.ndarray) else value

    with _alone, ExitStack() as stack:
        for module, part, other in (
            (package, "GGUFReader", opened),
            (package, "get_tensor_name_map", lru_cache(package.get_tensor_name_map)),
            (legacy, "_gguf_parse_value", parsed),
            (legacy, "load_gguf_checkpoint", _loader(file, header, legacy)),
        ):
            stack.enter_context(_instead(module, part, other))
        with suppress(ImportError, AttributeError):  # a newer reader, for some architectures
            newer: Any = importlib.import_module("transformers.integrations.gguf.reader")
            mapped = newer._mapped
            # A slice of a `memmap` takes ten times as long as one of a plain array.
            plain = _instead(newer, "_mapped", lambda path: np.asarray(mapped(path)))
            stack.enter_context(plain)
        yield


def _loader(file: Path, header: GgufHeader, legacy: Any) -> Callable[..., dict[str, Any]]:
    """What stands in for `load_gguf_checkpoint`."""
    own = legacy.load_gguf_checkpoint

    def load(
        path: Any, return_tensors: bool = False, model_to_load: Any = None, **options: Any
    ) -> dict[str, Any]:
        if not return_tensors or Path(path).resolve() != file.resolve():
            other: dict[str, Any] = own(path, return_tensors, model_to_load, **options)
            return other
        found: dict[str, Any] = own(path)
        dtype = options.get("torch_dtype") or torch.float32
        found["tensors"] = _tensors(file, header, legacy, found, model_to_load, dtype)
        return found

    return load


def _tensors(
    file: Path,
    header: GgufHeader,
    legacy: Any,
    found: dict[str, Any],
    model: Any,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """The weights of a model under the names of transformers, as its architecture keeps them."""
    kind = legacy.TENSOR_PROCESSORS.get(header.architecture, legacy.TensorProcessor)
    processor = kind(config=found["config"])
    names = legacy.get_gguf_hf_weights_map(model, processor)
    found["tensors"] = tensors = {}
    # Where the architecture changes nothing, pieces are rounded to the dtype while they are cached.
    as_they_are = kind.process is legacy.TensorProcessor.process
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        threads() as pool,
        threads() as ahead,
    ):

        def numbers_of(number: int) -> torch.Tensor:
            data, kind = _bytes_of(content, header, number), header.tensors[number].kind
            return dequantized(data, kind, dtype if as_they_are else torch.float32, pool)

        begun = Ahead(numbers_of, len(header.tensors), ahead)
        for number, listed in enumerate(header.tensors):
            numbers, name = begun[number], listed.name
            if not as_they_are:
                processed = processor.process(
                    weights=numbers.numpy(),
                    name=name,
                    tensor_key_mapping=names,
                    parsed_parameters=found,
                )
                name = processed.name
                if name in names:
                    numbers = torch.from_numpy(np.ascontiguousarray(processed.weights)).to(dtype)
            if name in names:
                tensors[names[name]] = numbers
    return tensors


@contextmanager
def _instead(module: Any, name: str, other: Any) -> Iterator[None]:
    """Put something else in the place of a part of a Python module inside."""
    own = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, own)


def _bytes_of(content: mmap.mmap, header: GgufHeader, number: int) -> Bytes:
    """The bytes of a tensor, row by row."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    tensor = header.tensors[number]
    numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    shape = *tensor.shape[:0:-1], tensor.shape[0] // numbers * size
    start = header.data + tensor.offset
    return np.frombuffer(content, np.uint8, prod(shape), start).reshape(shape)
