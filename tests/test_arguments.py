"""Arguments of the public functions that do not fit: one clear error, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import (
    ChatModel,
    Condition,
    DemurError,
    Dialogue,
    QuerySet,
    SafetyPrompt,
    diagnose,
    evaluate,
    optimize,
    push,
    write_report,
)
from demur.chat.engine import SamplingSettings
from demur.exports import export
from demur.sharing import write_repository
from tests.tiny import save_tiny_model

QUERIES = ["w20 w21 w22", "w30"]
PROMPT = SafetyPrompt("mine", "w1 w2 w3")
CONDITION = Condition(PROMPT)
SAMPLING = SamplingSettings(most_tokens=2)

Call = Callable[[Any], object]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which stays empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORKS: dict[str, Call] = {"optimize": optimize, "evaluate": evaluate, "diagnose": diagnose}
EVERYWHERE: dict[str, list[Any]] = {
    "output": [3, [], ""],
    "progress": [print, object(), "yes"],
    "system_prompt": [3, ["a"], ""],
    "judge": [3, [], object()],
    "harmful": [3, b"a", [], [3], [""], {"a": 1}, ["anchors"], ["anchors", "held-out"]],
    "harmless": [object(), ["a", 3], [QuerySet("mine", "harmful", ("a",))]],
}
OWN: dict[str, dict[str, list[Any]]] = {
    "optimize": {
        "basic_prompt": [3, ["long"], SafetyPrompt("mine", None, torch.ones(2, 32))],
        "preset": [3, None, "fast"],
        "method": [3, ["dro"], "fast"],
        "held_out": [3, "held-out", ["held-out"]],
        "held_out_harmful": [3, []],
        "epochs": ["x", [3], None],
        "no_setting": [3],
    },
    "evaluate": {
        "prompts": ["long", 3, [], [3], Path("long")],
        "benchmarks": ["advbench", 3, [3], ["no benchmark"]],
        "benchmark_dir": [3],
        "instructions": [3, []],
        "harm_judge": [3],
        "preference_judge": [3],
        "base_url": [3],
        "samples": ["x", 0],
        "seed": [-1, "x"],
    },
    "diagnose": {
        "prompts": ["long", 3, [], [3], Path("long")],
        "preset": [3, None, "fast"],
        "run": [3, "nowhere"],
        "samples": ["x", 0],
        "no_setting": [3],
    },
}
CASES = [
    (work, name, value)
    for work, own in OWN.items()
    for name, values in {**EVERYWHERE, **own}.items()
    for value in values
]


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(DemurError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message[:1].isupper() or message.startswith(("'", "--", "nowhere"))
    return message


@pytest.mark.parametrize(("work", "name", "value"), CASES)
def test_arguments_are_checked_before_anything_is_done(
    model: ChatModel, place: Path, work: str, name: str, value: Any
) -> None:
    assert message_of(lambda: WORKS[work](model, **{name: value}))
    assert not list(place.iterdir())


@pytest.mark.parametrize("work", ["optimize", "diagnose"])
@pytest.mark.parametrize("wrong", ["./tiny", None, 3, Path("tiny"), ChatModel])
def test_a_model_is_wanted(work: str, wrong: Any) -> None:
    assert "not a ChatModel: give ChatModel.load(" in message_of(lambda: WORKS[work](wrong))
    if isinstance(wrong, str):
        assert "give ChatModel.load('./tiny')." in message_of(lambda: WORKS[work](wrong))


def test_a_single_value_is_no_list(model: ChatModel) -> None:
    for work in (evaluate, diagnose):
        message = message_of(lambda work=work: work(model, prompts="long"))  # type: ignore[misc]
        assert message == (
            "'prompts' is the single value 'long': give a list of prompts, such as "
            f"{'[' + repr('none') + ', ' if work is evaluate else '['}'long']."
        )


QUERY_CALLS: dict[str, Callable[[ChatModel, Any], object]] = {
    "represent": lambda model, queries: model.represent(queries),
    "layers": lambda model, queries: model.represent_layers(queries),
    "inputs": lambda model, queries: model.inputs(queries, CONDITION),
    "sample": lambda model, queries: model.read_and_sample(queries, CONDITION, SAMPLING),
    "score": lambda model, queries: model.score(queries, []),
    "gradient": lambda model, queries: model.prompt_gradient(
        queries, CONDITION, torch.zeros(3, 32), lambda read, _: read.representations.sum()
    ),
}


@pytest.mark.parametrize("name", QUERY_CALLS)
def test_queries_of_a_model_are_texts(model: ChatModel, name: str) -> None:
    call = QUERY_CALLS[name]
    for several in (QUERIES, tuple(QUERIES), QuerySet("mine", "harmful", tuple(QUERIES))):
        assert call(model, several) is not None
    assert "single text 'abc': give a list" in message_of(lambda: call(model, "abc"))
    assert "is empty: give at least one" in message_of(lambda: call(model, []))
    assert "query number 2 is an int" in message_of(lambda: call(model, ["a", 3]))
    for wrong in (None, 3, {"a": 1}, b"a"):
        assert "give a list of texts." in message_of(lambda wrong=wrong: call(model, wrong))  # type: ignore[misc]


def test_conditions_and_other_arguments_of_a_model(model: ChatModel) -> None:
    wrong: Any = PROMPT
    calls: list[Callable[[], object]] = [
        lambda: model.represent(QUERIES, wrong),
        lambda: model.represent_layers(QUERIES, wrong),
        lambda: model.score(QUERIES, [], wrong),
        lambda: model.read_and_sample(QUERIES, wrong, SAMPLING),
        lambda: model.conversation("w1", wrong),
        lambda: model.prompt_gradient(QUERIES, wrong, torch.zeros(3, 32), lambda read, _: read),  # type: ignore[arg-type, return-value]
    ]
    for call in calls:
        assert message_of(call) == "The condition is a SafetyPrompt: give Condition(prompt)."
    others: list[Callable[[], object]] = [
        lambda: model.represent(QUERIES, "long"),  # type: ignore[arg-type]
        lambda: model.read_and_sample(QUERIES, CONDITION, {"samples": 3}),  # type: ignore[arg-type]
        lambda: model.prompt_embeddings("long"),  # type: ignore[arg-type]
        lambda: model.next_token_logits([[1.0]]),  # type: ignore[arg-type]
        lambda: model.target_ids(3),  # type: ignore[arg-type]
        lambda: model.score(QUERIES, "w1"),
        lambda: model.score(QUERIES, ["w1", "w2"]),
        lambda: model.score(QUERIES, [[3], []]),  # type: ignore[list-item]
        lambda: model.score(QUERIES, 3),  # type: ignore[arg-type]
        lambda: model.conversation(3, CONDITION),  # type: ignore[arg-type]
        lambda: model.prompt_gradient(QUERIES, CONDITION, PROMPT, lambda read, _: read),  # type: ignore[arg-type, return-value]
        lambda: Dialogue("tiny"),  # type: ignore[arg-type]
    ]
    for call in others:
        assert message_of(call)


def test_exports_pushes_and_reports(place: Path) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: export(3, "peft", "new"),  # type: ignore[arg-type]
        lambda: export(PROMPT, 3, "new"),  # type: ignore[arg-type]
        lambda: export(PROMPT, "peft", 3),  # type: ignore[arg-type]
        lambda: export(PROMPT, "peft", "new", model=3),  # type: ignore[arg-type]
        lambda: export(PROMPT, "peft", "new", system_prompt=3),  # type: ignore[arg-type]
        lambda: export(PROMPT, "peft", "new", progress=print),  # type: ignore[arg-type]
        lambda: push(3, "a/b"),  # type: ignore[arg-type]
        lambda: push(PROMPT, 3),  # type: ignore[arg-type]
        lambda: push([PROMPT], "a/b"),  # type: ignore[arg-type]
        lambda: push(PROMPT, "a/b", progress=print),  # type: ignore[arg-type]
        lambda: write_repository(PROMPT, "a/b", 3),  # type: ignore[arg-type]
        lambda: write_report(3),  # type: ignore[arg-type]
        lambda: write_report([]),
        lambda: write_report([3]),  # type: ignore[list-item]
        lambda: write_report(PROMPT),  # type: ignore[arg-type]
        lambda: write_report("nowhere", output=3),  # type: ignore[arg-type]
    ]
    for call in wrong:
        assert message_of(call)
    assert not list(place.iterdir())
