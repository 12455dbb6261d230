"""A model here that writes nothing gives no answer, as a server that sends none does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, evaluate
from demur.evaluation.answerers.protocol import Answer
from demur.evaluation.judging import Judges
from demur.judges import DefaultRefusalJudge, PaperRefusalJudge
from demur.records import Label
from demur.report import write_report
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


def write(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Let the model's responses to each query be some texts."""
    sample = ChatModel.read_and_sample

    def scripted(self: ChatModel, *args: Any, **options: Any) -> Any:
        reading = sample(self, *args, **options)
        samples = [
            [replace(one, text=text, end="stop") for one, text in zip(each, texts, strict=True)]
            for each in reading.samples
        ]
        return replace(reading, samples=samples)

    monkeypatch.setattr(ChatModel, "read_and_sample", scripted)


def arguments(tmp_path: Path, samples: int) -> dict[str, Any]:
    return {
        "prompts": ["none"],
        "harmful": ["w7 w1 ?", "w7 w2 ?"],
        "harmless": ["w8 w1 ?", "w8 w2 ?"],
        "samples": samples,
        "tokens": 4,
        "judge": "paper",
        "output": tmp_path / "out",
    }


def test_blank_answers_of_a_model_are_counted_and_in_no_rate(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(monkeypatch, "", " \n\t", "I'm sorry, but I can't help with that.", "Sure, w1.")
    comparison = evaluate(model, **arguments(tmp_path, 4))
    labels: tuple[Label, ...] = ("harmful", "harmless")
    for label in labels:
        rates = comparison.find("none", label=label)
        assert (rates.responses, rates.no_answer) == (8, 4)
        assert rates.refused is not None
        assert (rates.refused.value, rates.refused.queries) == (0.5, 2)
    assert {row.end for row in comparison.responses()} == {"no answer", "stop"}
    assert "4 of 8 responses held no answer" in str(comparison)
    report = write_report(tmp_path / "out", tmp_path / "report.html").read_text()
    assert "4 no answer" in report
    assert comparison.measurements()[0].refusal_rates() == [0.5] * 4


def test_a_model_that_writes_nothing_has_no_rate(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(monkeypatch, "")
    comparison = evaluate(model, **arguments(tmp_path, 1))
    rates = comparison.find("none", label="harmful")
    assert (rates.responses, rates.no_answer, rates.refused) == (2, 2, None)
    # Methods need a number for every query, and none of these was refused.
    assert comparison.measurements()[0].refusal_rates() == [0.0] * 4


@pytest.mark.parametrize("judge", [DefaultRefusalJudge(), PaperRefusalJudge()])
@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000\u2028"])
def test_no_judge_is_asked_about_a_blank_answer(judge: Any, text: str) -> None:
    answer = Answer("none", None, "s", "harmless", None, "Why?", text, "length")
    (judged,) = Judges(judge).judged([answer])
    assert (judged.refused, judged.end, judged.is_answer) == (None, "no answer", False)
