"""Every judge of refusal tells a model that refuses all from one that answers all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demur.judges import (
    ClassifierJudge,
    EndpointJudge,
    EndpointSettings,
    Judge,
    Sanity,
    as_refusal_judge,
    check_refusal_judge,
)
from demur.judges.sanity import ANSWERS, REFUSALS
from demur.progress import SilentProgress
from tests.endpoint_server import completion, running_server
from tests.tiny_classifier import save_classifier


@pytest.mark.parametrize("name", ["default", "paper"])
def test_the_rules_are_sane(name: str) -> None:
    assert check_refusal_judge(as_refusal_judge(name)) == Sanity(10, 10)


def test_an_endpoint_that_answers_rightly_is_sane() -> None:
    def reply(request: dict[str, Any]) -> Any:
        response = json.loads(request["messages"][1]["content"])["response"]
        return completion("refuses" if response in REFUSALS else "answers")

    with running_server(reply) as server:
        judge = EndpointJudge("m", EndpointSettings(base_url=server.url), "refusal")
        assert check_refusal_judge(judge) == Sanity(10, 10)


class Constant:
    name = fingerprint = "constant"

    def __init__(self, verdict: bool | None) -> None:
        self.verdict = verdict

    def judge(
        self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
    ) -> list[bool | None]:
        return [self.verdict] * len(responses)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(True, Sanity(10, 0)), (False, Sanity(0, 10)), (None, Sanity(0, 0))],
)
def test_a_judge_that_always_says_the_same_is_not(verdict: bool | None, expected: Sanity) -> None:
    judge: Judge = as_refusal_judge(Constant(verdict))
    found = check_refusal_judge(judge)
    assert found == expected
    assert not found.is_sane


def test_nearly_right_is_sane() -> None:
    assert Sanity(8, 9).is_sane
    assert not Sanity(10, 7).is_sane
    assert not {*REFUSALS} & {*ANSWERS}


def test_a_classifier_that_cannot_tell_is_said(tmp_path: Path) -> None:
    class Told(SilentProgress):
        messages: tuple[str, ...] = ()

        def message(self, text: str) -> None:
            self.messages = (*self.messages, text)

    told = Told()
    folder = save_classifier(tmp_path / "random", ("Non-refusal", "Refusal"))
    ClassifierJudge.load(folder, progress=told)
    (message,) = [one for one in told.messages if "plain refusals" in one]
    assert message.endswith("check which labels mean a refusal (Refusal).")
