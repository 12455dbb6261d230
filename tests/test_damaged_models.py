"""Model folders whose files are valid and cannot be right: one line each, and nothing slow."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from demur import ChatModel, DemurError
from demur.chat import Condition
from demur.chat.engine import SamplingSettings
from tests.tiny import save_tiny_model

Damage = Callable[[Path], object]
DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def failure(folder: Path) -> str:
    started = time.monotonic()
    with pytest.raises(DemurError) as info:
        ChatModel.load(folder, dtype="float32")
    assert time.monotonic() - started < 10
    message = str(info.value)
    assert "\n" not in message
    assert "report" not in message
    return message


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / CONFIG
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return damage


def written(name: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def sparse(name: str, content: bytes, size: int) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)
        os.truncate(folder / name, size)

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return damage


def retyped(kind: torch.dtype) -> Damage:
    return tensors(lambda found: found.update({QUERY: found[QUERY].to(kind)}))


def turning(base: float) -> dict[str, object]:
    """The settings of rotary positions."""
    return {"rope_type": "default", "rope_theta": base}


def header(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        listed = json.loads(content[8 : 8 + length])
        listed["model.norm.weight"] |= changes
        new = json.dumps(listed).encode()
        whole = len(new).to_bytes(8, "little") + new + content[8 + length :]
        (folder / WEIGHTS).write_bytes(whole)

    return damage


def indexed(content: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
        (folder / INDEX).write_text(content)

    return damage


QUERY = "model.layers.1.self_attn.q_proj.weight"
CASES: dict[str, tuple[Damage, str]] = {
    "a missing tensor": (tensors(lambda found: found.pop(QUERY)), f"lacks 1 .*{QUERY}"),
    "a short tensor": (
        tensors(lambda found: found.update({QUERY: found[QUERY][:-1].clone()})),
        rf"other shapes .*\({QUERY} is \[31, 32\] instead of \[32, 32\]\)",
    ),
    "half of the weights": (
        tensors(
            lambda found: [found.pop(key) for key in list(found) if "mlp" in key or "q_p" in key]
        ),
        "has 10,400 of the 21,664 weights",
    ),
    "the weights of a smaller model": (
        config(hidden_size=1024, intermediate_size=8192),
        r"has 2\d,\d{3} of the 5\d,\d{3},\d{3} weights that",
    ),
    "a header of half the file": (
        sparse(WEIGHTS, (150_000_000).to_bytes(8, "little"), 200_000_000),
        "damaged or cut off",
    ),
    "shape of words": (header(shape=["a"]), "damaged"),
    "negative shape": (header(shape=[-32]), "damaged"),
    "shape of more than there is": (header(shape=[10**9, 10**9]), "memory"),
    "unknown number format": (header(dtype="X9"), "damaged"),
    "fewer layers than there are": (config(num_hidden_layers=1), "does not ask for"),
    "a million layers": (config(num_hidden_layers=10**6), "num_hidden_layers is 1000000, and"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers is 0"),
    "minus one layer": (config(num_hidden_layers=-1), "num_hidden_layers is -1"),
    "half a layer": (config(num_hidden_layers=1.5), "cannot be right .*num_hidden_layers"),
    "a large feed-forward block": (
        config(intermediate_size=10**8),
        r"of the 19,\d{3},\d{3},\d{3} weights",
    ),
    "a width of words": (config(hidden_size="wide"), "cannot be right .*hidden_size"),
    "no width": (config(hidden_size=None), "cannot be right .*hidden_size"),
    "no heads": (config(num_attention_heads=0), "cannot be right"),
    "seven heads": (config(num_attention_heads=7), "cannot be right"),
    "a huge vocabulary": (config(vocab_size=10**13), "vocab_size is 10000000000000"),
    "a small vocabulary": (config(vocab_size=10), "other shapes"),
    "no context": (config(max_position_embeddings=0), "max_position_embeddings is 0"),
    "a negative context": (config(max_position_embeddings=-5), "max_position_embeddings is -5"),
    "a kind with escapes": (config(model_type="\x1b[31mred"), "does not know its kind"),
    "an unknown activation": (config(hidden_act="nothing"), "cannot be loaded"),
    "an unknown number format of weights": (config(dtype="nothing"), "cannot be right"),
    "an architecture that is none": (config(architectures=[None]), "no causal language model"),
    "a list as configuration": (written(CONFIG, "[1]"), "config.json is damaged"),
    "a deep configuration": (written(CONFIG, DEEP), "config.json is damaged"),
    "a deep index": (indexed(DEEP), "index.json is damaged"),
    "an index of numbers": (indexed('{"weight_map": {"a": 5}}'), "index.json is damaged"),
    "an index of nothing": (indexed('{"weight_map": {}}'), "names no weights"),
    "a deep tokenizer": (written("tokenizer.json", DEEP), "tokenizer cannot be read"),
    "a list as settings of a tokenizer": (written("tokenizer_config.json", "[]"), "tokenizer"),
    "a deep list of defaults": (written("generation_config.json", DEEP), "cannot be loaded"),
    "a template that does not end": (written("chat_template.jinja", "{% for"), "chat template"),
    "a template that is no text": (written("chat_template.jinja", b"\xff\xfe"), "cannot be read"),
    "a trillion labels": (config(num_labels=10**12), "num_labels is 1000000000000"),
    "a trillion layers": (config(num_hidden_layers=10**12), "num_hidden_layers is 1000000000000"),
    "a trillion layers of a kind that lists them": (
        config(model_type="qwen2", num_hidden_layers=10**12),
        "num_hidden_layers is 1000000000000",
    ),
    "a trillion experts inside": (config(text_config={"num_experts": 10**12}), "num_experts is 1"),
    "a context without an end": (config(max_position_embeddings=10**9), "max_position_embeddings"),
    "positions that turn by nothing": (config(rope_parameters=turning(0)), "tables that are not"),
    "positions that turn by NaN": (
        config(rope_parameters=turning(float("nan"))),
        r"tables that are not numbers \(model.rotary_emb",
    ),
    "positions that turn backwards": (config(rope_parameters=turning(-5)), "tables that are not"),
    "whole numbers": (retyped(torch.int8), "no fractions .*'I8'"),
    "yes and no": (retyped(torch.bool), "no fractions .*'BOOL'"),
    "complex numbers": (retyped(torch.complex64), "no fractions .*'C64'"),
    "a NaN among the settings": (config(rms_norm_eps=float("nan")), "not numbers"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line(folder: Path, case: str) -> None:
    damage, match = CASES[case]
    damage(folder)
    message = failure(folder)
    assert re.search(match, message), message


def test_a_token_that_the_model_has_no_row_for(folder: Path) -> None:
    """The template writes it, so it shows when a conversation is rendered."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<unheard>"}))
    model = ChatModel.load(folder, dtype="float32")
    with pytest.raises(DemurError, match=r"writes the token \d+, and the model has rows for"):
        model.represent(["w9 w8"])


@pytest.mark.parametrize("value", ["x", {"a": 1}, [10**9, None], -4, 10**12])
def test_ends_that_are_no_tokens_are_left_out(folder: Path, value: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    model = ChatModel.load(folder, dtype="float32")
    sampled = model.read_and_sample(
        ["w9 w8"], Condition(), SamplingSettings(most_tokens=4, least_tokens=3)
    )
    assert 3 <= sampled.samples[0][0].tokens <= 4


@pytest.mark.parametrize(
    "name",
    [CONFIG, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
     "added_tokens.json", "generation_config.json", "adapter_config.json", "chat_template.jinja",
     "additional_chat_templates/tools.jinja", INDEX],
)  # fmt: skip
def test_no_file_is_read_that_is_larger_than_any(folder: Path, name: str) -> None:
    if name == INDEX:
        (folder / WEIGHTS).unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    os.truncate(folder / name, 20 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert re.search(rf"{Path(name).name}'? is (larger than|above) 1\d\d MB", failure(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_an_adapter_is_called_one(folder: Path) -> None:
    (folder / CONFIG).unlink()
    (folder / "adapter_config.json").write_text("{}")
    assert "is an adapter; merge it into its model" in failure(folder)
