"""Models that are spread over several places, as accelerate does with those that fit in none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine import Engine, Read, SamplingSettings
from tests.test_engine import QUERIES, conversations, random_prompt
from tests.tiny import tiny_model, tiny_tokenizer

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
