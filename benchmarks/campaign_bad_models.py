"""Models that cannot be right: configurations, weights, GGUF files, chat templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIGS: dict[str, object] = {
    "hidden_size": -1,
    "num_hidden_layers": "two",
    "vocab_size": 10**12,
    "num_attention_heads": 0,
    "rope_parameters": "x",
    "model_type": "no such type",
    "max_position_embeddings": None,
    "intermediate_size": 7,
    "architectures": 3,
    "quantization_config": {"quant_method": "none"},
}


@dataclass(frozen=True)
class BadInput:
    """A command with one input that cannot be right.

    Attributes:
        title: what is wrong.
        arguments: the command line.
        prepare: makes the input in the folder.
        may_be_done: whether it turns out to be right after all.
    """

    title: str
    arguments: list[str]
    prepare: Callable[[Path], None] = lambda _: None
    may_be_done: bool = False


def models() -> Iterator[BadInput]:
    """Folders of models that are damaged."""

    def changed(key: str, value: object) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            shutil.copytree(folder / "tiny", folder / "odd")
            file = folder / "odd" / "config.json"
            found = json.loads(file.read_text())
            file.write_text(json.dumps({**found, key: value}))

        return make

    def cut(name: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            shutil.copytree(folder / "tiny", folder / "odd")
            file = folder / "odd" / name
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

        return make

    command = ["evaluate", "odd", "--tokens", "2", "--output", "new"]
    for key, value in CONFIGS.items():
        fits = key in ("architectures", "quantization_config")  # which are not read here
        yield BadInput(f"config.json {key}={value}", command, changed(key, value), fits)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        yield BadInput(f"{name} cut", command, cut(name))


def weights() -> Iterator[BadInput]:
    """Weights that are missing, too short, no numbers or no weights, and headers that lie."""

    def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            shutil.copytree(folder / "tiny", folder / "odd")
            file = folder / "odd" / "model.safetensors"
            found = load_file(file)
            change(found)
            file.unlink()
            save_file(found, file, {"format": "pt"})

        return make

    def header(text: bytes) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            shutil.copytree(folder / "tiny", folder / "odd")
            data = len(text).to_bytes(8, "little") + text
            (folder / "odd" / "model.safetensors").write_bytes(data)

        return make

    norm, head = "model.norm.weight", "lm_head.weight"
    changes: dict[str, Callable[[Path], None]] = {
        "NaN": tensors(lambda found: found[norm].fill_(float("nan"))),
        "infinite": tensors(lambda found: found[head][5].fill_(float("inf"))),
        "missing": tensors(lambda found: found.pop(norm)),
        "short": tensors(lambda found: found.update({norm: found[norm][:5].clone()})),
        "turned": tensors(lambda found: found.update({head: found[head].T.contiguous()})),
        "none at all": tensors(lambda found: found.clear()),
        "empty header": header(b""),
        "deep header": header(b"[" * 50_000),
        "list header": header(b"[]"),
        "negative shape": header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}'),
        "huge shape": header(
            b'{"a": {"dtype": "F32", "shape": [9999999999], "data_offsets": [0, 39999999996]}}'
        ),
    }
    for verb in ("evaluate", "chat", "diagnose"):
        for name, make in changes.items():
            yield BadInput(f"{verb} weights {name}", [verb, "odd"], make)


def ggufs() -> Iterator[BadInput]:
    """GGUF files that are cut, changed or made up."""
    sizes: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "magic only": lambda data: data[:4],
        "header only": lambda data: data[:24],
        "half": lambda data: data[: len(data) // 2],
        "without its end": lambda data: data[:-100],
        "other magic": lambda data: b"GGML" + data[4:],
        "other version": lambda data: data[:4] + (99).to_bytes(4, "little") + data[8:],
        "many tensors": lambda data: data[:8] + (2**60).to_bytes(8, "little") + data[16:],
        "many keys": lambda data: data[:16] + (2**60).to_bytes(8, "little") + data[24:],
        "long key": lambda data: data[:24] + (2**40).to_bytes(8, "little") + data[32:],
        "zeros": lambda data: data[:64] + bytes(len(data) - 64),
        "other architecture": lambda data: data.replace(b"llama", b"lamas"),
        "no vocabulary": lambda data: data.replace(
            b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"
        ),
    }
    for name, change in sizes.items():

        def make(folder: Path, change: Callable[[bytes], bytes] = change) -> None:
            (folder / "odd.gguf").write_bytes(change((folder / "tiny.gguf").read_bytes()))

        for verb in ("evaluate", "chat"):
            yield BadInput(f"{verb} GGUF {name}", [verb, "odd.gguf"], make)


def templates() -> Iterator[BadInput]:
    """Chat templates that are wrong, never end, or build too much."""
    texts = {
        "empty": "",
        "nothing of the messages": "hello",
        "open": "{% for m in messages %}",
        "unknown name": "{{ nobody.knows.it }}",
        "unknown filter": "{{ messages | unknown }}",
        "its own error": "{{ raise_exception('\x1b[2Jno') }}",
        "endless": "{% for a in range(10**9) %}{% for b in range(10**9) %}{% endfor %}{% endfor %}",
        "huge": "{{ 'x' * 10**10 }}",
        "reaches out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "deep": "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
        "divides by zero": "{{ 1 // 0 }}{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    for name, text in texts.items():

        def make(folder: Path, text: str = text) -> None:
            (folder / "odd.jinja").write_text(text)

        for verb in ("evaluate", "optimize"):
            command = [verb, "tiny", "--chat-template", "odd.jinja", "--output", "new"]
            yield BadInput(f"{verb} template {name}", command, make)
