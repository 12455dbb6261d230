"""Loading GGUF files: dequantized once, opened from the cache ever after."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from transformers import LlamaForCausalLM, modeling_gguf_pytorch_utils

from demur import ChatModel, DemurError
from demur.chat import checkpoint, dequantize
from demur.chat.catalog import CATALOG, CatalogModel
from demur.chat.gguf_header import read_header
from demur.chat.gguf_reading import read_fast
from demur.chat.loading import load_model
from tests.tiny_checkpoints import loading_failure, save_llama_gguf

pytest.importorskip("accelerate", reason="unpacking GGUF files needs accelerate")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def gguf_saved(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_llama_gguf(file, saved)
    return file


@pytest.fixture
def gguf_file(gguf_saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(gguf_saved, tmp_path / "tiny.gguf"))


def test_a_gguf_file_is_dequantized_once(
    gguf_file: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = load_model(gguf_file, dtype="float32", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert first.name == "tiny"
    assert first.tokenizer.chat_template
    assert not any(weight.requires_grad for weight in first.model.parameters())
    model: Any = first.model
    assert torch.equal(model.lm_head.weight, LlamaForCausalLM.from_pretrained(saved).lm_head.weight)
    # An independent conversion gives the same answers.
    make: Any = transformers.AutoModelForCausalLM
    plain = make.from_pretrained(
        gguf_file.parent,
        gguf_file=gguf_file.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    ids = torch.tensor([[1, 5, 9, 2]])
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        assert torch.equal(first.model(input_ids=ids).logits, expected)
    monkeypatch.setattr(dequantize, "_unpack", lambda *_: pytest.fail("unpacked again"))
    second = load_model(gguf_file.rename(gguf_file.with_name("renamed.gguf")), dtype="float32")
    assert (second.name, second.identity) == ("renamed", first.identity)
    with torch.no_grad():
        assert torch.equal(second.model(input_ids=ids).logits, expected)
    text = "w3 w41 </s>"
    assert second.tokenizer(text)["input_ids"] == first.tokenizer(text)["input_ids"]
    assert second.tokenizer.chat_template == first.tokenizer.chat_template
    assert second.tokenizer.special_tokens_map == first.tokenizer.special_tokens_map


def test_a_gpu_that_is_too_small_is_refused_before_anything_is_read(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(gguf_file, dtype="float32", device="cpu")
    (weights,) = (tmp_path / "cache").rglob("*.safetensors")
    size = weights.stat().st_size
    monkeypatch.setattr(checkpoint, "available_memory", lambda device: size - 1)
    with pytest.raises(DemurError, match=r"tiny does not fit into memory .*choose a smaller model"):
        dequantize.open_dequantized(weights.parent, "tiny", torch.float32, torch.device("cuda"))


def test_another_file_can_be_read_meanwhile(gguf_file: Path, saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    save_llama_gguf(other, saved, {"llama.context_length": 77})
    reader = gguf.GGUFReader
    own = modeling_gguf_pytorch_utils.load_gguf_checkpoint(str(other))
    with read_fast(gguf_file, read_header(gguf_file, "tiny"), "tiny", tmp_path / "weights"):
        assert modeling_gguf_pytorch_utils.load_gguf_checkpoint(str(other)) == own
        assert (
            modeling_gguf_pytorch_utils.load_gguf_checkpoint(str(gguf_file))["config"][
                "max_position_embeddings"
            ]
            == 128
        )
    assert own["config"]["max_position_embeddings"] == 77
    assert gguf.GGUFReader is reader


def test_a_damaged_copy_is_made_again(gguf_file: Path, tmp_path: Path) -> None:
    load_model(gguf_file, dtype="float32")
    (weights,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    load_model(gguf_file, dtype="float32")
    assert weights.read_bytes() == whole


def test_a_copy_is_whole_or_absent(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", full)
        assert "disk is full" in loading_failure(gguf_file)
    assert not [path for path in (tmp_path / "cache" / "dequantized").iterdir() if path.is_dir()]
    load_model(gguf_file)


def test_a_catalog_model_loads_by_name(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gguf_file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    entry = CatalogModel("small", "small.gguf", len(content), digest, None, (), "for tests")
    monkeypatch.setitem(CATALOG, "small", entry)
    (tmp_path / "cache" / "models").mkdir(parents=True)
    shutil.copy(gguf_file, tmp_path / "cache" / "models" / "small.gguf")
    loaded = load_model("small")
    assert (loaded.name, loaded.identity) == ("small", f"sha256:{digest}")


def test_a_folder_with_one_gguf_file_is_that_file(gguf_file: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(gguf_file, alone)
    assert load_model(alone).name == "tiny"
    shutil.copy(gguf_file, alone / "other.gguf")
    assert "2 GGUF files" in loading_failure(alone)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"PK\3\4" + content[4:],
        lambda content: content[:60],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"llama", b"lxyza"),
    ],
    ids=["another format", "only a beginning", "half", "unknown architecture"],
)
def test_gguf_files_that_cannot_be_read(
    damage: Callable[[bytes], bytes], gguf_file: Path, tmp_path: Path
) -> None:
    gguf_file.write_bytes(damage(gguf_file.read_bytes()))
    assert "GGUF" in loading_failure(gguf_file)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"]
)
@pytest.mark.parametrize("time", ["new", "old"])
def test_a_copy_that_was_changed_is_made_again(gguf_file: Path, name: str, time: str) -> None:
    first = load_model(gguf_file, dtype="float32", device="cpu")
    wanted = {key: weight.clone() for key, weight in first.model.state_dict().items()}
    copy = first.folder / name
    whole, before = copy.read_bytes(), copy.stat()
    del first
    copy.write_bytes(whole[: len(whole) // 2] + bytes(16) + whole[len(whole) // 2 + 16 :])
    if time == "old":
        os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = load_model(gguf_file, dtype="float32", device="cpu")
    assert copy.read_bytes() == whole
    assert all(torch.equal(weight, wanted[key]) for key, weight in again.model.state_dict().items())


def test_a_copy_with_a_file_too_many_or_too_few_is_made_again(gguf_file: Path) -> None:
    folder = load_model(gguf_file, dtype="float32").folder
    (folder / "chat_template.jinja").unlink()
    assert load_model(gguf_file, dtype="float32").tokenizer.chat_template
    (folder / "adapter_config.json").write_text("{}")
    load_model(gguf_file, dtype="float32")
    assert not (folder / "adapter_config.json").exists()


def test_a_copy_that_was_only_touched_is_used(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = load_model(gguf_file, dtype="float32").folder
    monkeypatch.setattr(dequantize, "_unpack", lambda *_: pytest.fail("unpacked again"))
    for file in folder.iterdir():
        file.touch()
    load_model(gguf_file, dtype="float32")


@pytest.mark.parametrize("key", ["llama.feed_forward_length", "llama.vocab_size"])
def test_weights_of_other_shapes_than_the_metadata_say(
    saved: Path, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "tiny.gguf"
    save_llama_gguf(file, saved, {key: 10**6})
    with pytest.raises(DemurError, match="other shapes than its metadata say") as info:
        ChatModel.load(file, dtype="float32")
    assert "report" not in str(info.value)
