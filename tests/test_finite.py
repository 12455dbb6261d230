"""Numbers that are not finite: every way of reading a model finds them before anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, DemurError, SafetyPrompt, evaluate, optimize
from demur.chat import Condition, Dialogue
from demur.chat.engine import SamplingSettings
from demur.diagnosis import diagnose
from tests.tiny import tiny_model, tiny_tokenizer

LLAMA = "llama, grouped attention"
WORD = "w71"
GOOD = [f"w{10 + row} w7 w8" for row in range(11)]
QUERIES = [*GOOD, f"w9 {WORD} w8"]
SAMPLING = SamplingSettings(most_tokens=2)

Read = Callable[[ChatModel, list[str]], object]


def saved_model(folder: Path, change: Callable[[torch.nn.Module], None]) -> Path:
    model = tiny_model(LLAMA)
    change(model)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def embed(value: float) -> Callable[[torch.nn.Module], None]:
    """Gives one word an embedding of one value, so that queries with it alone go wrong."""

    def change(model: torch.nn.Module) -> None:
        ids = tiny_tokenizer()(WORD, add_special_tokens=False)["input_ids"]
        model.get_parameter("model.embed_tokens.weight").data[ids] = value

    return change


def overflow(model: torch.nn.Module) -> None:
    """Makes hidden states whose squares are infinite, which the last norm turns into zeros."""
    model.get_parameter("model.layers.1.mlp.down_proj.weight").data[:] = 1e36


def same(model: torch.nn.Module) -> None:
    """Makes every token see itself alone, so that all queries look alike at their last one."""
    for name, parameter in model.named_parameters():
        if "o_proj" in name:
            parameter.data.zero_()


READS: dict[str, Read] = {
    "represent": lambda model, queries: model.represent(queries),
    "layers": lambda model, queries: model.represent_layers(queries),
    "sample": lambda model, queries: model.read_and_sample(queries, Condition(), SAMPLING),
    "score": lambda model, queries: model.score(queries, [["w1 w2"]] * len(queries)),
    "chat": lambda model, queries: list(Dialogue(model, None, SAMPLING).ask(queries[-1])),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("models") / "tiny", lambda _: None)


def broken_model(folder: Path, **options: Any) -> ChatModel:
    """A model that goes wrong on one word, as one of which the memory is damaged after loading."""
    model = ChatModel.load(folder, dtype="float32", **options)
    embed(float("nan"))(model.engine.model)
    return model


@pytest.mark.parametrize("sharing", ["on", "off"])
@pytest.mark.parametrize("name", READS)
def test_every_way_of_reading_says_so(whole: Path, name: str, sharing: Any) -> None:
    model = broken_model(whole, prefix_sharing=sharing)
    assert READS[name](model, GOOD) is not None
    with pytest.raises(DemurError, match=r"tiny computes values that are not numbers .* weights"):
        READS[name](model, QUERIES)


def test_logits_are_checked_too(whole: Path) -> None:
    model = broken_model(whole)
    representations = model.represent(GOOD)
    assert model.next_token_logits(representations).isfinite().all()
    with pytest.raises(DemurError, match="not numbers"):
        model.next_token_logits(representations * torch.inf)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.norm", "lm_head"],
)
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, name: str, value: float) -> None:
    def change(model: torch.nn.Module) -> None:
        model.get_parameter(f"{name}.weight").data[3] = value

    folder = saved_model(tmp_path / "tiny", change)
    with pytest.raises(DemurError, match=rf"tiny has weights that are not numbers \({name}"):
        ChatModel.load(folder)


def test_weights_that_are_large_are_taken(tmp_path: Path) -> None:
    def change(model: torch.nn.Module) -> None:
        model.get_parameter("lm_head.weight").data[:] = 1e36  # their sum is infinite

    ChatModel.load(saved_model(tmp_path / "tiny", change), dtype="float32", prefix_sharing="off")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zeros_of_an_overflow_are_told(tmp_path: Path, dtype: str) -> None:
    model = ChatModel.load(saved_model(tmp_path / "tiny", overflow), dtype=dtype)
    # What the layers put out is finite here; the norm behind them makes the zeros.
    for read in (READS[name] for name in READS if name != "layers"):
        with pytest.raises(DemurError, match=rf"computes values that are all zero.* in {dtype}"):
            read(model, GOOD)


def commands(model: ChatModel, output: Path) -> dict[str, Callable[[], object]]:
    sets: dict[str, Any] = {
        "harmful": QUERIES,
        "harmless": [f"{query} w5" for query in GOOD],
        "output": output,
    }
    long = SafetyPrompt("mine", "w1 w2 w3")
    quick: dict[str, Any] = {"preset": "quick", "tokens": 4}
    return {
        "optimize": lambda: optimize(
            model, basic_prompt=long, held_out_harmful=QUERIES, **sets, **quick
        ),
        "evaluate": lambda: evaluate(model, prompts=[None, long], **sets, tokens=4),
        "diagnose": lambda: diagnose(model, prompts=[long], **sets, **quick),
    }


@pytest.mark.parametrize("command", ["optimize", "evaluate", "diagnose"])
def test_all_commands_say_the_reason(whole: Path, tmp_path: Path, command: str) -> None:
    model = broken_model(whole)
    with pytest.raises(DemurError, match="tiny computes values under none that are not numbers"):
        commands(model, tmp_path / "work")[command]()


def test_representations_that_are_all_the_same_are_told(tmp_path: Path) -> None:
    model = ChatModel.load(saved_model(tmp_path / "tiny", same), dtype="float32")
    with pytest.raises(DemurError, match="same representation of every query"):
        commands(model, tmp_path / "work")["diagnose"]()
