"""Exported folders say the same in the words of older versions and of other engines."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from demur import ChatModel, DemurError, SafetyPrompt
from demur.exports import export
from demur.exports.portable import add_older_names
from demur.files import read_json
from demur.prompts import Provenance
from tests.test_exports import run, tensors_of
from tests.tiny import tiny_model, tiny_tokenizer


def exported(tmp_path: Path, name: str, **options: Any) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    network = tiny_model(name)
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = ChatModel.load(tmp_path / "base", dtype="float32")
    rows = torch.randn(3, model.width)
    prompt = SafetyPrompt("trained", "w40 w41", rows, Provenance(model=model.record))
    prompt.save(tmp_path / "prompt")
    return export(prompt, "transformers", tmp_path / "out", model=model, **options).path


@pytest.mark.parametrize("name", ["llama, grouped attention", "gemma3, sliding window"])
def test_rotary_positions_stand_under_both_names(name: str, tmp_path: Path) -> None:
    folder = exported(tmp_path, name)
    written: Any = read_json(folder / "config.json")
    rotary = written["rope_parameters"]
    full = rotary.get("full_attention", rotary)
    assert written["rope_theta"] == full["rope_theta"]
    if "sliding_attention" in rotary:
        assert written["rope_local_base_freq"] == rotary["sliding_attention"]["rope_theta"]
    assert "rope_scaling" not in written
    read: Any = AutoConfig.from_pretrained(folder)
    assert read.rope_parameters == AutoConfig.from_pretrained(tmp_path / "base").rope_parameters
    assert written["torch_dtype"] == written["dtype"]


def test_scaled_positions_stand_under_both_names() -> None:
    rotary = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "partial_rotary_factor": 0.5}
    config: dict[str, Any] = {"rope_parameters": rotary, "text_config": {"rope_parameters": rotary}}
    add_older_names(config)
    for part in (config, config["text_config"]):
        assert part["rope_theta"] == 5e5
        assert part["rope_scaling"] == {
            "rope_type": "yarn",
            "factor": 4.0,
            "partial_rotary_factor": 0.5,
        }
        assert part["partial_rotary_factor"] == 0.5


def test_phi_3_has_the_factors_alone(tmp_path: Path) -> None:
    """Version 4 ends in an error where it finds anything beside them."""
    rotary = {"rope_type": "longrope", "rope_theta": 5e5, "partial_rotary_factor": 1.0}
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 96, "pad_token_id": 0}
    lengths = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
    config = AutoConfig.for_model(
        "phi3", **sizes, **lengths, rope_parameters={**rotary, **factors, "factor": 4.0}
    )
    config.save_pretrained(tmp_path)
    written: Any = read_json(tmp_path / "config.json")
    add_older_names(written)
    assert written["rope_scaling"] == {"type": "longrope", **factors}
    assert (written["rope_theta"], written["partial_rotary_factor"]) == (5e5, 1.0)
    assert written["original_max_position_embeddings"] == 64
    (tmp_path / "config.json").write_text(json.dumps(written))
    read = AutoConfig.from_pretrained(tmp_path).rope_parameters
    assert {name: read[name] for name in (*rotary, *factors)} == {**rotary, **factors}


def test_the_tokenizer_has_a_class_that_others_know(tmp_path: Path) -> None:
    folder = exported(tmp_path, "llama, grouped attention")
    settings: Any = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(settings.get("extra_special_tokens"), list)
    assert "<|turn|>" in settings["additional_special_tokens"]
    read: Any = AutoTokenizer.from_pretrained(folder)
    own: Any = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert read("w11 <|turn|> w12")["input_ids"] == own("w11 <|turn|> w12")["input_ids"]
    weights = folder / "model.safetensors"
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(
        (folder / "config.json").stat().st_mode
    )


def test_weights_are_rounded_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = exported(tmp_path, "llama, grouped attention", dtype="bfloat16")
    old, new = tensors_of(tmp_path / "base"), tensors_of(folder)
    for name, tensor in old.items():
        assert new[name].dtype == torch.bfloat16
        assert torch.equal(new[name][: len(tensor)], tensor.bfloat16())
    config: Any = read_json(folder / "config.json")
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_vllm_is_told_to_compute_in_the_format_of_the_weights(tmp_path: Path) -> None:
    exported(tmp_path, "llama, grouped attention")
    base = ("--model", tmp_path / "base")
    _, said = run(tmp_path / "prompt", tmp_path / "whole", *base)
    assert "--dtype float32" in said
    _, said = run(tmp_path / "prompt", tmp_path / "half", *base, "--dtype", "bfloat16")
    assert "vllm serve" in said
    assert "float32" not in said


def test_a_dtype_that_cannot_be_is_said_first(tmp_path: Path) -> None:
    exported(tmp_path, "llama, grouped attention")
    for to, dtype, told in (
        ("peft", "bfloat16", "format of its own"),
        ("transformers", "int3", "bfloat16"),
    ):
        with pytest.raises(DemurError, match=told):
            export(
                tmp_path / "prompt", to, tmp_path / "no", model=str(tmp_path / "base"), dtype=dtype
            )
    assert not (tmp_path / "no").exists()
    config: Any = read_json(tmp_path / "base" / "config.json")
    model = ChatModel.load(tmp_path / "base", dtype="float32")
    (tmp_path / "base" / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "fp8"}})
    )
    with pytest.raises(DemurError, match="leave out --dtype"):
        export(tmp_path / "prompt", "transformers", tmp_path / "no", model=model, dtype="bfloat16")
