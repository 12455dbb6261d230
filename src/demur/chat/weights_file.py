"""A safetensors file that is written piece by piece, in any order and by several threads.

`safetensors` writes tensors that lie in memory, all of them. A model that is unpacked may be larger
than the memory, and what is still in a processor's cache is written faster.

Source: the format is that of the documentation of huggingface/safetensors.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from demur.files import require_cache_space

_CODES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
}


def require_weights_space(folder: Path, count: int, dtype: torch.dtype, name: str) -> None:
    """Check that the unpacked weights of a model fit into the cache.

    Args:
        folder: exists, on the disk that is written to.
        count: number of weights.
        dtype: of the weights.
        name: name of the model.

    Raises:
        DemurError: there is too little space.
    """
    require_cache_space(folder, count * dtype.itemsize, f"The unpacked copy of {name}")


class WeightsFile:
    """Weights of one dtype on their way into a file.

    Numbers that are never written are zero.

    Args:
        path: of the file, which is made or replaced.
        shapes: the shape of each tensor by its name.
        dtype: of all of them: float16, bfloat16, float32 or float64.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> None:
        self._size, self._dtype = dtype.itemsize, dtype
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        begins: dict[str, int] = {}
        end = 0
        for name, shape in shapes.items():
            begins[name], end = end, end + prod(shape) * self._size
            header[name] = {
                "dtype": _CODES[dtype],
                "shape": list(shape),
                "data_offsets": [begins[name], end],
            }
        told = json.dumps(header, separators=(",", ":")).encode()
        told += b" " * (-len(told) % 8)
        first = 8 + len(told)
        self._begins = {name: first + begin for name, begin in begins.items()}
        self._lock = threading.Lock()
        self._stream = path.open("wb")
        self._stream.write(len(told).to_bytes(8, "little") + told)
        self._stream.truncate(first + end)

    def write(self, name: str, first: int, numbers: Tensor) -> None:
        """Write some numbers of a tensor.

        Args:
            name: of the tensor.
            first: place of the first number in the flattened tensor.
            numbers: on the processor, in the dtype of the file.

        Raises:
            OSError: the disk is full.
        """
        assert numbers.dtype == self._dtype
        data = numbers.contiguous().view(-1).view(torch.uint8).numpy().data
        with self._lock:
            self._stream.seek(self._begins[name] + first * self._size)
            self._stream.write(data)

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
