"""Tensors of GGUF files hold the same numbers as for the `gguf` package, to the last bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from demur.chat.gguf_blocks import dequantized, threads

KINDS = [
    kind
    for kind in gguf.GGMLQuantizationType
    if kind.name in ("F32", "F16") or kind in gguf.quants._type_traits
]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("rows", [1, 3, 700])
def test_same_numbers_as_gguf(kind: gguf.GGMLQuantizationType, rows: int) -> None:
    _, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    # Any bytes are some numbers; those of scales that are NaN or infinite belong to them.
    data = random.integers(0, 256, (rows, size * 8), dtype=np.uint8)
    with threads() as pool:
        found = dequantized(data, int(kind), torch.float32, pool).numpy()
    expected = gguf.dequantize(data, kind).reshape(rows, -1)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    same = found.view(np.uint32) == expected.view(np.uint32)
    assert bool((same | (np.isnan(found) & np.isnan(expected))).all())


def test_three_dimensions() -> None:
    data = np.random.default_rng(0).integers(0, 100, (2, 3, 34 * 2), dtype=np.uint8)
    kind = gguf.GGMLQuantizationType.Q8_0
    with threads() as pool:
        found = dequantized(data, int(kind), torch.float32, pool).numpy()
    assert found.shape == (2, 3, 64)
    assert np.array_equal(found, gguf.dequantize(data, kind), equal_nan=True)
