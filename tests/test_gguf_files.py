"""GGUF files that are no whole model are refused by their headers, before anything is made."""

from __future__ import annotations

import importlib
import resource
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur import ChatModel, DemurError
from demur.chat import dequantize
from demur.chat.gguf_header import read_header, require_whole_model
from tests.tiny_checkpoints import save_llama_gguf

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(autouse=True)
def nothing_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantize, "_unpack", lambda *_: pytest.fail("unpacked"))


def write(
    file: Path, architecture: str = "qwen2", tensor: str = "blk.0.attn_q.weight", **values: Any
) -> Path:
    """A GGUF file with one small tensor and some metadata."""
    writer: Any = importlib.import_module("gguf").GGUFWriter(str(file), architecture)
    for key, value in values.items():
        name = key.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_tensor(tensor, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def failure(file: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(DemurError) as info:
        ChatModel.load(file)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000
    return str(info.value)


SIZES = {"qwen2__block_count": 1, "qwen2__embedding_length": 4}
TOKENS = {"tokenizer__ggml__tokens": ["a", "b"]}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "an adapter": ({"general__type": "adapter"}, "is an adapter, not a model"),
    "an older adapter": ({"adapter__type": "lora"}, "is an adapter, not a model"),
    "an importance matrix": ({"general__type": "imatrix"}, "is an importance matrix"),
    "a projector": ({"general__type": "mmproj"}, "is a projector"),
    "an older projector": ({"architecture": "clip"}, "is a projector"),
    "another kind": ({"general__type": "\x1b[31mnew"}, r"of the type '\\x1b\[31mnew', not a model"),
    "a first part": ({"split__no": 0, "split__count": 2}, "is part 1 of 2 .*llama-gguf-split"),
    "a second part": ({"split__no": 1, "split__count": 2}, "is part 2 of 2 .*llama-gguf-split"),
    "no sizes": ({}, "metadata lack qwen2.block_count"),
    "no width": ({"qwen2__block_count": 1}, "metadata lack qwen2.embedding_length"),
    "no embeddings": (SIZES, "no token embeddings"),
    "another width": (
        {**SIZES, "qwen2__embedding_length": 8, "tensor": "token_embd.weight"},
        "embeddings are not as long",
    ),
    "no layers": ({**SIZES, "tensor": "token_embd.weight"}, "0 of its 1 layers"),
    "a million layers": (
        {**SIZES, "qwen2__block_count": 10**6, "tensor": "token_embd.weight"},
        "0 of its 1000000 layers",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_whole_model(tmp_path: Path, case: str) -> None:
    values, match = CASES[case]
    with pytest.raises(DemurError, match=match):
        ChatModel.load(write(tmp_path / "tiny.gguf", **values))
    failure(tmp_path / "tiny.gguf")


@pytest.fixture(scope="module")
def whole(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_llama_gguf(file, saved)
    return file.read_bytes()


def number(content: bytes, place: int, value: int) -> bytes:
    return content[:place] + struct.pack("<Q", value) + content[place + 8 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another format": (lambda content: b"PK\3\4" + content[4:], "is not a GGUF file"),
    "an unknown version": (lambda content: content[:4] + b"\0\0\0\3" + content[8:], "header"),
    "a beginning": (lambda content: content[:60], "header cannot be read"),
    "a half": (lambda content: content[: len(content) // 2], "cut off"),
    "one byte less": (lambda content: content[:-1], "cut off"),
    "many tensors": (lambda content: number(content, 8, 1 << 60), "header cannot be read"),
    "many keys": (lambda content: number(content, 16, 1 << 60), "header cannot be read"),
    "a long key": (lambda content: number(content, 24, 1 << 60), "header cannot be read"),
    "four bytes": (lambda _: b"GGUF", "header cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_headers(whole: bytes, tmp_path: Path, case: str) -> None:
    damage, match = DAMAGES[case]
    file = tmp_path / "tiny.gguf"
    file.write_bytes(damage(whole))
    message = failure(file)
    assert match in message
    assert "GGUF" in message


@pytest.mark.parametrize("seed", range(20))
def test_any_byte_may_be_wrong(whole: bytes, tmp_path: Path, seed: int) -> None:
    """Whatever the header then says, it is one line, or a header that can be read."""
    content, draw = bytearray(whole), np.random.default_rng(seed)
    header = whole.index(b"blk.1.ffn_down.weight")
    for place in draw.integers(4, header, 3):
        content[place] = int(draw.integers(256))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(content)
    with suppress(DemurError):  # anything else fails the test
        require_whole_model(read_header(file, "tiny"), "tiny")


@pytest.mark.parametrize(
    ("layers", "match"), [(1, "has layers beyond the 1"), (3, "has 2 of its 3 layers")]
)
def test_all_layers_are_counted(saved: Path, tmp_path: Path, layers: int, match: str) -> None:
    file = tmp_path / "tiny.gguf"
    save_llama_gguf(file, saved, {"llama.block_count": layers})
    assert match in failure(file)


def test_a_base_model_is_not_unpacked(saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    save_llama_gguf(file, saved, template=None)
    assert "without a chat template" in failure(file)
    assert "--chat-template FILE" in failure(file)
