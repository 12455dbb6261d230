"""One judge everywhere: the same texts have the same rates in a run and in an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demur import (
    ChatModel,
    Comparison,
    ResponseFiles,
    Run,
    compare_evaluations,
    diagnose,
    evaluate,
    optimize,
)
from demur.evaluation.captions import judged_text
from demur.evaluation.figures import Figures
from tests.command_line import demur, done, mistake
from tests.test_optimize import HARMFUL, HARMLESS, TEXT
from tests.tiny import save_tiny_model

TOKENS = 16
SETTINGS: dict[str, Any] = {
    "preset": "quick",
    "method": "dro",
    "samples": 3,
    "epochs": 1,
    "batch": 8,
    "learning_rate": 0.05,
    "most_anchors": 20,
    "most_held_out": 10,
}


class Words:
    """A judge of three verdicts, all of which the tiny model's words get."""

    name = fingerprint = "words"
    tells_deflections = True

    def judge(self, queries: Any, responses: list[str], progress: object = None) -> list[str]:
        verdicts = ("refuses", "deflects", "answers")
        return [verdicts[sum(map(ord, response)) % 3] for response in responses]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture(params=["paper", Words], ids=["two verdicts", "three verdicts"])
def run(
    model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> tuple[Run, Any]:
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text(TEXT)
    Path("bad.txt").write_text("\n".join(HARMFUL))
    Path("good.txt").write_text("\n".join(HARMLESS))
    judge = request.param if isinstance(request.param, str) else request.param()
    found = optimize(
        model,
        basic_prompt="basic.txt",
        harmful="bad.txt",
        harmless="good.txt",
        judge=judge,
        tokens=TOKENS,
        output="run",
        **SETTINGS,
    )
    return found, judge


def rates_of(figures: Figures) -> dict[tuple[str, str | None], tuple[Any, ...]]:
    return {
        (one.prompt, one.label): (one.responses, one.refused, one.deflected, one.answered)
        for one in figures.rates
        if one.category is None
    }


def held_out(run: Run) -> list[dict[str, Any]]:
    """The stored responses that the table of the run counts."""
    names = {one.set for one in run.comparison.rates}
    rows = [
        json.loads(line)
        for file in sorted((run.path / "measurements").glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return [row for row in rows if row["set"] in names]


def test_the_same_texts_have_the_same_rates(run: tuple[Run, Any]) -> None:
    found, judge = run
    table = rates_of(found.comparison)
    assert len(table) == 6
    assert len({rates[1:] for rates in table.values()}) > 1
    rows = held_out(found)
    fields = ("prompt", "set", "label", "query", "response", "end")
    lines = [json.dumps({name: row[name] for name in fields}) for row in rows]
    Path("texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    again = evaluate(ResponseFiles(["texts.jsonl"]), judge=judge, output="again")
    assert rates_of(again) == table


def test_the_same_prompts_have_the_same_rates_with_the_same_tokens(
    model: ChatModel, run: tuple[Run, Any]
) -> None:
    found, judge = run
    table = rates_of(found.comparison)
    queries = {
        label: dict.fromkeys(row["query"] for row in held_out(found) if row["label"] == label)
        for label in ("harmful", "harmless")
    }
    again = evaluate(
        model,
        prompts=[None, "basic.txt", found.path],
        harmful=list(queries["harmful"]),
        harmless=list(queries["harmless"]),
        judge=judge,
        samples=SETTINGS["samples"],
        tokens=TOKENS,
        output="again",
    )
    assert list(rates_of(again).values()) == list(table.values())


def test_every_table_says_which_judge_and_how_many_tokens(
    model: ChatModel, run: tuple[Run, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.diagnosis.work.draw_figures", lambda *_: ())
    found, judge = run
    name = judge if isinstance(judge, str) else judge.name
    told = judged_text(name, TOKENS, SETTINGS["samples"])
    assert told == found.judged
    assert f"{TOKENS} tokens" in told
    shown = done(demur("show", "run"))
    assert told in " ".join(shown.split())
    diagnose(model, run=found, judge=None if isinstance(judge, str) else judge, output="d")
    assert told in " ".join(done(demur("show", "d")).split())
    texts = [json.dumps({"prompt": "a", "label": "harmful", "response": "w1", "query": "q"})]
    for name in ("one", "two"):
        Path(f"{name}.jsonl").write_text("\n".join(texts))
        evaluate(ResponseFiles([f"{name}.jsonl"]), output=name)
    assert compare_evaluations("one", "two").judged == Comparison.load("two").judged
    assert "judge: default" in " ".join(done(demur("show", "one")).split())


def test_the_costs_of_two_runs_are_set_side_by_side(model: ChatModel, run: tuple[Run, Any]) -> None:
    found, judge = run
    if not isinstance(judge, str):
        pytest.skip("one judge is enough")
    again = {**SETTINGS, "learning_rate": 0.02, "epochs": 2}
    prompts: dict[str, Any] = {"basic_prompt": "basic.txt", "judge": judge, "tokens": TOKENS}
    prompts |= {"harmful": "bad.txt", "harmless": "good.txt"}
    other = optimize(model, **prompts, **again, output="other")
    shown = " ".join(done(demur("compare", "run", "other")).split())
    assert "Cost on harmless queries: other compared with run" in shown
    for one in (found, other):
        assert str(one.comparison.costs[-1]) in shown
    assert "demur evaluate --prompt run --prompt other" in shown
    assert "is compared with itself" in mistake(demur("compare", "run", "run"))
    line = mistake(demur("compare", "run", "other", "--require", "harmful>=10%"))
    assert "put both runs into one with demur evaluate" in line
    optimize(model, **prompts, **{**again, "most_held_out": 8}, output="fewer")
    assert "there is nothing to set side by side" in " ".join(
        done(demur("compare", "run", "fewer")).split()
    )
