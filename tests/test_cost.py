"""What prompts cost on harmless queries: the KL divergence from the model without a prompt."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Condition, DemurError, SafetyPrompt, evaluate
from demur.evaluation.cost import Divergences
from demur.evaluation.costs import Cost
from demur.evaluation.statistics import mean_interval
from demur.records import read_record, write_record
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    (tmp_path / "q.csv").write_text(
        "bad,good\n" + "\n".join(f"w7 w{row} ?,w8 w{row} ?" for row in range(12))
    )
    return {
        "prompts": ["none", str(tmp_path / "basic.txt")],
        "harmful": f"{tmp_path}/q.csv:bad",
        "harmless": f"{tmp_path}/q.csv:good",
        "tokens": 3,
        "output": tmp_path / "out",
    }


def kept_in(folder: Path) -> list[Path]:
    """The files with divergences."""
    return sorted(one for one in (folder / "costs").iterdir() if not one.name.startswith("answers"))


def test_the_cost_is_the_divergence_from_no_prompt_on_harmless_queries(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    comparison = evaluate(model, **arguments)
    queries = [f"w8 w{row} ?" for row in range(12)]
    prompt = SafetyPrompt("basic.txt", "w1 w2 w3 w4 w5 .")

    def log_probabilities(condition: Condition) -> torch.Tensor:
        return model.next_token_logits(model.represent(queries, condition)).log_softmax(-1)

    with_prompt, without = log_probabilities(Condition(prompt)), log_probabilities(Condition())
    expected = torch.nn.functional.kl_div(
        without, with_prompt, log_target=True, reduction="none"
    ).sum(-1)
    none, basic = comparison.costs
    assert (none.divergence, none.changed.count, basic.queries) == (0, 0, 12)
    changed = (with_prompt.argmax(-1) != without.argmax(-1)).tolist()
    assert sum(changed) > 0
    assert (basic.changed.count, basic.changed.queries) == (sum(changed), 12)
    assert basic.changed.interval.low < basic.changed.value <= basic.changed.interval.high
    assert basic.in_words == (
        f"KL {basic.divergence:.2f} nats: the likeliest first word changed for {sum(changed)} of "
        "12 harmless queries"
    )
    assert basic.divergence == pytest.approx(float(expected.mean()), rel=1e-4)
    assert basic.interval is not None
    spread = 2.201 * float(expected.std()) / 12**0.5  # the t quantile at 11 degrees of freedom
    assert basic.interval.high - basic.divergence == pytest.approx(spread, rel=1e-3)
    stored = [
        read_record(file, Divergences, "KL divergences") for file in kept_in(comparison.folder)
    ]
    (kept,) = (each for each in stored if each.prompted == comparison.measured[-1].key)
    assert list(kept.queries) == queries
    assert kept.values == pytest.approx(expected.tolist(), rel=1e-3)
    assert list(kept.changed) == changed
    assert kept.unprompted == Condition().fingerprint

    # The same where the model without a prompt is no part of the comparison.
    alone = evaluate(model, **(arguments | {"prompts": [prompt], "output": tmp_path / "alone"}))
    assert [cost.prompt for cost in alone.costs] == ["basic.txt"]
    assert alone.costs[0].divergence == pytest.approx(basic.divergence, rel=1e-4)
    assert alone.costs[0].changed == basic.changed
    del arguments["harmless"]
    harmful = evaluate(model, **(arguments | {"output": tmp_path / "harmful"}))
    assert harmful.costs == ()


def test_costs_are_not_measured_twice(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(model, **arguments)
    (first.folder / "results.json").unlink()
    monkeypatch.setattr(ChatModel, "represent", None)
    monkeypatch.setattr(ChatModel, "target_states", None)
    monkeypatch.setattr(ChatModel, "read_and_sample", None)
    monkeypatch.setattr(ChatModel, "next_token_logits", None)
    assert evaluate(model, **arguments) == first


def test_evaluations_of_one_model_read_it_without_a_prompt_once(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    for name in ("represent", "target_states"):
        method = getattr(ChatModel, name)

        def recording(*given: Any, _method: Any = method, **named: Any) -> Any:
            read.extend(one.name for one in given if isinstance(one, Condition))
            return _method(*given, **named)

        monkeypatch.setattr(ChatModel, name, recording)
    model = ChatModel.load(save_tiny_model(tmp_path / "one"), dtype="float32")
    first, second = SafetyPrompt("first", "w1 w2 w3 ."), SafetyPrompt("second", "w4 w5 .")
    alone = [
        evaluate(model, **(arguments | {"prompts": [prompt], "output": tmp_path / prompt.name}))
        for prompt in (first, second)
    ]
    assert read.count("none") == 2  # the queries, and along the answers
    together = evaluate(model, **(arguments | {"prompts": ["none", first, second]}))
    for mine, both in zip(alone, together.costs[1:], strict=True):
        (cost,) = mine.costs
        assert cost.divergence == pytest.approx(both.divergence, rel=1e-4)
        assert cost.answers is not None
        assert both.answers is not None
        assert cost.answers.divergence == pytest.approx(both.answers.divergence, rel=1e-3)
    # Other weights are read on their own.
    folder = save_tiny_model(tmp_path / "other", "qwen2")
    other = ChatModel.load(folder, dtype="float32")
    found = evaluate(other, **(arguments | {"prompts": [first], "output": tmp_path / "third"}))
    assert read.count("none") > 2
    assert found.costs[0].divergence != pytest.approx(alone[0].costs[0].divergence, rel=1e-3)


def test_a_divergence_of_other_queries_is_not_used(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    first = evaluate(model, **arguments)
    one, other = kept_in(first.folder)
    one.write_bytes(other.read_bytes())
    (first.folder / "results.json").unlink()
    with pytest.raises(DemurError, match=f"{one.name} is damaged: delete it"):
        evaluate(model, **arguments)
    one.unlink()
    assert evaluate(model, **arguments) == first


@pytest.mark.parametrize("left", [0, 11])
def test_a_file_without_some_of_the_first_words_is_damaged(
    model: ChatModel, arguments: dict[str, Any], left: int
) -> None:
    first = evaluate(model, **arguments)
    one, _ = kept_in(first.folder)
    kept = read_record(one, Divergences, "KL divergences")
    write_record(one, replace(kept, changed=kept.changed[:left]), "KL divergences")
    (first.folder / "results.json").unlink()
    with pytest.raises(DemurError, match=f"{one.name} is damaged: delete it"):
        evaluate(model, **arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_divergence_that_is_no_number_is_never_a_cost(value: float) -> None:
    with pytest.raises(DemurError, match="not a finite number"):
        Cost.of("long", "fingerprint", "held-out", [0.1, value], [False, True])
    cost = Cost.of("long", "fingerprint", "held-out", [-1e-12, 0.0], [False, True])
    assert cost.divergence == 0
    assert cost.changed.value == 0.5


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([1.0]) is None
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval is not None
    # 2.5 -+ 3.182 * 1.291 / 2
    assert (interval.low, interval.high) == pytest.approx((0.446, 4.554), abs=1e-3)
    wide = mean_interval([0.0, 10.0])
    assert wide is not None
    assert wide.low == 0
