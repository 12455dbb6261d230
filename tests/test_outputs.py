"""Outputs for instructions in `demur.evaluate`: the files, the win rate, resuming, bad input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, Comparison, DemurError, SafetyPrompt, evaluate
from demur.evaluation.alpaca import AlpacaOutputs
from demur.judges import Preference, get_preference_judge
from demur.progress import Progress
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """Two prompts and no prompt, and twelve instructions in the tiny model's words."""
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    (tmp_path / "tasks.txt").write_text("\n".join(f"w9 w{row} ?" for row in range(12)))
    return {
        "prompts": ["none", str(tmp_path / "basic.txt"), SafetyPrompt("other", "w7 w8")],
        "instructions": str(tmp_path / "tasks.txt"),
        "tokens": 6,
        "output": tmp_path / "out",
    }


def outputs_under(prompt: str, comparison: Comparison) -> tuple[str, ...]:
    (file,) = (each.file for each in comparison.outputs if each.prompt == prompt)
    return AlpacaOutputs.load(comparison.folder / file).outputs


def preferred(instruction: str, first: str, second: str) -> Preference:
    choices: tuple[Preference, ...] = ("first", "second", "tie", None)
    return choices[sum(map(ord, instruction + first + second)) % 4]


def pairs_under(prompt: str, comparison: Comparison) -> list[tuple[str, str, str] | None]:
    """Each instruction with both outputs; None where the model wrote nothing for it."""
    outputs, bare = outputs_under(prompt, comparison), outputs_under("none", comparison)
    return [
        (f"w9 w{row} ?", first, second) if first.strip() and second.strip() else None
        for row, (first, second) in enumerate(zip(outputs, bare, strict=True))
    ]


class FakeJudge:
    """Any of the four, as the letters have it; remembers what it was asked."""

    name = "fake"
    fingerprint = "by letters"

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.fails_after = fails_after

    def prefer(
        self,
        instructions: Sequence[str],
        firsts: Sequence[str],
        seconds: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Preference]:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        pairs = list(zip(instructions, firsts, seconds, strict=True))
        self.asked += pairs
        return [preferred(*pair) for pair in pairs]


def test_outputs_are_written_as_alpaca_eval_reads_them(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    comparison = evaluate(model, **arguments)
    assert [outputs.prompt for outputs in comparison.outputs] == ["none", "basic.txt", "other"]
    none, basic, _ = (comparison.folder / outputs.file for outputs in comparison.outputs)
    assert len(list((comparison.folder / "outputs").iterdir())) == 3
    rows = json.loads(basic.read_text())
    assert [row["instruction"] for row in rows] == [f"w9 w{row} ?" for row in range(12)]
    assert {row["generator"] for row in rows} == {"tiny-basic.txt"}
    assert {row["dataset"] for row in rows} == {"tasks.txt"}
    assert len({row["output"] for row in rows}) > 6
    assert all(len(row["output"].split()) <= 12 for row in rows)
    assert rows != json.loads(none.read_text())
    assert (comparison.rates, comparison.wins) == ((), ())  # nothing else was asked for
    assert list(comparison.responses()) == []


def test_outputs_are_whole_and_stand_beside_the_rates(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("demur.evaluation.settings.WHOLE_TOKENS", 200)
    (tmp_path / "q.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(12)))
    del arguments["tokens"]
    comparison = evaluate(model, **arguments, harmful=str(tmp_path / "q.txt"), judge="paper")
    refused = comparison.find("none").refused
    assert refused is not None
    assert refused.queries == 12
    measured = [row.response for row in comparison.responses()]
    outputs = outputs_under("none", comparison)
    # The tiny model hardly ever stops, and its context is longer than 64 tokens.
    assert max(len(response.split()) for response in measured) <= 2 * 64
    assert max(len(output.split()) for output in outputs) > 2 * 64


@pytest.mark.parametrize("with_none", [True, False])
def test_outputs_are_compared_with_those_without_a_prompt(
    model: ChatModel, arguments: dict[str, Any], with_none: bool
) -> None:
    arguments["prompts"] = arguments["prompts"][0 if with_none else 1 :]
    judge = FakeJudge()
    comparison = evaluate(model, **arguments, preference_judge=judge)
    pairs = pairs_under("basic.txt", comparison)
    assert len(pairs) == 12
    others = pairs_under("other", comparison)
    assert judge.asked == [pair for pair in (*pairs, *others) if pair is not None]
    assert [(wins.prompt, wins.baseline) for wins in comparison.wins] == [
        ("basic.txt", "none"),
        ("other", "none"),
    ]
    won = comparison.wins[0].won
    said = [None if pair is None else preferred(*pair) for pair in pairs]
    assert (won.wins, won.ties, won.losses, won.undecided) == (
        *(said.count("first"), said.count("tie"), said.count("second"), said.count(None)),
    )
    assert 0 < won.undecided < 12
    assert won.rate is not None
    assert won.rate.queries == 12 - won.undecided
    assert won.rate.count == won.wins + won.ties / 2
    assert "basic.txt is preferred to none: " in str(comparison)
    assert Comparison.load(comparison.folder) == comparison
    kept = [
        [json.loads(line)["preferred"] for line in file.read_text().splitlines()]
        for file in (comparison.folder / "preferences").glob("*.jsonl")
    ]
    assert len(kept) == 2
    assert said in kept


def test_a_judge_without_any_verdict_is_said_not_counted(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    class Nonsense(FakeJudge):
        def prefer(self, instructions: Sequence[str], *_: Any) -> list[Preference]:
            return [None] * len(instructions)

    comparison = evaluate(model, **arguments, preference_judge=Nonsense())
    won = comparison.wins[0].won
    assert won.rate is None
    assert won.undecided == 12
    assert str(won) == "no verdict on any of 12 pairs"
    assert Comparison.load(comparison.folder) == comparison


def test_an_interrupted_comparison_samples_and_judges_nothing_twice(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.evaluation.preferences.PAIRS_AT_ONCE", 5)
    first, second = FakeJudge(fails_after=15), FakeJudge()
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **arguments, preference_judge=first)
    assert not (arguments["output"] / "results.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(ChatModel, "read_and_sample", None)
        comparison = evaluate(model, **arguments, preference_judge=second)
    pairs = [*pairs_under("basic.txt", comparison), *pairs_under("other", comparison)]
    assert first.asked + second.asked == [pair for pair in pairs if pair is not None]
    assert sum(wins.won.undecided for wins in comparison.wins) == sum(
        pair is None or preferred(*pair) is None for pair in pairs
    )
    third = FakeJudge()
    assert evaluate(model, **arguments, preference_judge=third) == comparison
    assert third.asked == []
    for change in (
        {"preference_judge": None},
        {"preference_judge": third, "tokens": 7},
        {"preference_judge": third, "instructions": "built-in", "tokens": 6},
    ):
        with pytest.raises(DemurError, match="belongs to an evaluation with another"):
            evaluate(model, **(arguments | change))


def test_preferences_belong_to_their_outputs(model: ChatModel, arguments: dict[str, Any]) -> None:
    comparison = evaluate(model, **arguments, preference_judge=FakeJudge())
    one, other = sorted((comparison.folder / "preferences").glob("*.journal"))
    one.write_bytes(other.read_bytes())
    one.with_suffix(".jsonl").write_bytes(other.with_suffix(".jsonl").read_bytes())
    (comparison.folder / "results.json").unlink()
    with pytest.raises(DemurError, match=f"{one.name} is damaged .*it belongs to other outputs"):
        evaluate(model, **arguments, preference_judge=FakeJudge())
    one.unlink()
    assert evaluate(model, **arguments, preference_judge=FakeJudge()) == comparison


def test_another_preference_judge_is_asked_itself(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    class Other(FakeJudge):
        fingerprint = "otherwise"

    evaluate(model, **arguments, preference_judge=FakeJudge())
    with pytest.raises(DemurError, match="another preference judge"):
        evaluate(model, **arguments, preference_judge=Other())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instructions": None, "preference_judge": FakeJudge()}, "--instructions built-in"),
        ({"prompts": ["none"], "preference_judge": FakeJudge()}, "prompt other than none"),
        ({"preference_judge": object()}, "'object' is not a judge of pairs"),
        ({"instructions": []}, "is empty"),
        ({"instructions": "missing.txt"}, "no file 'missing.txt'"),
        ({"instructions": "missing"}, "No query set is called 'missing'"),
        ({"tokens": 1000}, r"ask for at most \d+ \(--tokens\)"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    model: ChatModel, arguments: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DemurError, match=message) as caught:
        evaluate(model, **(arguments | change))
    assert "\n" not in str(caught.value)
    assert not arguments["output"].exists()


def test_a_judge_must_give_a_preference_each(model: ChatModel, arguments: dict[str, Any]) -> None:
    class Silent(FakeJudge):
        def prefer(self, *_: Any) -> list[Preference]:
            return []

    with pytest.raises(DemurError, match=r"gave 0 verdicts on \d+ pairs"):
        evaluate(model, **arguments, preference_judge=Silent())


@pytest.mark.parametrize("spec", ["", "endpoint:", "guard:m", "jury"])
def test_only_endpoints_judge_pairs(spec: str) -> None:
    with pytest.raises(DemurError, match="give endpoint:MODEL"):
        get_preference_judge(spec)
