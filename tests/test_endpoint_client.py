"""The client of an endpoint: limits under their newer name, and a ledger that keeps answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur.endpoint import (
    Answer,
    Asked,
    ChangedOptions,
    EndpointClient,
    EndpointSettings,
    Message,
    Request,
    SamplingOptions,
)
from demur.errors import DemurError
from demur.progress import SilentStage
from tests.endpoint_server import Reply, completion, running_server


def ask(client: EndpointClient, *texts: str) -> list[Answer]:
    requests = [
        Request([Message("user", text)], SamplingOptions(max_tokens=7, seed=1)) for text in texts
    ]
    return client.chat_all(requests, SilentStage())


def test_an_endpoint_that_wants_the_newer_limit_gets_it() -> None:
    def strict(body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {"error": {"message": message}}
        return completion("yes")

    with running_server(strict) as server:
        client = EndpointClient("m", EndpointSettings(server.url), SamplingOptions())
        assert [one.text for one in ask(client, "one", "two")] == ["yes", "yes"]
        ask(client, "three")
        assert client.changed_options == ChangedOptions(
            client.place, "m", (), "max_completion_tokens"
        )
        assert server.requests[-1]["max_completion_tokens"] == 7
        assert "max_tokens" not in server.requests[-1]


def test_a_limit_is_never_left_out() -> None:
    def strict(body: dict[str, Any]) -> Reply:
        wrong = [name for name in ("max_tokens", "max_completion_tokens") if name in body]
        hint = " Try max_completion_tokens." if wrong == ["max_tokens"] else ""
        return 400, {"error": {"message": f"no {wrong[0]}.{hint}", "param": wrong[0]}}

    with running_server(strict) as server:
        client = EndpointClient("m", EndpointSettings(server.url), SamplingOptions())
        with pytest.raises(DemurError, match="no max_completion_tokens"):
            ask(client, "one")
        sent = [{*request} & {"max_tokens", "max_completion_tokens"} for request in server.requests]
        assert sent == [{"max_tokens"}, {"max_completion_tokens"}]


class Memory:
    """Keeps answers, and refuses what is asked too often."""

    def __init__(self) -> None:
        self.kept: dict[Asked, Answer] = {}

    def recall(self, asked: Sequence[Asked]) -> list[Answer | None]:
        if len(asked) > 3:
            raise DemurError("Too much.")
        return [self.kept.get(one) for one in asked]

    def keep(self, asked: Asked, answer: Answer) -> None:
        assert asked not in self.kept
        self.kept[asked] = answer


def test_what_a_ledger_keeps_is_not_asked_again() -> None:
    with running_server(lambda body: completion(body["messages"][0]["content"], 5, 2)) as server:
        client = EndpointClient("m", EndpointSettings(server.url), SamplingOptions(temperature=0))
        client.ledger = memory = Memory()
        first = ask(client, "one", "two")
        assert first == [Answer("text", text, "stop", 5, 2) for text in ("one", "two")]
        assert ask(client, "two", "three") == [first[1], Answer("text", "three", "stop", 5, 2)]
        assert len(server.requests) == len(memory.kept) == 3
        (options,) = {one.options for one in memory.kept}
        assert options == SamplingOptions(temperature=0, max_tokens=7, seed=1)
        with pytest.raises(DemurError, match="Too much"):
            ask(client, "1", "2", "3", "4")
        assert len(server.requests) == 3


def test_what_was_left_out_is_known_of_kept_answers_too() -> None:
    def strict(body: dict[str, Any]) -> Reply:
        refused = "seed" in body
        return (400, {"error": {"message": "no seed"}}) if refused else completion("yes")

    with running_server(strict) as server:
        first, second = (
            EndpointClient("m", EndpointSettings(server.url), SamplingOptions()) for _ in range(2)
        )
        first.ledger = second.ledger = Memory()
        ask(first, "one")
        count = len(server.requests)
        assert second.changed_options is None
        ask(second, "one")
        assert len(server.requests) == count
        assert second.changed_options == first.changed_options
        assert second.changed_options == ChangedOptions(first.place, "m", ("seed",))


def test_answers_on_their_way_are_kept_when_another_fails() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        if body["messages"][0]["content"] == "bad":
            return 400, {"error": {"message": "no"}}
        return completion("yes")

    with running_server(reply) as server:
        settings = EndpointSettings(server.url, concurrency=3)
        client = EndpointClient("m", settings, SamplingOptions())
        client.ledger = memory = Memory()
        server.delay = 0.1
        with pytest.raises(DemurError, match="400"):
            ask(client, "bad", "one", "two")
        assert {one.messages[0].content for one in memory.kept} == {"one", "two"}


def test_the_variable_of_the_key_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("MY_KEY", "secret")
    with pytest.raises(DemurError, match="set NO_KEY"):
        EndpointClient("m", EndpointSettings(key_variable="NO_KEY"), SamplingOptions())
    with running_server(lambda body: (401, {"error": {"message": "no"}})) as server:
        settings = EndpointSettings(server.url, retries=0, key_variable="MY_KEY")
        with pytest.raises(DemurError, match="set MY_KEY") as raised:
            ask(EndpointClient("m", settings, SamplingOptions()), "one")
        assert server.keys == ["Bearer secret"]
        assert "secret" not in str(raised.value)
