"""Weights of a GGUF file that go straight into the cache, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from demur.chat.loading import load_model
from demur.chat.weights_file import WeightsFile
from tests.tiny_checkpoints import GGUF_NAMES, loading_failure

pytest.importorskip("accelerate", reason="unpacking GGUF files needs accelerate")

pytestmark = pytest.mark.usefixtures("own_cache")

TOKENS = [*(chr(code) for code in range(33, 127)), "ab"]


HEADS = {"q_proj": 4, "k_proj": 2}
KINDS: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of a Llama's queries or keys in the order in which a GGUF file has them."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def save_gguf(
    file: Path, kind: str = "qwen2", change: Callable[[Any], None] = lambda model: None
) -> PreTrainedModel:
    """Write a random model, some of its weights quantized, and return it as it was written."""
    torch.manual_seed(0)
    make_config, make = KINDS[kind]
    config = make_config(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model: PreTrainedModel = make(config)
    change(model)
    writer: Any = gguf.GGUFWriter(str(file), kind)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * len(TOKENS))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight":
            continue  # the same as the embeddings
        name = key
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        heads = next((count for part, count in HEADS.items() if part in key), None)
        is_permuted = kind == "llama" and heads is not None
        if weight.dim() == 2 and "embed" not in key:
            packed = gguf.GGMLQuantizationType.Q8_0
            blocks = gguf.quantize(weight.float().numpy(), packed)
            weight.copy_(torch.from_numpy(gguf.dequantize(blocks, packed)))
            if is_permuted:
                # Blocks lie along the rows, whose order alone is another one.
                blocks = permuted(torch.from_numpy(blocks), heads or 0).contiguous().numpy()
            writer.add_tensor(name, blocks, raw_dtype=packed)
        else:
            written = permuted(weight, heads or 0) if is_permuted else weight
            writer.add_tensor(name, written.contiguous().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_copy_has_the_weights_of_the_file(
    tmp_path: Path, dtype: torch.dtype, kind: str
) -> None:
    weights = save_gguf(tmp_path / "tiny.gguf", kind).state_dict()
    wanted = {name: weight.to(dtype) for name, weight in weights.items()}
    found = load_model(tmp_path / "tiny.gguf", dtype=str(dtype).removeprefix("torch."))
    assert all(torch.equal(found.model.state_dict()[name], wanted[name]) for name in wanted)
    (folder,) = (path for path in (tmp_path / "cache" / "dequantized").iterdir() if path.is_dir())
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    # Others can open the copy as well.
    make: Any = AutoModelForCausalLM
    other = make.from_pretrained(folder, dtype=dtype).state_dict()
    assert all(torch.equal(other[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, value: float) -> None:
    def change(model: Any) -> None:
        model.model.norm.weight.data[3] = value

    save_gguf(tmp_path / "tiny.gguf", change=change)
    told = loading_failure(tmp_path / "tiny.gguf", dtype="float16")
    assert "tiny has weights that are not numbers (model.norm.weight holds NaN" in told
    assert not [one for one in (tmp_path / "cache" / "dequantized").iterdir() if one.is_dir()]


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    save_gguf(tmp_path / "tiny.gguf")
    with monkeypatch.context() as patch:
        patch.setattr(WeightsFile, "write", full)
        assert "disk is full" in loading_failure(tmp_path / "tiny.gguf")
    assert not [one for one in (tmp_path / "cache" / "dequantized").iterdir() if one.is_dir()]
    load_model(tmp_path / "tiny.gguf")


def test_a_weights_file_takes_pieces_in_any_order(tmp_path: Path) -> None:
    wanted = {"a": torch.randn(3, 5), "b": torch.randn(7), "empty": torch.zeros(0, 2)}
    shapes = {name: one.shape for name, one in wanted.items()}
    with WeightsFile(tmp_path / "some.safetensors", shapes, torch.float32) as file:
        file.write("b", 4, wanted["b"][4:])
        file.write("a", 0, wanted["a"])
        file.write("b", 0, wanted["b"][:4])
    found = load_file(tmp_path / "some.safetensors")
    assert set(found) == set(wanted)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
