"""Which path serves a model, for what reason, and how to choose it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from demur.chat import ChatModel, Condition, keep_freed_memory
from demur.chat.engine import Engine, PrefixSharing
from demur.errors import DemurError
from demur.progress import SilentProgress
from tests.test_engine import conversations, random_prompt
from tests.tiny import save_tiny_model, tiny_model, tiny_tokenizer

LLAMA, MAMBA = "llama, grouped attention", "mamba, state-space"
QUERIES = ["w20 w21 w22", "w30", "w40 w41"]


class Remarks(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


Change = Callable[[dict[str, Any]], None]


def changed(change: Change, name: str = LLAMA) -> PreTrainedModel:
    """A model whose shared path goes wrong: `change` is made to its arguments there.

    Only the shared path tells the model positions.
    """
    model = tiny_model(name)

    def before(_module: object, args: tuple[object, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("position_ids") is not None:
            kwargs = dict(kwargs)
            change(kwargs)
        return args, kwargs

    model.register_forward_pre_hook(before, with_kwargs=True)
    return model


def no_positions(kwargs: dict[str, Any]) -> None:
    kwargs["position_ids"] = torch.zeros_like(kwargs["position_ids"])


def not_numbers(kwargs: dict[str, Any]) -> None:
    kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * torch.nan


def failing(_kwargs: dict[str, Any]) -> None:
    raise RuntimeError("no kernel\nfor this")


@pytest.mark.parametrize(
    ("make", "cause", "reason"),
    [
        (lambda: tiny_model(MAMBA), "cache", "its cache cannot be expanded (it holds "),
        (lambda: tiny_model("bloom, linear biases"), "positions", "takes no position_ids"),
        (lambda: changed(no_positions), "difference", "and at most 0.1 % is allowed in float32"),
        (lambda: changed(not_numbers), "not finite", "gave values that are not numbers"),
        (lambda: changed(failing), "error", "failed on it (RuntimeError: no kernel for this)"),
    ],
)
def test_the_true_reason_is_named(
    make: Callable[[], PreTrainedModel], cause: str, reason: str
) -> None:
    engine = Engine(make(), tiny_tokenizer(), name="tiny")
    assert not engine.shares_prefix
    assert engine.verdict.cause == cause
    assert reason in engine.verdict.reason
    assert engine.represent(conversations(), random_prompt()).isfinite().all()
    with pytest.raises(DemurError, match=r"^tiny cannot share a prefix because .*\.$") as raised:
        Engine(make(), tiny_tokenizer(), prefix_sharing="on", name="tiny")
    assert reason in str(raised.value)


def test_the_difference_is_measured() -> None:
    verdict = Engine(changed(no_positions), tiny_tokenizer()).verdict
    share = float(verdict.reason.split("differ by ")[1].split(" %")[0])
    assert 0.1 < share < 300


@pytest.mark.parametrize("sharing", ["auto", "on", "off"])
def test_nan_is_an_error(sharing: PrefixSharing) -> None:
    model = tiny_model(LLAMA)
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 3] = torch.nan
    with pytest.raises(DemurError, match=r"tiny computes values that are not numbers .* float32"):
        Engine(model, tiny_tokenizer(), prefix_sharing=sharing, name="tiny")


def test_a_model_that_cannot_be_run_is_an_error() -> None:
    model = tiny_model(LLAMA)

    def fail(*_arguments: object) -> None:
        raise TypeError("unexpected keyword argument 'inputs_embeds'")

    model.register_forward_pre_hook(fail)
    with pytest.raises(DemurError, match=r"The model cannot be run \(TypeError: unexpected"):
        Engine(model, tiny_tokenizer())


def test_either_path_can_be_chosen(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    found, records = [], {}
    ways: dict[PrefixSharing, bool] = {"auto": True, "on": True, "off": False}
    for sharing, shares in ways.items():
        remarks = Remarks()
        model = ChatModel.load(folder, prefix_sharing=sharing, dtype="float32", progress=remarks)
        assert model.engine.shares_prefix is shares
        assert not [text for text in remarks.said if "path" in text]  # as asked for
        assert model.record.prefix_sharing is shares
        found.append(model.represent(QUERIES, Condition()))
        records[sharing] = model.record
    assert records["auto"] == records["on"]
    assert records["auto"].fingerprint != records["off"].fingerprint
    assert model.engine.verdict.cause == "turned off"
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-4)
    with pytest.raises(DemurError, match="choose auto, on or off"):
        ChatModel.load(folder, prefix_sharing="both")  # type: ignore[arg-type]


def test_loading_reports_the_plain_path(tmp_path: Path) -> None:
    folder, remarks = save_tiny_model(tmp_path / "tiny-mamba", MAMBA), Remarks()
    model = ChatModel.load(folder, dtype="float32", progress=remarks)
    (said,) = [text for text in remarks.said if "path" in text]
    assert said.startswith(
        "tiny-mamba takes the plain path, which is slower and gives the same results up to rounding"
    )
    off = ChatModel.load(folder, dtype="float32", prefix_sharing="off")
    assert model.record == off.record  # the path is the same, whatever led to it
    assert not model.record.prefix_sharing
    assert "because its cache cannot be expanded" in said
    with pytest.raises(DemurError, match="tiny-mamba cannot share a prefix because its cache"):
        ChatModel.load(folder, dtype="float32", prefix_sharing="on")


# --- The allocator ----------------------------------------------------------------------------


def without_settings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What `mallopt` is told in an environment that sets nothing up."""
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    told: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, option: int, value: int) -> int:
            told.append((option, value))
            return 1

    def open_library(_name: None) -> Library:
        return Library()

    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr(ctypes, "CDLL", open_library)
    return told


def test_an_engine_leaves_the_allocator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_model(LLAMA), tiny_tokenizer()
    told = without_settings(monkeypatch)
    Engine(model, tokenizer)
    assert told == []


def test_loading_keeps_freed_memory_only_when_asked_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    told = without_settings(monkeypatch)
    remarks = Remarks()
    ChatModel.load(folder, device="cpu", progress=remarks)
    assert told == []
    ChatModel.load(folder, device="cpu", keep_freed_memory=True, progress=remarks)
    assert len(told) == 2
    assert remarks.said
    assert not [text for text in remarks.said if "memory" in text]


def test_keeping_freed_memory_says_whether_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    told = without_settings(monkeypatch)
    assert keep_freed_memory()
    assert len(told) == 2
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
    assert len(told) == 2
