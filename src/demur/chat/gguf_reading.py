"""How transformers reads a GGUF file while demur unpacks it: once, and with several threads.

transformers opens such a file up to three times, through `gguf.GGUFReader`, which makes an array of
every string of the vocabulary, one byte at a time; most of a minute for a large vocabulary. Inside
`read_fast` it gets a reader that has read the file once, and tensors that are taken apart ahead of
it (`gguf_blocks.py`): where their shapes stay, straight into a file with the weights, which it gets
mapped into memory. What it makes of them (names, configurations, permutations) stays its own.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from demur.chat.gguf_blocks import (
    Ahead,
    Blocks,
    Bytes,
    Numbers,
    are_finite,
    dequantized,
    round_into,
    threads,
)
from demur.chat.gguf_header import GgufHeader, read_values
from demur.chat.weight_checks import no_numbers
from demur.chat.weights_file import WeightsFile, require_weights_space

_alone = threading.Lock()
"""Only one file at a time is read so: what stands in for the reader is seen by all threads."""

_MOST_PIECES = 512
"""Pieces that threads are given at once: none waits for the end of a tensor."""

_CHANGED: Mapping[str, tuple[str, ...]] = {
    "TensorProcessor": (),
    "LlamaTensorProcessor": (".attn_q.", ".attn_k."),
    "Gemma2TensorProcessor": ("norm.weight",),
    "NemotronTensorProcessor": ("norm.weight",),
}
"""The processors of transformers that leave shapes as they are: what is in the names of the tensors
that they change. The others take tensors apart, join or turn them."""

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
def read_fast(file: Path, header: GgufHeader, name: str, weights: Path) -> Iterator[None]:
    """Let transformers read a file fast inside.

    Args:
        file: the GGUF file.
        header: its header, which was checked.
        name: name of the model in messages.
        weights: file that its weights are written to on the way, as safetensors, where their
            architecture allows it; they are numbers then. Its folder is made where it is missing.

    Raises:
        DemurError: the metadata cannot be read; inside, weights are no numbers or do not fit on the
            disk.
        OSError: inside, the disk is full.
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
            (legacy, "load_gguf_checkpoint", _loader(file, header, legacy, name, weights)),
        ):
            stack.enter_context(_instead(module, part, other))
        with suppress(ImportError, AttributeError):  # a newer reader, for some architectures
            newer: Any = importlib.import_module("transformers.integrations.gguf.reader")
            mapped = newer._mapped
            # A slice of a `memmap` takes ten times as long as one of a plain array.
            plain = _instead(newer, "_mapped", lambda path: np.asarray(mapped(path)))
            stack.enter_context(plain)
        yield


def _loader(
    file: Path, header: GgufHeader, legacy: Any, title: str, weights: Path
) -> Callable[..., dict[str, Any]]:
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
        kind = legacy.TENSOR_PROCESSORS.get(header.architecture, legacy.TensorProcessor)
        processor = kind(config=found["config"])
        names = legacy.get_gguf_hf_weights_map(model_to_load, processor)
        found["tensors"] = {}
        changed = _changed_by(kind, legacy)
        if changed is None:
            _take_processed(file, header, processor, names, found, dtype)
        else:
            if not weights.exists():
                process = partial(
                    processor.process, tensor_key_mapping=names, parsed_parameters=found
                )
                _write(file, header, names, weights, dtype, title, changed, process)
            found["tensors"] = load_file(weights)
        return found

    return load


def _changed_by(kind: type, legacy: Any) -> tuple[str, ...] | None:
    """What is in the names of tensors that a processor changes; None where it does more."""
    decides = next(one for one in kind.__mro__ if "process" in vars(one))
    known = getattr(legacy, decides.__name__, None) is decides
    return _CHANGED.get(decides.__name__) if known else None


def _take_processed(
    file: Path,
    header: GgufHeader,
    processor: Any,
    names: Mapping[str, str],
    found: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    """Put the weights of a model into `found["tensors"]`, as its architecture keeps them."""
    tensors: dict[str, torch.Tensor] = found["tensors"]
    content = _mapped(file)
    with threads() as pool, threads() as ahead:

        def numbers_of(number: int) -> torch.Tensor:
            data, kind = _bytes_of(content, header, number), header.tensors[number].kind
            return dequantized(data, kind, torch.float32, pool)

        begun = Ahead(numbers_of, len(header.tensors), ahead)
        for number, listed in enumerate(header.tensors):
            processed = processor.process(
                weights=begun[number].numpy(),
                name=listed.name,
                tensor_key_mapping=names,
                parsed_parameters=found,
            )
            if processed.name in names:
                numbers = torch.from_numpy(np.ascontiguousarray(processed.weights)).to(dtype)
                tensors[names[processed.name]] = numbers


def _write(
    file: Path,
    header: GgufHeader,
    names: Mapping[str, str],
    weights: Path,
    dtype: torch.dtype,
    title: str,
    changed: tuple[str, ...],
    process: Callable[..., Any],
) -> None:
    """Write the weights of a model, under the names that transformers has for them.

    Args:
        file: the GGUF file.
        header: its header.
        names: the name of each weight by that of its tensor.
        weights: the file that is written.
        dtype: of the weights.
        title: name of the model in messages.
        changed: what is in the names of the tensors that the architecture changes.
        process: changes such a tensor, which is whole then.

    Raises:
        DemurError: some are no numbers, or the disk has no room for them.
    """
    content = _mapped(file)
    with threads() as pool:
        blocks = {
            names[listed.name]: Blocks(_bytes_of(content, header, number), listed.kind)
            for number, listed in enumerate(header.tensors)
            if listed.name in names
        }
        whole = {
            names[listed.name]: listed.name
            for listed in header.tensors
            if listed.name in names and any(part in listed.name for part in changed)
        }
        shapes = {name: one.shape for name, one in blocks.items()}
        require_weights_space(weights.parent.parent, sum(map(prod, shapes.values())), dtype, title)
        weights.parent.mkdir(exist_ok=True)
        with WeightsFile(weights, shapes, dtype) as written:

            def put(name: str, start: int, apart: Numbers) -> None:
                if not are_finite(apart, dtype):
                    raise no_numbers(title, name)
                rounded = torch.empty(len(apart), dtype=dtype)
                round_into(rounded, apart)
                written.write(name, start, rounded)

            def take(piece: tuple[str, int]) -> None:
                name, start = piece
                put(name, start, blocks[name].apart(start))

            def take_whole(name: str) -> None:
                one = blocks[name]
                apart = np.concatenate([one.apart(start) for start in one.starts])
                made = process(weights=apart.reshape(one.shape), name=whole[name]).weights
                put(name, 0, np.ascontiguousarray(made, np.float32).reshape(-1))

            for _ in pool.map(take_whole, whole):
                pass
            pieces = (
                (name, start)
                for name, one in blocks.items()
                if name not in whole
                for start in one.starts
            )
            while some := list(islice(pieces, _MOST_PIECES)):
                for _ in pool.map(take, some):
                    pass


@contextmanager
def _instead(module: Any, name: str, other: Any) -> Iterator[None]:
    """Put something else in the place of a part of a Python module inside."""
    own = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, own)


def _mapped(file: Path) -> Bytes:
    return np.asarray(np.memmap(file, np.uint8, "r"))


def _bytes_of(content: Bytes, header: GgufHeader, number: int) -> Bytes:
    """The bytes of a tensor, row by row."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    tensor = header.tensors[number]
    numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    shape = *tensor.shape[:0:-1], tensor.shape[0] // numbers * size
    start = header.data + tensor.offset
    return content[start : start + prod(shape)].reshape(shape)
