"""Models that are spread over several places, as accelerate does with those that fit in none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur import ChatModel
from demur.chat.engine import Engine, Read, SamplingSettings
from demur.optimization.methods import method_names
from tests.each_method import assert_same_training, trained
from tests.test_engine import QUERIES, conversations, random_prompt
from tests.tiny import ARCHITECTURES, LLAMA_LIKE, save_tiny_model, tiny_model, tiny_tokenizer

accelerate = pytest.importorskip("accelerate", reason="spreading a model needs accelerate")


@pytest.fixture(params=["cpu and disk", "all on disk"])
def spread(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    """A tiny model whose second layer, or all of which, is on disk until it is used."""
    model = tiny_model("llama, grouped attention").requires_grad_(False)
    if request.param == "all on disk":
        accelerate.disk_offload(model, tmp_path / "weights", torch.device("cpu"))
        return model
    places = {name: "cpu" for name, _ in model.named_children() if name != "model"}
    places |= {f"model.{name}": "cpu" for name, _ in model.model.named_children()}
    del places["model.layers"]
    places |= {"model.layers.0": "cpu", "model.layers.1": "disk"}
    accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=tmp_path / "weights", force_hooks=True
    )
    return model


def test_a_spread_model_gives_what_the_whole_one_gives(spread: PreTrainedModel) -> None:
    assert any(parameter.device.type == "meta" for parameter in spread.parameters())
    inputs, prompt = conversations(), random_prompt()
    settings = SamplingSettings(samples=2, most_tokens=5)

    def loss(read: Read, rows: list[int]) -> Tensor:
        return read.representations.square().sum() / len(inputs)

    engines = [
        Engine(model, tiny_tokenizer())
        for model in (tiny_model("llama, grouped attention"), spread)
    ]
    for most_trained in (4096, 20):
        (one_loss, one), (other_loss, other) = (
            with_room(engine, most_trained).prompt_gradient(inputs, prompt, loss)
            for engine in engines
        )
        assert one_loss == pytest.approx(other_loss, rel=1e-5)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    one_reading, other_reading = (
        engine.read_and_sample(inputs, QUERIES, settings, prompt) for engine in engines
    )
    torch.testing.assert_close(one_reading.representations, other_reading.representations)
    assert one_reading.samples == other_reading.samples
    assert engines[1].shares_prefix


def with_room(engine: Engine, most_trained: int) -> Engine:
    engine.most_trained = most_trained
    return engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def plain(tiny: Path) -> ChatModel:
    return ChatModel.load(tiny, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def offloaded(tiny: Path) -> Iterator[ChatModel]:
    """The same model on a device that has room for all but one of its layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "transformers.integrations.accelerate.get_max_memory", lambda *_: {"cpu": 80_000}
        )
        yield ChatModel.load(tiny, dtype="float32", device="auto")


@pytest.mark.parametrize("method", method_names())
def test_each_method_trains_the_same_prompt_on_an_offloaded_model(
    method: str, plain: ChatModel, offloaded: ChatModel, tmp_path: Path
) -> None:
    places = {one.device.type for one in offloaded.engine.model.parameters()}
    assert places == {"cpu", "meta"}
    runs = [
        trained(model, method, tmp_path / name)
        for name, model in (("offloaded", offloaded), ("plain", plain))
    ]
    assert_same_training(*runs)


@pytest.mark.parametrize("method", method_names())
def test_each_method_trains_the_same_prompt_in_4_bits(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dense model trains whose weights are what the 4 bits stand for."""
    packing: Any = pytest.importorskip("bitsandbytes", reason="4 bits need bitsandbytes")
    # Wide enough for the kernel without a gradient, which processors with AVX512-BF16 have.
    wide = {**LLAMA_LIKE, "hidden_size": 64, "head_dim": 16, "intermediate_size": 128}
    monkeypatch.setitem(ARCHITECTURES, "wide", ("llama", wide))
    folder = save_tiny_model(tmp_path / "tiny", "wide")
    packed = ChatModel.load(folder, dtype="float32", device="cpu", quantization="4bit")
    dense, unpacked = tiny_model("wide"), 0
    with torch.no_grad():
        for name, module in packed.engine.model.named_modules():
            if isinstance(module, packing.nn.Linear4bit):
                weight = module.weight
                known = packing.functional.dequantize_4bit(weight.data, weight.quant_state)
                dense.get_parameter(f"{name}.weight").copy_(known)
                unpacked += 1
    assert unpacked == 14  # seven of each layer
    dense.save_pretrained(tmp_path / "dense")
    tiny_tokenizer().save_pretrained(tmp_path / "dense")
    runs = [
        trained(model, method, tmp_path / name)
        for name, model in (
            ("4bit", packed),
            ("plain", ChatModel.load(tmp_path / "dense", dtype="float32", device="cpu")),
        )
    ]
    assert_same_training(*runs)
