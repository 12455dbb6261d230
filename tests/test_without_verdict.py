"""A query that no judge can tell is left out of what needs a verdict, counted and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, DemurError, Run, diagnose, optimize
from demur.diagnosis.movement import draw_movement
from demur.records import with_verdicts
from demur.report import write_report
from tests.report_pages import read
from tests.telling import Telling
from tests.tiny import save_tiny_model

HARMFUL = [f"w{10 + row % 40} w7 w{row} ?" for row in range(20)]
HARMLESS = [f"w{10 + row % 40} w8 w{row} ?" for row in range(20)]
LEFT_OUT = "because the judge had no verdict on any response to them under one of the prompts."


class Undecided:
    """Refuses where a response begins with an even number; cannot tell for one of the queries."""

    name = "undecided"
    fingerprint = "1"

    def judge(
        self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
    ) -> list[bool | None]:
        first = [(one.split() or ["1"])[0].strip("w.?") for one in responses]
        return [
            None if query in (HARMFUL[3], HARMFUL[15]) else word[-1:] in "02468"
            for query, word in zip(queries, first, strict=True)
        ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return ChatModel.load(
        save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"), dtype="float32"
    )


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {
        "preset": "quick",
        "harmful": HARMFUL,
        "harmless": HARMLESS,
        "judge": Undecided(),
        "samples": 4,
        "tokens_harmful": 4,
        "tokens_harmless": 4,
        "most_anchors": 20,
    }


def trained(model: ChatModel, arguments: dict[str, Any], told: Telling, method: str) -> Run:
    Path("basic.txt").write_text("w1 w2 w3 w4 w5 .")
    return optimize(
        model,
        **arguments,
        basic_prompt="basic.txt",
        held_out_harmful=HARMFUL,
        held_out_harmless=HARMLESS,
        most_held_out=20,
        method=method,
        epochs=2,
        batch=8,
        output="run",
        progress=told,
    )


@pytest.mark.parametrize("method", ["dro", "likelihood"])
def test_a_run_and_its_report(model: ChatModel, arguments: dict[str, Any], method: str) -> None:
    told = Telling()
    run = trained(model, arguments, told, method)
    if method == "dro":  # which estimates its directions from the responses to its anchors
        assert any(one.startswith("Left out: 2 of 40 queries of ") for one in told.messages)
    page = read(write_report(run))
    assert page.data[0]["frame"] is not None
    held_out = page.data[0]["views"][0]
    shown = [page.data[0]["queries"][place][0] for place in held_out["queries"]]
    assert sorted(shown) == sorted({*HARMFUL, *HARMLESS} - {HARMFUL[3], HARMFUL[15]})
    words = " ".join(" ".join(page.words).split())
    assert "Left out: 2 of 40 queries of" in words
    assert LEFT_OUT in words
    assert draw_movement(run) is not None
    if method == "likelihood":  # which samples its anchors again after an epoch
        (again,) = (one for one in run.steps() if one.refusal_rates is not None)
        assert again.refusal_rates is not None
        assert None in again.refusal_rates
        training = page.data[0]["views"][-1]
        assert training["title"] == "Epoch by epoch"
        assert 38 <= len(training["queries"]) < 40


def test_a_diagnosis_and_its_report(model: ChatModel, arguments: dict[str, Any]) -> None:
    Path("basic.txt").write_text("w1 w2 w3 w4 w5 .")
    told = Telling()
    folds = 80  # as many as there are readings of all queries
    found = diagnose(
        model, **arguments, prompts=["basic.txt"], folds=folds, output="d", progress=told
    )
    (remark,) = (one for one in told.messages if one.startswith("Left out: 2 of 40 queries of "))
    assert found.verdict[-1] == remark
    assert [one.harmful_refused.queries for one in found.sheet.conditions] == [18, 18]
    assert [one.harmless_refused.queries for one in found.sheet.conditions] == [20, 20]
    assert len(found.anchors()[0].queries) == 40  # the responses themselves are kept
    page = read(write_report(found))
    assert len(page.data[0]["views"][0]["queries"]) == 38
    assert remark in " ".join(" ".join(page.words).split())


def test_most_must_have_a_verdict(model: ChatModel, arguments: dict[str, Any]) -> None:
    class Silent(Undecided):
        fingerprint = "2"

        def judge(self, queries: Any, responses: Any, progress: object = None) -> Any:
            return [None if " w8 " in query else True for query in queries]

    changed = {**arguments, "judge": Silent(), "prompts": ["long"], "output": "d"}
    with pytest.raises(DemurError, match="no verdict on any response to the query 'w10 w8 w0"):
        diagnose(model, **changed)


def test_the_others_stay_as_they_are(model: ChatModel, arguments: dict[str, Any]) -> None:
    Path("basic.txt").write_text("w1 w2 w3 w4 w5 .")
    found = diagnose(model, **arguments, prompts=["basic.txt"], output="d").anchors()
    kept = with_verdicts(found)
    left = [
        row for row in range(40) if found[0].queries.texts[row] not in (HARMFUL[3], HARMFUL[15])
    ]
    for before, after in zip(found, kept, strict=True):
        assert after.queries.texts == tuple(before.queries.texts[row] for row in left)
        assert after.refusal_rates() == [before.known_refusal_rates()[row] for row in left]
        assert after.states.equal(before.states[left])
    assert with_verdicts(kept) == kept
    assert with_verdicts(()) == ()
