"""Loading models from folders and the hub; every way it can fail, in one line."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM

from demur.chat import checkpoint, hardware
from demur.chat.checkpoint import samples_of
from demur.chat.hardware import available_memory, choose_device, choose_dtype
from demur.chat.loading import load_model
from demur.errors import DemurError
from tests.tiny_checkpoints import loading_failure

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    copy = tmp_path / "tiny"
    shutil.copytree(saved, copy)
    return copy


def change_json(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def test_a_folder_loads_frozen_and_in_evaluation_mode(folder: Path) -> None:
    loaded = load_model(folder, dtype="float32", device="cpu")
    assert loaded.name == "tiny"
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert (loaded.device, loaded.dtype, loaded.dtype_reason) == (
        CPU,
        torch.float32,
        "as requested",
    )
    assert loaded.tokenizer("w3 w4")["input_ids"] == [6, 7]
    expected = LlamaForCausalLM.from_pretrained(folder).lm_head.weight
    model: Any = loaded.model
    assert torch.equal(model.lm_head.weight, expected)


def test_dtype_is_applied(folder: Path) -> None:
    loaded = load_model(str(folder), dtype="bf16", device="cpu")
    assert loaded.dtype == torch.bfloat16
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.33, 0.5, 0.77, 1.0])
def test_weights_that_change_anywhere_are_seen(tmp_path: Path, share: float) -> None:
    """Models that were trained further or merged share the ends of their files."""
    file = tmp_path / "weights"
    content = bytearray(random.Random(0).randbytes(9_000_000))
    file.write_bytes(content)
    before = b"".join(samples_of(file, 1 << 16))
    assert len(before) < 0.3 * len(content)
    start = int(share * (len(content) - 24_000))
    content[start : start + 24_000] = bytes(24_000)
    file.write_bytes(content)
    assert b"".join(samples_of(file, 1 << 16)) != before
    file.write_bytes(content[:3_000_000])
    assert b"".join(samples_of(file, 1 << 16)) == content[:3_000_000]


def test_identity_follows_the_content_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = load_model(folder, dtype="float32").identity
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert load_model(moved, dtype="bfloat16").identity == first
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_model(moved, dtype="float32").identity != first


def test_the_libraries_settings_are_restored(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging: Any = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(folder)
    loading_failure(folder.parent / "missing")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_a_sharded_folder_loads(saved: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    LlamaForCausalLM.from_pretrained(saved).save_pretrained(sharded, max_shard_size="20KB")
    shutil.copy(saved / "tokenizer.json", sharded)
    shutil.copy(saved / "tokenizer_config.json", sharded)
    load_model(sharded)
    shards = sorted(sharded.glob("*.safetensors"))
    assert len(shards) > 1
    shards[0].unlink()
    assert shards[0].name in loading_failure(sharded)


@pytest.mark.parametrize("spec", ["no-such-model", "./no/such/folder", "nothing.gguf", "a/b/c", ""])
def test_a_spec_that_is_nothing_lists_what_it_may_be(spec: str) -> None:
    if spec == "":
        spec = " "
    message = loading_failure(spec)
    assert "catalog model" in message
    assert "folder" in message


def test_no_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Unreachable:
        def __init__(self, **_: object) -> None: ...

        def model_info(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.HfApi", Unreachable)
    message = loading_failure("someone/never-heard-of-it-17")
    assert "no route to the hub" in message
    assert "connect" in message


@pytest.mark.parametrize(
    ("error", "mend"),
    [("GatedRepoError", "hf auth login"), ("RepositoryNotFoundError", "spelling")],
)
def test_hub_refusals_name_the_mend(error: str, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.errors

    kind = getattr(huggingface_hub.errors, error)

    class Refusing:
        def __init__(self, **_: object) -> None: ...

        def model_info(self, *_: object, **__: object) -> None:
            raise kind.__new__(kind)

    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    assert mend in loading_failure("someone/private")


def test_a_hub_model_is_fetched_without_pickles(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    snapshot = tmp_path / "snapshots" / "abc123"
    files = [file.name for file in saved.iterdir()] + ["pytorch_model.bin", "modeling.py"]

    class Sibling:
        def __init__(self, rfilename: str) -> None:
            self.rfilename, self.size = rfilename, 10

    class Information:
        sha = "abc123"
        siblings = [Sibling(file) for file in files]  # noqa: RUF012

    class Hub:
        def __init__(self, **_: object) -> None: ...

        def model_info(self, *_: object, **__: object) -> Information:
            return Information()

    def fetch(name: str, file: str, **_: object) -> str:
        snapshot.mkdir(parents=True, exist_ok=True)
        fetched.append(file)
        return str(shutil.copy(saved / file, snapshot / file))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    loaded = load_model("someone/tiny")
    assert (loaded.name, loaded.identity) == ("someone/tiny", "someone/tiny@abc123")
    assert sorted(fetched) == sorted(file.name for file in saved.iterdir())


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "safetensors" in loading_failure(folder)
    change_json(folder / "config.json", transformers_weights="adapter_model.bin")
    assert "pickled" in loading_failure(folder)


def test_a_folder_without_weights_or_config(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in loading_failure(folder)
    (tmp_path / "empty").mkdir()
    assert "config.json" in loading_failure(tmp_path / "empty")


@pytest.mark.parametrize("keep", [3, 200, -1])
def test_weights_that_are_cut_off(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "cut off" in loading_failure(folder)


def test_weights_that_do_not_fill_the_model(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=3, layer_types=None)
    assert "lacks 9 of its weights" in loading_failure(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    change_json(folder / "config.json", intermediate_size=48)
    message = loading_failure(folder)
    assert "weights of other shapes than config.json says (model.layers.0.mlp" in message
    assert "instead of [" in message
    assert "report" not in message  # there is none that is shown


@pytest.mark.parametrize("kind", ["BertConfig", "T5Config"])
def test_other_kinds_of_models(kind: str, folder: Path) -> None:
    getattr(transformers, kind)().save_pretrained(folder)
    assert "causal language model" in loading_failure(folder)


def test_a_classifier_of_a_causal_family(folder: Path) -> None:
    change_json(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    assert "LlamaForSequenceClassification" in loading_failure(folder)


def test_an_unknown_kind_and_one_with_code(folder: Path) -> None:
    change_json(folder / "config.json", model_type="never-heard-of")
    assert "'never-heard-of'" in loading_failure(folder)
    change_json(folder / "config.json", auto_map={"AutoConfig": "its_own.Config"})
    assert "trust_remote_code" in loading_failure(folder)


def test_a_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json is damaged" in loading_failure(folder)


def test_tokenizers_that_are_missing_or_damaged(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    assert "tokenizer" in loading_failure(folder)
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer" in loading_failure(folder)


def test_a_model_that_does_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "available_memory", lambda _: 1000)
    assert "does not fit into memory" in loading_failure(folder)


def test_running_out_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nA long story.")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", run_out)
    assert "does not fit into memory" in loading_failure(folder)


def test_bad_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "bfloat16" in loading_failure(folder, dtype="int7")
    assert "'nowhere'" in loading_failure(folder, device="nowhere")
    assert "4bit" in loading_failure(folder, quantization="2bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "demur[large]" in loading_failure(folder, device="auto")
    assert "demur[large]" in loading_failure(folder, quantization="4bit")


def test_choose_device_and_memory() -> None:
    assert choose_device("cpu:0") == CPU
    assert choose_device().type in ("cuda", "mps", "cpu")
    with pytest.raises(DemurError, match="cuda:99"):
        choose_device("cuda:99")
    assert 0 < available_memory(CPU) < 1 << 50


def test_choose_dtype_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpu_multiplies_bfloat16", lambda: True)
    assert choose_dtype(None, CPU)[0] == torch.bfloat16
    monkeypatch.setattr(hardware, "_cpu_multiplies_bfloat16", lambda: False)
    assert choose_dtype("auto", CPU)[0] == torch.float32
    assert choose_dtype("fp16", CPU) == (torch.float16, "as requested")
    with pytest.raises(DemurError, match="float33"):
        choose_dtype("float33", CPU)
