"""The numbers in the tensors of a GGUF file, as fast as they can be read.

A quantized tensor is made of blocks: some scales, and a few bits for each of 32 or 256 numbers.
They are taken apart in pieces that fit in a processor's cache, by several threads, for numpy lets
others run meanwhile. Kinds that are not here are left to the `gguf` package, in the same pieces.
The numbers are those of that package to the last bit.

Source: the layouts are those of `ggml-quants.h` in ggml-org/ggml.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]

_PIECE = 1 << 17
"""Numbers that are taken apart at once: half a MiB of float32."""

_ALONE = 1 << 15
"""Numbers that torch takes with one thread. For more it starts its own beside the pool's."""


class Blocks:
    """A tensor as it lies in the file, to be taken apart piece by piece.

    Args:
        data: (..., n), the bytes of each row.
        kind: number of the tensor's type.

    Attributes:
        shape: of the tensor.
        starts: places of the first number of each piece in the flattened tensor.

    Raises:
        NotImplementedError: of `gguf`, for a type that it does not know.
    """

    def __init__(self, data: Bytes, kind: int) -> None:
        self._numbers, size, self._unpack = _layout(kind)
        self._blocks = data.reshape(-1, size)
        self._step = max(1, _PIECE // self._numbers)
        self.shape = *data.shape[:-1], data.shape[-1] // size * self._numbers
        whole = len(self._blocks) * self._numbers
        self.starts = range(0, whole, self._step * self._numbers)

    def apart(self, start: int) -> Numbers:
        """(n,): the numbers of the piece that begins at `start`."""
        first = start // self._numbers
        numbers = self._unpack(self._blocks[first : first + self._step])
        return np.ascontiguousarray(numbers).reshape(-1)


def round_into(whole: Tensor, numbers: Numbers) -> None:
    """Round (n,) numbers into the (n,) tensor `whole`."""
    exact = torch.from_numpy(numbers)
    for place in range(0, len(exact), _ALONE):
        whole[place : place + _ALONE] = exact[place : place + _ALONE]


def are_finite(numbers: Numbers, dtype: torch.dtype) -> bool:
    """Whether none of (n,) numbers is NaN, infinite, or too large for a dtype."""
    most = torch.finfo(dtype).max
    return bool(numbers.min() >= -most and numbers.max() <= most)  # false where one is NaN


def dequantized(data: Bytes, kind: int, dtype: torch.dtype, pool: ThreadPoolExecutor) -> Tensor:
    """The numbers of a tensor.

    Args:
        data: (..., n), the bytes of each row.
        kind: number of the tensor's type.
        dtype: of the result, rounded from float32 piece by piece.
        pool: takes the pieces.

    Raises:
        NotImplementedError: of `gguf`, for a type that it does not know.
    """
    blocks = Blocks(data, kind)
    whole = torch.empty(blocks.shape, dtype=dtype)
    flat = whole.view(-1)

    def take(start: int) -> None:
        apart = blocks.apart(start)
        round_into(flat[start : start + len(apart)], apart)

    for _ in pool.map(take, blocks.starts):
        pass
    return whole


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as there are processors that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    count = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Ahead:
    """Results of work that is begun in its order before it is asked for, a few pieces ahead.

    Args:
        work: what to do for each item.
        count: number of items.
        pool: does it; another pool than one that the work waits for.
        most: items that may be done and not yet asked for.
    """

    def __init__(
        self, work: Callable[[int], Any], count: int, pool: ThreadPoolExecutor, most: int = 3
    ) -> None:
        self._work, self._count, self._pool, self._most = work, count, pool, most
        self._begun: dict[int, Future[Any]] = {}

    def __getitem__(self, item: int) -> Any:
        """The result for an item, which is then forgotten."""
        for number in range(item, min(self._count, item + self._most)):
            if number not in self._begun:
                self._begun[number] = self._pool.submit(self._work, number)
        return self._begun.pop(item).result()


def _layout(kind: int) -> tuple[int, int, Callable[[Bytes], Numbers]]:
    """Numbers and bytes of a block, and what takes (N, bytes) blocks apart into (N, numbers)."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    named = GGMLQuantizationType(kind)
    numbers, size = GGML_QUANT_SIZES[named]
    found = _UNPACKED.get(named.name)
    if found is not None:
        return numbers, size, found

    def by_gguf(blocks: Bytes) -> Numbers:
        apart: Numbers = dequantize(blocks, named)
        return apart.reshape(-1, numbers)

    return numbers, size, by_gguf


def _halves(data: Bytes) -> Numbers:
    """(N, 2n) bytes as (N, n) numbers of 16 bits."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles(data: Bytes, width: int) -> Bytes:
    """(N, n) bytes as (N, n / width, 2, width): low halves of some bytes, then the high ones."""
    pairs = np.empty((len(data), data.shape[1] // width, 2, width), dtype=np.uint8)
    bytes_ = data.reshape(len(data), -1, width)
    np.bitwise_and(bytes_, 15, out=pairs[:, :, 0])
    np.right_shift(bytes_, 4, out=pairs[:, :, 1])
    return pairs


def _bits(data: Bytes) -> Bytes:
    """(N, n) bytes as (N, 8 n) bits, the lowest first."""
    return np.unpackbits(data, axis=1, bitorder="little")


def _full(blocks: Bytes) -> Numbers:
    return np.array(blocks).view(np.float32)  # a copy, for the file cannot be written to


def _half(blocks: Bytes) -> Numbers:
    return _halves(blocks)


def _brain(blocks: Bytes) -> Numbers:
    wide = np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32)
    return np.left_shift(wide, 16, out=wide).view(np.float32)


def _q4_0(blocks: Bytes) -> Numbers:
    signed = _nibbles(blocks[:, 2:], 16).reshape(-1, 32).view(np.int8)
    signed -= 8
    return np.multiply(signed, _halves(blocks[:, :2]), dtype=np.float32)


def _q4_1(blocks: Bytes) -> Numbers:
    numbers = _nibbles(blocks[:, 4:], 16).reshape(-1, 32)
    scaled = np.multiply(numbers, _halves(blocks[:, :2]), dtype=np.float32)
    return np.add(scaled, _halves(blocks[:, 2:4]), out=scaled)


def _fives(low: Bytes, high: Bytes) -> Bytes:
    """(N, 32) numbers of five bits from (N, 16) bytes of four each and (N, 4) bytes of one each."""
    numbers = _nibbles(low, 16).reshape(-1, 32)
    numbers |= _bits(high) << 4
    return numbers


def _q5_0(blocks: Bytes) -> Numbers:
    signed = _fives(blocks[:, 6:], blocks[:, 2:6]).view(np.int8)
    signed -= 16
    return np.multiply(signed, _halves(blocks[:, :2]), dtype=np.float32)


def _q5_1(blocks: Bytes) -> Numbers:
    numbers = _fives(blocks[:, 8:], blocks[:, 4:8])
    scaled = np.multiply(numbers, _halves(blocks[:, :2]), dtype=np.float32)
    return np.add(scaled, _halves(blocks[:, 2:4]), out=scaled)


def _q8_0(blocks: Bytes) -> Numbers:
    return np.multiply(blocks[:, 2:].view(np.int8), _halves(blocks[:, :2]), dtype=np.float32)


def _of_k(blocks: Bytes, numbers: Bytes) -> Numbers:
    """(N, 256) numbers of eight groups under scales and offsets of six bits."""
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 2) & 48)], axis=1)
    offsets = np.concatenate([second & 63, (third >> 4) | ((second >> 2) & 48)], axis=1)
    of_group = _halves(blocks[:, :2]) * scales
    below = _halves(blocks[:, 2:4]) * offsets
    groups = numbers.reshape(-1, 8, 32)
    scaled: Numbers = np.multiply(groups, of_group[:, :, None], dtype=np.float32)
    np.subtract(scaled, below[:, :, None], out=scaled)
    return scaled.reshape(-1, 256)


def _q4_k(blocks: Bytes) -> Numbers:
    return _of_k(blocks, _nibbles(blocks[:, 16:], 32))


def _q5_k(blocks: Bytes) -> Numbers:
    numbers = _nibbles(blocks[:, 48:], 32).reshape(-1, 8, 32)
    # Bit n of each of 32 bytes belongs to group n.
    bits = _bits(blocks[:, 16:48]).reshape(-1, 32, 8).transpose(0, 2, 1)
    numbers |= bits << 4
    return _of_k(blocks, numbers)


def _q6_k(blocks: Bytes) -> Numbers:
    numbers = _nibbles(blocks[:, :128], 64).reshape(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    for part in range(4):
        numbers[:, :, part] |= ((high >> (2 * part)) & 3) << 4
    signed = numbers.reshape(-1, 16, 16).view(np.int8)
    signed -= 32
    scales = blocks[:, 192:208].view(np.int8) * _halves(blocks[:, 208:])
    scaled: Numbers = np.multiply(signed, scales[:, :, None], dtype=np.float32)
    return scaled.reshape(-1, 256)


_UNPACKED: dict[str, Callable[[Bytes], Numbers]] = {
    "F32": _full,
    "F16": _half,
    "BF16": _brain,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
