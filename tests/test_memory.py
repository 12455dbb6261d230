"""Batches follow the memory there is, and results do not depend on it."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2Config, Qwen2ForCausalLM

from demur import ChatModel, Condition, DemurError, SafetyPrompt, optimize
from demur.chat import hardware
from demur.chat.allocator import keep_freed_memory
from demur.chat.engine import Engine, Read, SamplingSettings, memory
from tests.test_engine import QUERIES, conversations, random_prompt
from tests.test_operations import conversations as many_conversations
from tests.tiny import ARCHITECTURES, save_tiny_model, tiny_model, tiny_tokenizer

NAME = "llama, grouped attention"


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda _device: free)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_has_an_estimate(name: str) -> None:
    room = memory.room_for(tiny_model(name))
    assert 1 <= room.trained <= memory.ON_PROCESSOR.trained
    assert 1 <= room.read <= memory.ON_PROCESSOR.read


def test_less_memory_makes_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(NAME)
    found = []
    for free in (1 << 40, 1 << 20, 1 << 16, 0):
        with_free(monkeypatch, free)
        room = memory.room_for(model)
        found.append((room.read, room.trained, memory.slots_for(model, 100)))
    assert found[0] == memory.ON_PROCESSOR
    assert found[-1] == (1, 1, 1)
    for more, less in pairwise(found):
        assert all(a > b or a == b == 1 for a, b in zip(more, less, strict=True))


def test_the_estimate_of_a_gradient_covers_what_autograd_keeps() -> None:
    model = tiny_model(NAME)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = 64
    embeddings = torch.randn(1, tokens, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state.sum()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    measured = sum(size for pointer, size in kept.items() if pointer not in weights)
    estimated = tokens * memory.activation_bytes(model)
    assert measured / 3 < estimated < 3 * measured


def test_results_are_the_same_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, prompt = conversations(), random_prompt()
    settings = SamplingSettings(samples=2, most_tokens=5)

    def loss(read: Read, rows: list[int]) -> Tensor:
        return read.representations.square().sum() / len(inputs)

    def everything() -> tuple[Tensor, list[list[str]], Tensor, Engine]:
        engine = Engine(tiny_model(NAME), tiny_tokenizer())
        reading = engine.read_and_sample(inputs, QUERIES, settings, prompt)
        texts = [[sample.text for sample in samples] for samples in reading.samples]
        _, gradient = engine.prompt_gradient(inputs, prompt, loss)
        return reading.representations, texts, gradient, engine

    plenty = everything()
    with_free(monkeypatch, 200_000)
    little = everything()
    assert little[3].most_read < plenty[3].most_read
    assert little[3].most_trained < 39  # the tokens of all conversations: several parts
    torch.testing.assert_close(little[0], plenty[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(little[2], plenty[2], rtol=1e-4, atol=1e-5)
    assert little[1] == plenty[1]


def test_a_gradient_survives_running_out_of_memory() -> None:
    engine = Engine(tiny_model(NAME), tiny_tokenizer())
    inputs, prompt = conversations(), random_prompt()

    def loss(read: Read, rows: list[int]) -> Tensor:
        return read.representations.square().sum() / len(inputs)

    expected_loss, expected = engine.prompt_gradient(inputs, prompt, loss)
    longest: list[int] = []

    def crowded(_module: object, _args: object, kwargs: dict[str, Tensor]) -> None:
        tokens = kwargs["inputs_embeds"].shape[1]
        if tokens > 24:
            raise torch.OutOfMemoryError("CUDA out of memory")
        longest.append(tokens)

    hook = engine.model.register_forward_pre_hook(crowded, with_kwargs=True)
    found_loss, found = engine.prompt_gradient(inputs, prompt, loss)
    hook.remove()
    assert max(longest) <= 24
    assert found_loss == pytest.approx(expected_loss, rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")


def printed(code: str) -> int:
    """The number that code prints in a process whose allocator is not set up."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return int(subprocess.check_output([sys.executable, "-c", code], text=True, env=plain))


_CHURN = """
import resource, torch
from demur.chat.allocator import keep_freed_memory

keep_freed_memory()
for _ in range(10):  # until the heap has settled
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    faults = printed(_CHURN)
    touched = 10 * 2**24 * 4 // resource.getpagesize()
    assert faults < touched / 4


_KEEP = """
import torch
from demur.chat.allocator import keep_freed_memory, kept_memory

keep_freed_memory()
before = kept_memory()
block = torch.ones(2**24)
del block
print(kept_memory() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's allocator")
def test_kept_memory_is_counted() -> None:
    kept = printed(_KEEP)
    assert kept == pytest.approx(2**24 * 4, rel=0.1)


def test_kept_memory_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "kept_memory", lambda: 1 << 60)
    assert hardware.available_memory(torch.device("cpu")) >= 1 << 60


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_leaves_an_allocator_alone_that_the_user_set_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_library: None) -> None:
        raise AssertionError

    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    keep_freed_memory()


@pytest.mark.parametrize("targets", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_of_a_step_is_known_before_it(dtype: torch.dtype, targets: int) -> None:
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=1400,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model: Any = Qwen2ForCausalLM(config)
    model.eval().requires_grad_(False).to(dtype)
    engine = Engine(model, tiny_tokenizer())
    inputs, prompt = many_conversations(40, targets), torch.randn(32, 256)

    def step() -> None:
        engine.prompt_gradient(
            inputs,
            prompt,
            lambda read, _: read.representations.square().sum() - read.token_values.sum(),
        )

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events: Any = profiler.profiler.kineto_results.events()
    changes = sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]")
    peak = max(accumulate(size for _, size in changes))
    estimated = memory.step_bytes(model, inputs, range(len(inputs)))
    assert estimated / 2 < peak < estimated


def test_a_device_that_is_too_small_is_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ChatModel.load(save_tiny_model(tmp_path / "model"), dtype="float32", device="cpu")
    prompt = SafetyPrompt("long", "w3 w4 w5 w7 w8 w9 w10 w11 w13 w14")
    read: list[object] = []
    model.engine.model.register_forward_pre_hook(lambda *given: read.append(given))
    with_free(monkeypatch, 50_000)
    with pytest.raises(DemurError) as raised:
        optimize(model, basic_prompt=prompt, output=tmp_path / "run", preset="quick")
    message = str(raised.value)
    assert "needs" in message
    assert "cpu has 5e-05 GB free: shorten" in message
    assert "load the model in bfloat16" in message
    assert not read
    torch.nn.Module.to(model.engine.model, torch.bfloat16)
    with pytest.raises(DemurError, match=r"free: shorten .*, or choose a smaller model or another"):
        optimize(model, basic_prompt=prompt, output=tmp_path / "run", preset="quick")
    assert not read


def test_training_needs_more_than_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ChatModel.load(save_tiny_model(tmp_path / "model"), dtype="float32", device="cpu")
    condition = Condition(SafetyPrompt("long", "w3 w4 w5"))
    queries = [" ".join(f"w{place}" for place in range(13, 18))] * 3
    queries.append(" ".join(queries * 3))
    network, inputs = model.engine.model, model.inputs(queries, condition)
    sampling = memory.sampling_bytes(network, inputs, 1)
    training = memory.step_bytes(network, inputs, [3])
    assert sampling < training
    with_free(monkeypatch, training - 1)
    model.require_room(queries, condition, 1)
    with pytest.raises(DemurError, match="for the longest query alone"):
        model.require_room(queries, condition, 1, trained=True)
    with_free(monkeypatch, training)
    model.require_room(queries, condition, 1, trained=True)
    with_free(monkeypatch, 0)
    with pytest.raises(DemurError, match=r"ask for fewer than 99 new tokens \(--tokens\)"):
        model.require_room(queries, condition, 99)
