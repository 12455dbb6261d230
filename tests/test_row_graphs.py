"""Recorded training passes give what the passes themselves give, whatever rows came before."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.chat.engine import Engine, Inputs, Read, row_graphs
from demur.chat.engine import engine as module
from demur.chat.engine.packing import Packing
from demur.chat.engine.row_graphs import rounded
from tests.recording import Refusing, Tracing
from tests.test_engine import conversations, random_prompt
from tests.test_scoring import with_targets
from tests.tiny import ARCHITECTURES, LLAMA_LIKE, VOCABULARY, tiny_model, tiny_tokenizer


def loss_of(inputs: Inputs) -> Callable[[Read, list[int]], Tensor]:
    target = torch.randn(len(inputs), 32, generator=torch.Generator().manual_seed(4))

    def loss(read: Read, rows: list[int]) -> Tensor:
        apart = (read.representations - target[rows]).square().sum()
        return apart - (read.token_values * torch.arange(len(read.token_values))).sum()

    return loss


def longer_by(inputs: Inputs, more: tuple[int, ...]) -> Inputs:
    """Conversations with other tokens, some of them longer."""
    generator = random.Random(7)
    suffixes = tuple(
        tuple(generator.randrange(3, VOCABULARY) for _ in range(len(suffix) + extra))
        for suffix, extra in zip(inputs.suffixes, more, strict=True)
    )
    return replace(inputs, suffixes=suffixes)


def recording(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, Tracing]:
    recorder = Tracing()
    monkeypatch.setattr(module, "recorder_for", lambda _model: recorder)
    return Engine(model, tiny_tokenizer()), recorder


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_recorded_pass_gives_the_same_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompt = tiny_model(name), random_prompt()
    engine, recorder = recording(model, monkeypatch)
    monkeypatch.setattr(module, "recorder_for", lambda _model: None)
    plain = Engine(model, tiny_tokenizer())
    for inputs in (conversations(), with_targets()):
        rows = [
            inputs,
            longer_by(inputs, (0, 1, 0, 0, 0, 0, 0)),
            longer_by(inputs, (1, 0, 0, 0, 0, 1, 0)),
            inputs,
        ]
        for row in rows:
            found_loss, found = engine.prompt_gradient(row, prompt, loss_of(row))
            expected_loss, expected = plain.prompt_gradient(row, prompt, loss_of(row))
            assert found_loss == pytest.approx(expected_loss, rel=1e-5)
            assert float((found - expected).norm() / expected.norm()) < 1e-5
    if engine.shares_prefix and name == "llama, grouped attention":
        # One shape without targets and one with them: recorded at their second row.
        assert (recorder.recorded, recorder.replayed) == (2, 12)


def test_weights_in_other_memory_are_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama, grouped attention")
    engine, recorder = recording(model, monkeypatch)
    monkeypatch.setattr(module, "recorder_for", lambda _model: None)
    inputs, prompt = conversations(), random_prompt()
    for _ in range(3):
        engine.prompt_gradient(inputs, prompt, loss_of(inputs))
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    weight.data = weight.data * 2
    _, found = engine.prompt_gradient(inputs, prompt, loss_of(inputs))
    plain = Engine(model, tiny_tokenizer())
    _, expected = plain.prompt_gradient(inputs, prompt, loss_of(inputs))
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert recorder.recorded == 2


def test_a_model_that_changes_maps_in_place_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"num_local_experts": 2, "num_experts_per_tok": 1, "attention_chunk_size": 128}
    sizes = {**LLAMA_LIKE, **more, "intermediate_size_mlp": 48}
    monkeypatch.setitem(ARCHITECTURES, "llama4", ("llama4_text", sizes))
    engine, inputs = Engine(tiny_model("llama4"), tiny_tokenizer()), conversations()
    _, gradient = engine.prompt_gradient(inputs, random_prompt(), loss_of(inputs))
    assert bool(gradient.any())


def test_what_cannot_be_recorded_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama, grouped attention")
    monkeypatch.setattr(module, "recorder_for", lambda _model: Refusing())
    engine, inputs, prompt = Engine(model, tiny_tokenizer()), conversations(), random_prompt()
    results = [engine.prompt_gradient(inputs, prompt, loss_of(inputs)) for _ in range(3)]
    assert all(loss == results[0][0] for loss, _ in results)
    assert all(torch.equal(gradient, results[0][1]) for _, gradient in results)


def test_only_a_few_shapes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_graphs, "MOST_SHAPES", 1)
    engine, recorder = recording(tiny_model("llama, grouped attention"), monkeypatch)
    short, long = conversations(), longer_by(conversations(), (40, 0, 0, 0, 0, 0, 0))
    for inputs in (short, short, long, long, long, short):
        engine.prompt_gradient(inputs, random_prompt(), loss_of(inputs))
    assert recorder.recorded == 3


def test_rows_of_different_lengths_get_few_shapes() -> None:
    generator = random.Random(0)
    shapes = set()
    for _ in range(500):
        lengths = tuple(generator.randrange(20, 120) for _ in range(16))
        packing = Packing(93, lengths, inside=True)
        whole = rounded(packing)
        assert whole.lengths[:16] == lengths
        assert min(whole.lengths) >= 1
        assert max(whole.lengths) <= whole.longest == whole.width
        assert whole.total <= 1.5 * packing.total
        assert torch.equal(whole.reads[:16], packing.reads)
        shapes.add((len(whole.lengths), whole.width, whole.total))
    assert len(shapes) < 12
