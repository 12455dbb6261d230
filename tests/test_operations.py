"""A training step dispatches few operations a layer, and none of them waits for a result."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from demur.chat.engine import Engine, Inputs, Read, SamplingSettings
from demur.chat.engine.lean import lean
from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

MOST_OPERATIONS = 400
WAITING = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}
"""Operations whose result a GPU must hand over before the program goes on."""


def qwen2(layers: int, key_value_heads: int = 2) -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=key_value_heads,
    )
    torch.manual_seed(0)
    model: PreTrainedModel = Qwen2ForCausalLM(config)
    model.eval().requires_grad_(False)
    return model


def conversations(queries: int, targets: int = 0) -> Inputs:
    random = torch.Generator().manual_seed(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(512, (length,), generator=random).tolist())

    suffixes = tuple(tokens(8 + 3 * (row % 5)) for row in range(queries))
    some = tuple(tuple(tokens(4) for _ in range(targets)) for _ in range(queries))
    return Inputs(tokens(40), suffixes, (4, 36), some)


def dispatched(model: PreTrainedModel, inputs: Inputs) -> Counter[str]:
    """How often a step calls each operation of torch."""
    engine = Engine(model, tiny_tokenizer())
    prompt = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))

    def loss(read: Read, _places: list[int]) -> Tensor:
        return read.representations.square().sum() - read.token_values.sum()

    engine.prompt_gradient(inputs, prompt, loss)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        engine.prompt_gradient(inputs, prompt, loss)
    names = (event.name for event in profiler.events())
    return Counter(name for name in names if name.startswith("aten::"))


@pytest.mark.parametrize("key_value_heads", [2, 8])
@pytest.mark.parametrize("targets", [0, 2])
def test_operations_of_a_layer(key_value_heads: int, targets: int) -> None:
    found = []
    for queries in (8, 80):
        inputs = conversations(queries, targets)
        few, many = (dispatched(qwen2(layers, key_value_heads), inputs) for layers in (2, 4))
        for name in WAITING:
            assert few[name] == many[name], name
        found.append((many.total() - few.total()) / 2)
    assert found[0] == found[1] <= MOST_OPERATIONS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_lean_parts_compute_the_same(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(name)
    torch.nn.Module.to(model, dtype)
    random = torch.Generator().manual_seed(0)
    states = torch.randn(2, 11, model.config.hidden_size, generator=random).to(dtype)

    def run() -> tuple[Tensor, Tensor]:
        leaf = states.clone().requires_grad_()
        logits = model(inputs_embeds=leaf, use_cache=False).logits
        (gradient,) = torch.autograd.grad(logits.float().square().mean(), leaf)
        return logits.detach(), gradient.float()

    own: dict[str, Any] = {key: vars(module).copy() for key, module in model.named_modules()}
    logits, gradient = run()
    with lean(model):
        lean_logits, lean_gradient = run()
    assert all(vars(module).keys() == own[key].keys() for key, module in model.named_modules())
    assert torch.equal(lean_logits, logits)
    rounding = 1e-5 if dtype == torch.float32 else 0.05
    assert (lean_gradient - gradient).norm() <= rounding * gradient.norm()


def test_parts_that_cannot_be_lean_are_left_alone() -> None:
    model = tiny_model("llama, grouped attention")
    layers: Any = model.get_submodule("model.layers")
    trained, offloaded = layers[0].mlp.up_proj, layers[1].mlp.up_proj
    trained.weight.requires_grad_()

    def of_accelerate(states: Tensor) -> Tensor:
        return torch.nn.functional.linear(states, offloaded.weight)

    offloaded.forward = of_accelerate
    with lean(model):
        assert "forward" not in vars(trained)
        assert offloaded.forward is of_accelerate
        assert "forward" in vars(layers[0].mlp.down_proj)
        states = torch.randn(1, 3, 32, requires_grad=True)
        model(inputs_embeds=states, use_cache=False).logits.sum().backward()
    assert trained.weight.grad is not None
    assert "forward" not in vars(layers[0].mlp.down_proj)


def test_an_error_inside_leaves_nothing_changed() -> None:
    model = tiny_model("qwen2")
    layer: Any = model.get_submodule("model.layers.0.mlp.up_proj")
    with pytest.raises(KeyError), lean(model):
        raise KeyError
    assert "forward" not in vars(layer)


def test_a_sampled_token_makes_its_indices_once_for_all_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, keys = conversations(8), [str(row) for row in range(8)]
    settings = SamplingSettings(samples=2, least_tokens=6, most_tokens=6)
    prompt = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))
    own, made = torch.arange, Counter[int]()
    for layers in (2, 4):
        engine = Engine(qwen2(layers), tiny_tokenizer())

        def counted(*arguments: Any, layers: int = layers, **options: Any) -> Tensor:
            made[layers] += 1
            return own(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "arange", counted)
            engine.read_and_sample(inputs, keys, settings, prompt)
    assert made[2] == made[4] > 0
