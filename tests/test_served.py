"""The evaluation of a server: what is sent, what is kept, what is said when it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur import DemurError, SafetyPrompt
from demur.cli.app import app
from demur.evaluation import served
from demur.evaluation.served import AS_SERVED, evaluate_endpoint
from tests.endpoint_server import Endpoint, Reply, completion, running_server

REFUSAL = "I'm sorry, but I can't help with that."
HARMFUL = [f"harmful {number}" for number in range(8)]
HARMLESS = [f"harmless {number}" for number in range(6)]


def answer(body: dict[str, Any]) -> Reply:
    """Refuses harmful queries, and with a system message half of the harmless ones as well."""
    query, prompted = body["messages"][-1]["content"], len(body["messages"]) > 1
    refuses = query in HARMFUL or (prompted and query in HARMLESS[:3])
    return completion(REFUSAL if refuses else "Here is how.")


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with running_server(answer, ("my-model",)) as state:
        yield state


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Any]:
    for name, queries in (("bad", HARMFUL), ("good", HARMLESS)):
        (tmp_path / f"{name}.txt").write_text("\n".join(queries))
    return {
        "harmful": str(tmp_path / "bad.txt"),
        "harmless": str(tmp_path / "good.txt"),
        "output": tmp_path / "out",
    }


def test_what_is_served_is_measured(server: Endpoint, sets: dict[str, Any]) -> None:
    comparison = evaluate_endpoint(server.url, prompts=[None, "long"], samples=2, **sets)
    assert comparison.find(AS_SERVED, label="harmful").refused.value == 1
    assert comparison.find(AS_SERVED, label="harmless").refused.value == 0
    assert comparison.find("long", label="harmless").refused.value == 0.5
    assert {request["model"] for request in server.requests} == {"my-model"}
    alone = [request for request in server.requests if len(request["messages"]) == 1]
    assert len(alone) == 2 * 14
    # Each response has luck of its own.
    assert len({request["seed"] for request in alone}) == len(alone)
    assert {(one["temperature"], one["top_p"], one["top_k"]) for one in alone} == {(1.0, 0.9, 50)}
    page = (comparison.path / "report.html").read_text(encoding="utf-8")
    assert f"--endpoint {server.url}" in page


def test_prompt_and_application_share_the_system_message(
    server: Endpoint, sets: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "system.txt").write_text("You sell shoes.\n")
    prompt = SafetyPrompt("mine", "Be careful.")
    evaluate_endpoint(
        server.url, prompts=[prompt], system_prompt=str(tmp_path / "system.txt"), **sets
    )
    openings = {request["messages"][0]["content"] for request in server.requests}
    assert openings == {"Be careful.\n\nYou sell shoes."}


def test_it_goes_on_where_it_stopped(
    server: Endpoint, sets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RESPONSES_AT_ONCE", 4)
    whole = evaluate_endpoint(server.url, **{**sets, "output": sets["output"].with_name("whole")})
    server.requests.clear()

    def failing(body: dict[str, Any]) -> Reply:
        return answer(body) if len(server.requests) <= 6 else (400, {"error": {"message": "no"}})

    server.reply = failing
    with pytest.raises(DemurError, match="400"):
        evaluate_endpoint(server.url, **sets)
    server.reply = answer
    server.requests.clear()
    again = evaluate_endpoint(server.url, **sets)
    asked = {request["messages"][-1]["content"] for request in server.requests}
    assert asked == {*HARMFUL[4:], *HARMLESS}
    assert [rates.refused for rates in again.rates] == [rates.refused for rates in whole.rates]
    server.requests.clear()
    assert evaluate_endpoint(server.url, **sets).rates == again.rates
    assert server.requests == []


def test_failures_that_may_pass_are_tried_again(server: Endpoint, sets: dict[str, Any]) -> None:
    server.failures = [(503, {"error": {"message": "loading"}}), (429, {"error": {}})]
    comparison = evaluate_endpoint(server.url, concurrency=3, **sets)
    assert comparison.find(AS_SERVED, label="harmful").refused.value == 1
    assert server.most_at_once <= 3


@pytest.mark.parametrize("status", [400, 422])
def test_an_option_that_the_server_does_not_know_is_left_out(
    server: Endpoint, sets: dict[str, Any], status: int
) -> None:
    def strict(body: dict[str, Any]) -> Reply:
        return (status, {"error": {"message": "no top_k"}}) if "top_k" in body else answer(body)

    server.reply = strict
    comparison = evaluate_endpoint(server.url, **sets)
    assert comparison.find(AS_SERVED, label="harmless").refused.value == 0


def test_a_server_with_several_models_is_asked_for_one(sets: dict[str, Any]) -> None:
    with running_server(answer, ("a", "b")) as server:
        with pytest.raises(DemurError, match=r"2 models \(a, b\).*--served-model"):
            evaluate_endpoint(server.url, **sets)
        evaluate_endpoint(server.url, "b", **sets)
        assert {request["model"] for request in server.requests} == {"b"}


def test_a_trained_prompt_is_not_sent(server: Endpoint, sets: dict[str, Any]) -> None:
    with pytest.raises(DemurError, match="demur export"):
        evaluate_endpoint(
            server.url, prompts=[SafetyPrompt("run", None, torch.zeros(2, 4))], **sets
        )
    assert not sets["output"].exists()


def test_another_server_does_not_go_on_in_the_same_folder(
    server: Endpoint, sets: dict[str, Any]
) -> None:
    evaluate_endpoint(server.url, **sets)
    with pytest.raises(DemurError, match="model"):
        evaluate_endpoint(server.url, "another", **sets)


def test_the_command(server: Endpoint, sets: dict[str, Any]) -> None:
    options = [f"--{name}={value}" for name, value in sets.items()]
    found = CliRunner().invoke(app, ["evaluate", "--endpoint", server.url, *options])
    assert found.exit_code == 0, found.output
    assert AS_SERVED in found.stdout
    (file,) = (sets["output"] / "responses").glob("as-served-bad*")
    rows = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0])["response"] == REFUSAL


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--endpoint", "localhost:8000"], "base URL"),
        (["--served-model", "x"], "--endpoint"),
        (["my-model", "--endpoint", "http://localhost:9/v1"], "leave out a model"),
        (["--endpoint", "http://localhost:9/v1", "--instructions", "built-in"], "--instructions"),
        (["--endpoint", "http://localhost:9/v1", "--timeout", "0"], "time-out"),
    ],
)
def test_mistakes_are_named(options: list[str], says: str) -> None:
    found = CliRunner().invoke(app, ["evaluate", *options])
    assert isinstance(found.exception, DemurError)
    assert says in str(found.exception)
