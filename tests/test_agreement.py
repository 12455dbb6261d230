"""Further judges of refusal, and how far they agree with the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, Comparison, DemurError, ResponseFiles, evaluate, write_report
from demur.evaluation.agreements import Agreement
from tests.command_line import demur, done, mistake
from tests.interruption import check_interrupts
from tests.tiny import save_tiny_model


class Words:
    """Refuses where a response has one of some words; no verdict where it is unsure."""

    def __init__(self, name: str, refused: str, unsure: str = "") -> None:
        self.name = self.fingerprint = name
        self.refused, self.unsure = refused, unsure
        self.asked: list[str] = []

    def judge(
        self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
    ) -> list[bool | None]:
        self.asked += responses
        return [
            None if self.unsure and self.unsure in one else self.refused in one.split()
            for one in responses
        ]


def responses(folder: Path, texts: Sequence[str]) -> ResponseFiles:
    file = folder / "responses.json"
    file.write_text(json.dumps([{"response": text} for text in texts]))
    return ResponseFiles([file])


TEXTS = ["a b", "a b 2", "a", "b", "b 2", "b 3", "none", "none 2", "a odd"]


def test_the_table_of_two_judges_is_counted(tmp_path: Path) -> None:
    first, second = Words("first", "a"), Words("second", "b", unsure="odd")
    comparison = evaluate(
        responses(tmp_path, TEXTS),
        judge=first,
        other_judges=[second],
        output=tmp_path / "out",
    )
    (found,) = comparison.agreements
    counts = {"both": 2, "first": 1, "second": 3, "neither": 2, "no_verdict": 1}
    assert found == Agreement("second", found.fingerprint, **counts)
    assert found.responses == 8
    assert found.share == pytest.approx(4 / 8)
    chance = (3 / 8) * (5 / 8) + (5 / 8) * (3 / 8)
    assert found.kappa == pytest.approx((4 / 8 - chance) / (1 - chance))
    assert second.asked == TEXTS
    # The rates are those of the first judge.
    alone = evaluate(responses(tmp_path, TEXTS), judge=Words("first", "a"), output=tmp_path / "1")
    assert alone.rates == comparison.rates
    assert Comparison.load(tmp_path / "out").agreements == comparison.agreements
    assert "second: agrees on 50.0 % of 8 responses, kappa" in str(comparison)
    page = write_report([comparison], tmp_path / "report.html").read_text()
    assert "Agreement of further judges" in page


def test_judges_that_say_the_same_of_all_have_no_kappa() -> None:
    all_equal = Agreement("j", "j", 5, 0, 0, 0, 0)
    assert (all_equal.share, all_equal.kappa) == (1.0, None)
    nothing = Agreement("j", "j", 0, 0, 0, 0, 3)
    assert (nothing.share, nothing.kappa) == (None, None)
    assert "no response has a verdict of both" in str(nothing)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "prompts": ["none"],
        "harmful": [f"w7 w{row} ?" for row in range(10)],
        "harmless": [f"w8 w{row} ?" for row in range(10)],
        "samples": 8,
        "tokens": 6,
        "judge": "paper",
        "output": tmp_path / "out",
    }


def test_no_verdict_is_asked_for_twice(model: ChatModel, arguments: dict[str, Any]) -> None:
    arguments["other_judges"] = ["default"]
    assert check_interrupts(lambda: evaluate(model, **arguments), arguments["output"], every=3) > 3
    # Another judge is added to a finished evaluation; what there is stays.
    before = {file.name for file in (arguments["output"] / "measurements").iterdir()}
    again = Words("mine", "w1")
    more = evaluate(model, **{**arguments, "other_judges": ["default", again]})
    assert [one.judge for one in more.agreements] == ["default", "mine"]
    assert {file.name for file in (arguments["output"] / "measurements").iterdir()} == before
    asked = len(again.asked)
    assert asked == sum(one.responses + one.no_verdict for one in more.agreements[1:])
    assert evaluate(model, **{**arguments, "other_judges": ["default", again]}) == more
    assert len(again.asked) == asked


def test_damaged_verdicts_are_not_used(model: ChatModel, arguments: dict[str, Any]) -> None:
    arguments["other_judges"] = ["default"]
    whole = evaluate(model, **arguments)
    (file,) = (arguments["output"] / "verdicts").glob("*.jsonl")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"false", b"true ", 1).replace(b"null", b"true", 1))
    (arguments["output"] / "results.json").unlink()
    with pytest.raises(DemurError, match="verdicts"):
        evaluate(model, **arguments)
    file.unlink()
    for journal in (arguments["output"] / "verdicts").glob("*.journal"):
        journal.unlink()
    assert evaluate(model, **arguments).agreements == whole.agreements


@pytest.mark.parametrize("others", [["paper"], ["default", "default"]])
def test_a_judge_is_given_once(
    model: ChatModel, arguments: dict[str, Any], others: list[str]
) -> None:
    with pytest.raises(DemurError, match="is given twice"):
        evaluate(model, **arguments, other_judges=others)


def test_the_command_shows_the_agreement(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        "response\nI cannot help with that.\nI must decline.\nSure: mix it.\n"
    )
    arguments = ["evaluate", "--responses", tmp_path / "r.csv", "--other-judge"]
    shown = done(demur(*arguments, "paper", "--output", tmp_path / "out"))
    assert "Agreement of further judges with the judge of these rates" in shown
    assert "66.7 %" in shown
    assert "There is no refusal judge 'papre'" in mistake(demur(*arguments, "papre"))
