"""The evaluation of a server: what is sent, what is kept, what is said when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur import Comparison, DemurError, ResponseFiles, SafetyPrompt, Server, evaluate
from demur.evaluation.answerers import server as server_answerer
from demur.evaluation.answerers.server import AS_SERVED
from demur.judges.protocol import Decision
from demur.records import ServerRecord
from tests.endpoint_server import Endpoint, Reply, completion, running_server

REFUSAL = "I'm sorry, but I can't help with that."
HARMFUL = [f"harmful {number}" for number in range(8)]
HARMLESS = [f"harmless {number}" for number in range(6)]


def answer(body: dict[str, Any]) -> Reply:
    """Refuses harmful queries, and with a system message half of the harmless ones as well."""
    query, prompted = body["messages"][-1]["content"], len(body["messages"]) > 1
    refuses = query in HARMFUL or (prompted and query in HARMLESS[:3])
    return completion(REFUSAL if refuses else "Here is how.")


def refused(comparison: Comparison, prompt: str, label: Any) -> float:
    rate = comparison.find(prompt, label=label).refused
    assert rate is not None
    return rate.value


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
    comparison = evaluate(Server(server.url), prompts=[None, "long"], samples=2, **sets)
    assert refused(comparison, AS_SERVED, "harmful") == 1
    assert refused(comparison, AS_SERVED, "harmless") == 0
    assert refused(comparison, "long", "harmless") == 0.5
    assert {request["model"] for request in server.requests} == {"my-model"}
    alone = [request for request in server.requests if len(request["messages"]) == 1]
    assert len(alone) == 2 * 14
    # Each response has a seed of its own.
    assert len({request["seed"] for request in alone}) == len(alone)
    assert {(one["temperature"], one["top_p"], one["top_k"]) for one in alone} == {(1.0, 0.9, 50)}
    assert comparison.settings is not None
    assert comparison.settings.answerer == ServerRecord("my-model", f"{server.url}/")
    assert comparison.settings.source == Server(server.url).settings
    assert comparison.costs == ()


def test_prompt_and_application_share_the_system_message(
    server: Endpoint, sets: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "system.txt").write_text("You sell shoes.\n")
    prompt = SafetyPrompt("mine", "Be careful.")
    evaluate(
        Server(server.url), prompts=[prompt], system_prompt=str(tmp_path / "system.txt"), **sets
    )
    openings = {request["messages"][0]["content"] for request in server.requests}
    assert openings == {"Be careful.\n\nYou sell shoes."}


def test_it_goes_on_where_it_stopped(
    server: Endpoint, sets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_answerer, "RESPONSES_AT_ONCE", 4)
    whole = evaluate(Server(server.url), **{**sets, "output": sets["output"].with_name("whole")})
    server.requests.clear()

    def failing(body: dict[str, Any]) -> Reply:
        return answer(body) if len(server.requests) <= 6 else (400, {"error": {"message": "no"}})

    server.reply = failing
    with pytest.raises(DemurError, match="400"):
        evaluate(Server(server.url), **sets)
    server.reply = answer
    server.requests.clear()
    again = evaluate(Server(server.url), **sets)
    asked = {request["messages"][-1]["content"] for request in server.requests}
    assert asked == {*HARMFUL[4:], *HARMLESS}
    assert [rates.refused for rates in again.rates] == [rates.refused for rates in whole.rates]
    server.requests.clear()
    assert evaluate(Server(server.url), **sets).rates == again.rates
    assert server.requests == []


def test_failures_that_may_pass_are_tried_again(server: Endpoint, sets: dict[str, Any]) -> None:
    server.failures = [(503, {"error": {"message": "loading"}}), (429, {"error": {}})]
    comparison = evaluate(Server(server.url, concurrency=3), **sets)
    assert refused(comparison, AS_SERVED, "harmful") == 1
    assert server.most_at_once <= 3


@pytest.mark.parametrize("status", [400, 422])
def test_an_option_that_the_server_does_not_know_is_left_out(
    server: Endpoint, sets: dict[str, Any], status: int
) -> None:
    def strict(body: dict[str, Any]) -> Reply:
        return (status, {"error": {"message": "no top_k"}}) if "top_k" in body else answer(body)

    server.reply = strict
    comparison = evaluate(Server(server.url), **sets)
    assert refused(comparison, AS_SERVED, "harmless") == 0


def test_a_server_with_several_models_is_asked_for_one(sets: dict[str, Any]) -> None:
    with running_server(answer, ("a", "b")) as server:
        with pytest.raises(DemurError, match=r"2 models \(a, b\).*--served-model"):
            evaluate(Server(server.url), **sets)
        evaluate(Server(server.url, "b"), **sets)
        assert {request["model"] for request in server.requests} == {"b"}


def test_a_trained_prompt_is_not_sent(server: Endpoint, sets: dict[str, Any]) -> None:
    with pytest.raises(DemurError, match="demur export"):
        evaluate(Server(server.url), prompts=[SafetyPrompt("run", None, torch.zeros(2, 4))], **sets)
    assert not sets["output"].exists()


def test_another_server_does_not_go_on_in_the_same_folder(
    server: Endpoint, sets: dict[str, Any]
) -> None:
    evaluate(Server(server.url), **sets)
    with pytest.raises(DemurError, match="another answerer"):
        evaluate(Server(server.url, "another"), **sets)


def test_an_answer_without_text_is_no_answer(server: Endpoint, sets: dict[str, Any]) -> None:
    def silent(body: dict[str, Any]) -> Reply:
        query = body["messages"][-1]["content"]
        texts: dict[str, Any] = {HARMFUL[0]: None, HARMFUL[1]: " \n", HARMFUL[2]: []}
        return completion(texts.get(query, REFUSAL))

    server.reply = silent
    comparison = evaluate(Server(server.url), **sets)
    rates = comparison.find(AS_SERVED, label="harmful")
    assert (rates.responses, rates.no_answer) == (8, 3)
    assert rates.refused is not None
    assert (rates.refused.count, rates.refused.queries) == (5, 5)
    assert "3 of 8 responses held no answer and are left out" in str(comparison)
    missing = [row for row in comparison.responses() if not row.is_answer]
    assert [(row.query, row.response, row.refused) for row in missing] == [
        (query, "", None) for query in HARMFUL[:3]
    ]
    assert Comparison.load(sets["output"]) == comparison
    files = sorted((sets["output"] / "measurements").glob("*.jsonl"))
    again = evaluate(ResponseFiles(files), output=sets["output"].with_name("again"))
    found = {(one.set, one.label): (one.no_answer, one.refused) for one in again.rates}
    assert found == {(one.set, one.label): (one.no_answer, one.refused) for one in comparison.rates}


def test_no_answer_at_all_is_no_rate(server: Endpoint, sets: dict[str, Any]) -> None:
    server.reply = lambda _: completion(None)
    comparison = evaluate(Server(server.url), **sets)
    assert {rates.refused for rates in comparison.rates} == {None}
    assert [rates.no_answer for rates in comparison.rates] == [8, 6]


def test_half_characters_are_replaced(server: Endpoint, sets: dict[str, Any]) -> None:
    seen: list[str] = []

    def judge(queries: Sequence[str | None], responses: Sequence[str]) -> list[Decision]:
        seen.extend(responses)
        return [False] * len(responses)

    # Sent as escapes in JSON, as a server does that cuts a text between two tokens.
    server.reply = lambda _: completion("half \ud83d and whole \ud83d\ude00")
    comparison = evaluate(Server(server.url), **sets, judge=judge)
    expected = "half \N{REPLACEMENT CHARACTER} and whole \N{GRINNING FACE}"
    assert {row.response for row in comparison.responses()} == {expected} == set(seen)


def test_outputs_for_instructions_come_from_a_server_too(
    server: Endpoint, sets: dict[str, Any]
) -> None:
    class First:
        name = "first"
        fingerprint = "always the first"

        def prefer(self, instructions: Sequence[str], *_: Any) -> list[Any]:
            return ["first"] * len(instructions)

    comparison = evaluate(
        Server(server.url),
        prompts=["long"],
        instructions=["Name a fruit.", "Name a tree."],
        preference_judge=First(),
        output=sets["output"],
    )
    assert [one.prompt for one in comparison.outputs] == [AS_SERVED, "long"]
    (wins,) = comparison.wins
    assert (wins.prompt, wins.baseline, wins.won.wins) == ("long", AS_SERVED, 2)
    assert {request["max_tokens"] for request in server.requests} == {300}


def test_a_prompt_may_be_called_as_served(server: Endpoint, sets: dict[str, Any]) -> None:
    comparison = evaluate(
        Server(server.url), prompts=[SafetyPrompt(AS_SERVED, "Be kind."), None], **sets
    )
    names = [rates.prompt for rates in comparison.rates if rates.label == "harmless"]
    assert names == [f"{AS_SERVED} (2)", AS_SERVED]
    assert refused(comparison, AS_SERVED, "harmless") == 0
    assert refused(comparison, f"{AS_SERVED} (2)", "harmless") == 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "localhost:8000"}, "not a base URL"),
        ({"base_url": "http://localhost:9/v1", "timeout": 0}, "time-out is 0"),
        ({"base_url": "http://localhost:9/v1", "concurrency": 0}, "concurrency is 0"),
        ({"base_url": "http://localhost:9/v1", "retries": -1}, "retries is -1"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DemurError, match=says):
        Server(**options)


def test_a_server_that_is_not_there_is_named(sets: dict[str, Any]) -> None:
    with pytest.raises(DemurError, match="cannot be reached: check the base URL"):
        evaluate(Server("http://127.0.0.1:9/v1", retries=0), **sets)
    assert not sets["output"].exists()
