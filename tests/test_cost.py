"""What prompts cost on harmless queries: the KL divergence from the model without a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Comparison, Condition, DemurError, SafetyPrompt, evaluate
from demur.evaluation.statistics import mean_interval
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
    assert (none.divergence, basic.queries) == (0, 12)
    assert basic.divergence == pytest.approx(float(expected.mean()), rel=1e-4)
    assert basic.interval is not None
    spread = 2.201 * float(expected.std()) / 12**0.5  # the t quantile at 11 degrees of freedom
    assert basic.interval.high - basic.divergence == pytest.approx(spread, rel=1e-3)
    kept = [json.loads(x) for x in (comparison.path / "costs/basic.txt-q.csv-good.jsonl").open()]
    assert [row["query"] for row in kept] == queries
    assert [row["divergence"] for row in kept] == pytest.approx(expected.tolist(), rel=1e-3)

    # The same where the model without a prompt is no part of the comparison.
    alone = evaluate(model, **(arguments | {"prompts": [prompt], "output": tmp_path / "alone"}))
    assert [cost.prompt for cost in alone.costs] == ["basic.txt"]
    assert alone.costs[0].divergence == pytest.approx(basic.divergence, rel=1e-4)
    del arguments["harmless"]
    harmful = evaluate(model, **(arguments | {"output": tmp_path / "harmful"}))
    assert harmful.costs == ()


def test_an_evaluation_without_costs_can_still_be_shown(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    comparison = evaluate(model, **arguments)
    file = comparison.path / "results.json"
    saved = json.loads(file.read_text())
    del saved["costs"]
    file.write_text(json.dumps(saved))
    assert Comparison.load(comparison.path).rates == comparison.rates
    saved["costs"] = [{"prompt": "none"}]
    file.write_text(json.dumps(saved))
    with pytest.raises(DemurError, match="damaged"):
        Comparison.load(comparison.path)


def test_costs_are_not_measured_twice(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(model, **arguments)
    (first.path / "results.json").unlink()
    monkeypatch.setattr(ChatModel, "represent", None)
    monkeypatch.setattr(ChatModel, "next_token_logits", None)
    assert evaluate(model, **arguments) == first
    (first.path / "results.json").unlink()
    (first.path / "costs/basic.txt-q.csv-good.jsonl").write_text("{}\n")
    with pytest.raises(DemurError, match=r"good\.jsonl is damaged"):
        evaluate(model, **arguments)


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([1.0]) is None
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval is not None
    # 2.5 -+ 3.182 * 1.291 / 2
    assert (interval.low, interval.high) == pytest.approx((0.446, 4.554), abs=1e-3)
    wide = mean_interval([0.0, 10.0])
    assert wide is not None
    assert wide.low == 0
