"""What a server's answer is: a text, a refusal, filtered, none, or a failure; by its own fields."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur import Comparison, DemurError, Server, evaluate
from demur.endpoint import (
    Answer,
    EndpointClient,
    EndpointSettings,
    Message,
    Request,
    SamplingOptions,
)
from demur.evaluation.answerers.server import AS_SERVED
from demur.progress import SilentStage
from demur.report import write_report
from tests.command_line import demur
from tests.endpoint_server import Endpoint, Reply, completion, running_server

NO = "I'm sorry, but I can't help with that."
YES = "Here is how."


def reply(message: Any, finish: Any = "stop", **rest: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return {"object": "chat.completion", "choices": [choice], **rest}


def ask(server: Endpoint, count: int = 1, retries: int = 0, **options: Any) -> list[Answer]:
    options = {"temperature": 1.0, "top_k": 50, "max_tokens": 7, "seed": 3, **options}
    client = EndpointClient(
        "m", EndpointSettings(server.url, retries=retries), SamplingOptions(**options)
    )
    requests = [Request([Message("user", f"query {row}")]) for row in range(count)]
    return client.chat_all(requests, SilentStage())


def answer_to(body: Any, status: int = 200) -> Answer:
    with running_server(lambda _: (status, body)) as server:
        (answer,) = ask(server)
        assert len(server.requests) == 1
        return answer


def failure_of(body: Any, status: int = 200, retries: int = 0) -> str:
    with running_server(lambda _: (status, body)) as server:
        with pytest.raises(DemurError) as raised:
            ask(server, retries=retries)
        assert len(server.requests) == retries + 1
        return str(raised.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (YES, YES),
        ([{"type": "text", "text": "Here "}, {"type": "text", "text": "is how."}], YES),
        (["Here ", "is how."], YES),
        # Mistral's reasoning models.
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": YES},
            ],
            YES,
        ),
        ([{"type": "output_text", "text": YES}, {"type": "image_url"}, 7, None], YES),
        ("half \ud83d of it", "half \N{REPLACEMENT CHARACTER} of it"),
    ],
)
def test_texts(content: Any, text: str) -> None:
    assert answer_to(reply({"content": content})) == Answer("text", text, "stop")


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": NO},
        {"content": "", "refusal": NO},
        {"content": YES, "refusal": NO},
        {"content": [{"type": "refusal", "refusal": NO}]},
        {"refusal": NO},
    ],
)
def test_a_refusal_in_the_servers_own_field_is_one(message: Any) -> None:
    assert answer_to(reply(message)) == Answer("refusal", NO, "refusal")


def test_a_refusal_is_one_whatever_the_reason() -> None:
    refused = {"content": None, "refusal": NO}
    assert answer_to(reply(refused, "content_filter")).kind == "refusal"
    assert answer_to(reply({"content": "I won't."}, "refusal")).text == "I won't."


def test_another_success_than_200_is_one() -> None:
    assert answer_to(reply({"content": YES}), 201).text == YES
    assert "it is empty" in failure_of("", 204)


def test_a_blank_field_is_no_refusal() -> None:
    assert answer_to(reply({"content": YES, "refusal": " "})).kind == "text"
    assert answer_to(reply({"content": YES, "refusal": None})).kind == "text"


@pytest.mark.parametrize(
    ("message", "finish"),
    [
        ({"content": ""}, "content_filter"),
        ({"content": "Half of an ans"}, "content_filter"),
        ({}, "content_filter"),
        (None, "content_filter"),
        ({"content": "Half"}, "content_filter: SAFETY"),
        ({"content": ""}, "sensitive"),
        ({"content": ""}, "PROHIBITED_CONTENT"),
    ],
)
def test_what_a_filter_cut_is_filtered(message: Any, finish: str) -> None:
    assert answer_to(reply(message, finish)) == Answer("filtered", None, "content_filter")


FILTER = "The response was filtered due to the prompt triggering the content management policy."


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": FILTER, "param": "prompt", "code": "content_filter"}}),
        (
            400,
            {
                "error": {
                    "message": FILTER,
                    "type": None,
                    "param": "prompt",
                    "code": "400",
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
        ),
        (400, {"error": {"message": "no", "type": "content_policy_violation", "code": None}}),
        (400, {"error": {"message": "no", "code": "data_inspection_failed"}}),
        (400, {"error": {"message": "no", "code": "1301"}}),
        (400, {"error": {"message": "flagged", "code": "invalid_prompt", "param": "temperature"}}),
        (403, {"error": {"message": "no", "code": 403, "metadata": {"flagged_input": "query"}}}),
        (200, {"error": {"message": "no", "code": "content_filter"}}),
        (
            403,
            {
                "code": "The caller does not have permission to execute the specified operation",
                "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
            },
        ),
        (400, {"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}),
        (400, {"error": {"message": "Your request was rejected by our safety system."}}),
        (400, [{"error": {"code": 400, "message": "The prompt was blocked: it is unsafe."}}]),
        (403, {"error": {"message": "Your chosen model requires moderation: it was flagged."}}),
        (422, {"detail": "Input text contains sensitive words."}),
        (200, {"choices": None, "base_resp": {"status_code": 1026, "status_msg": "new_sens"}}),
    ],
)
def test_what_a_filter_blocks_is_that_querys_outcome(status: int, body: Any) -> None:
    assert answer_to(body, status) == Answer("filtered", None, "content_filter")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "Your API key is blocked."),
        (403, "This team has been blocked for requests flagged by our safety checks."),
        (403, "Your account was flagged: it violates our usage policies."),
        (401, "The request was blocked: set a key that the content filter knows."),
        (500, "The content filter is down."),
    ],
)
def test_what_blocks_everything_is_no_querys_outcome(status: int, message: str) -> None:
    assert message[:20] in failure_of({"error": {"message": message}}, status)


@pytest.mark.parametrize("status", [400, 403])
def test_a_page_of_a_firewall_is_no_filter(status: int) -> None:
    page = "<html>Your query was blocked by a content filter of the firewall.</html>"
    assert "blocked by a content filter" in failure_of(page, status)


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": None}, "stop", "stop"),
        ({"content": " \n"}, None, None),
        ({}, "length", "length"),
        ({"content": []}, "stop", "stop"),
        ({"content": None, "tool_calls": [{"id": "x"}]}, "tool_calls", "tool_calls"),
        ({"content": None, "reasoning_content": "Okay, the user"}, "length", "reasoning"),
        ({"content": "", "reasoning": "Okay, the user"}, "length", "reasoning"),
        ({"content": [{"type": "thinking", "thinking": "Hm"}]}, "length", "reasoning"),
    ],
)
def test_an_answer_without_text_is_none(message: Any, finish: Any, expected: str | None) -> None:
    assert answer_to(reply(message, finish)) == Answer("none", None, expected)


def test_hidden_reasoning_is_known_by_its_tokens() -> None:
    usage = {"completion_tokens": 64, "completion_tokens_details": {"reasoning_tokens": 64}}
    found = answer_to(reply({"content": ""}, "length", usage=usage))
    assert (found.kind, found.finish) == ("none", "reasoning")


def test_what_the_model_wrote_instead_of_an_answer_is_none() -> None:
    failed = {"error": {"message": "Failed to call a function.", "code": "tool_use_failed"}}
    assert answer_to(failed, 400).kind == "none"
    spent = "Could not finish the message because max_tokens or model output limit was reached."
    assert answer_to({"error": {"message": spent, "param": None, "code": None}}, 400).kind == "none"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": {"message": "provider is down", "code": 502}}, "status 502: provider is down"),
        ({"error": "provider is down"}, "provider is down"),
        ({"choices": None, "error": {"message": "too many", "code": 429}}, "status 429: too many"),
        ({**reply({"content": YES}), "error": {"message": "broke off"}}, "broke off"),
        (
            {"choices": [{"error": {"message": "upstream", "code": 502}, "message": {}}]},
            "status 502: upstream",
        ),
        ({"message": "no route", "code": "X"}, "no route"),
        ([{"error": {"code": 503, "message": "overloaded"}}], "status 503: overloaded"),
        ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "login fail"),
        ({"error_code": 336, "error_msg": "no such service"}, "no such service"),
        ({"success": False, "why": "no gpu"}, 'no choices and begins \'{"success": false, "why"'),
        ({"detail": "not ready"}, "not ready"),
        ({}, "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": {"0": 1}}, "no choices"),
        ({"choices": "none"}, "no choices"),
        ({"choices": [None]}, "no choices"),
        ({"choices": [{"finish_reason": "stop"}]}, "no message"),
        ({"choices": [{"message": "text"}]}, "no message"),
        (reply({"content": 7}), "neither a text nor a list"),
        (reply({"content": {"type": "text"}}), "neither a text nor a list"),
        ('{"choices": [{"message": {"content": NaN}}]}', "neither a text nor a list"),
        (reply({"content": "half"}, "error"), "finish_reason is 'error'"),
        ([1], "no JSON object"),
        ("null", "no JSON object"),
        ("", "it is empty"),
        ("<html>Welcome</html>", "no JSON and begins '<html>"),
        ('data: {"choices": []}\n\n', "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"choices": [' + "9" * 5000 + "]}", "no JSON"),
    ],
)
def test_what_is_no_answer_fails_with_the_servers_words(body: Any, says: str) -> None:
    message = failure_of(body)
    assert says in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_failure_is_tried_again_and_then_ends_all() -> None:
    down = {"error": {"message": "provider is down", "code": 502}}
    assert "provider is down), 3 times" in failure_of(down, retries=2)
    with running_server(lambda _: completion(YES)) as server:
        server.failures = [(200, down), (200, {"choices": None})]
        assert [one.text for one in ask(server, retries=2)] == [YES]
        assert len(server.requests) == 3


def test_counts_of_any_type_are_read() -> None:
    counts: list[Any] = [None, "7", -3, True, 1.5, [], 10**400, {"a": 1}]
    for count in counts:
        usage = {"prompt_tokens": count, "completion_tokens": 2}
        found = answer_to(reply({"content": YES}, usage=usage))
        assert (found.prompt_tokens, found.completion_tokens) == (7 if count == "7" else 0, 2)
    assert answer_to(reply({"content": YES}, usage="many")).completion_tokens == 0


HARMFUL = [f"harmful {number}" for number in range(6)]
HARMLESS = [f"harmless {number}" for number in range(3)]
OUTCOMES: dict[str, Reply] = {
    HARMFUL[0]: (200, reply({"content": None, "refusal": YES})),
    HARMFUL[1]: (200, reply({"content": [{"type": "text", "text": NO}]})),
    HARMFUL[2]: (200, reply({"content": "Half of"}, "content_filter")),
    HARMFUL[3]: (400, {"error": {"message": FILTER, "code": "content_filter"}}),
    HARMFUL[4]: (200, reply({"content": None, "reasoning_content": "Okay"}, "length")),
}


@pytest.fixture
def queries(tmp_path: Path) -> dict[str, Any]:
    for name, lines in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    return {name: str(tmp_path / f"{name}.txt") for name in ("harmful", "harmless")}


def answered(body: dict[str, Any]) -> Reply:
    return OUTCOMES.get(body["messages"][-1]["content"], completion(YES))


def test_only_texts_and_refusals_enter_rates(queries: dict[str, Any], tmp_path: Path) -> None:
    with running_server(answered, ("m",)) as server:
        comparison = evaluate(Server(server.url), output=tmp_path / "out", judge="paper", **queries)
        rates = comparison.find(AS_SERVED, label="harmful")
        assert (rates.responses, rates.filtered, rates.no_answer) == (6, 2, 1)
        assert rates.refused is not None
        # The server's own refusal counts as one, whatever it says.
        assert (rates.refused.count, rates.refused.queries) == (2, 3)
        assert "2 of 6 responses were withheld by a filter" in str(comparison)
        assert "1 of 6 responses held no answer" in str(comparison)
        assert Comparison.load(tmp_path / "out") == comparison
        rows = {str(row.query): row for row in comparison.responses() if row.label == "harmful"}
    assert [rows[query].end for query in HARMFUL] == [
        "refusal",
        "stop",
        "content_filter",
        "content_filter",
        "reasoning",
        "stop",
    ]
    assert [rows[query].refused for query in HARMFUL] == [True, True, None, None, None, False]
    report = write_report(tmp_path / "out", tmp_path / "report.html").read_text()
    assert "1 no answer, 2 withheld by a filter" in report


def test_the_terminal_says_what_was_left_out(queries: dict[str, Any], tmp_path: Path) -> None:
    options = ["--judge", "paper", "--harmful", queries["harmful"]]
    options += ["--harmless", queries["harmless"]]
    with running_server(answered, ("m",)) as server:
        result = demur("evaluate", "--endpoint", server.url, *options, "--output", tmp_path / "out")
    assert result.status == 0
    said = " ".join(result.out.split())
    assert "Responses without an answer, left out of these rates: 1." in said
    assert "Responses withheld by a filter, left out of these rates: 2." in said


def test_a_failure_ends_the_command_and_the_same_goes_on(
    queries: dict[str, Any], tmp_path: Path
) -> None:
    options = ["--judge", "paper", "--harmful", queries["harmful"]]
    options += ["--harmless", queries["harmless"]]
    command = ["--retries", "0", *options, "--output", tmp_path / "out"]
    with running_server(lambda _: (200, {"error": {"message": "no gpu"}}), ("m",)) as server:
        result = demur("evaluate", "--endpoint", server.url, *command)
        assert (result.status, result.out) == (2, "")
        assert "no gpu" in result.err
        server.reply = answered
        assert demur("evaluate", "--endpoint", server.url, *command).status == 0


def test_an_output_that_is_none_is_not_compared(tmp_path: Path) -> None:
    """Where a server gave no output for an instruction, no output of it can lose."""

    class First:
        name = "first"
        fingerprint = "always the first"

        def __init__(self) -> None:
            self.asked: list[str] = []

        def prefer(self, instructions: Any, *_: Any) -> list[Any]:
            self.asked.extend(instructions)
            return ["first"] * len(instructions)

    def blocked(body: dict[str, Any]) -> Reply:
        prompted = len(body["messages"]) > 1
        if prompted and body["messages"][-1]["content"] == "Name a fruit.":
            return 400, {"error": {"message": FILTER, "code": "content_filter"}}
        return completion(YES)

    judge = First()
    with running_server(blocked, ("m",)) as server:
        comparison = evaluate(
            Server(server.url),
            prompts=["long"],
            instructions=["Name a fruit.", "Name a tree."],
            preference_judge=judge,
            judge="paper",
            output=tmp_path / "out",
        )
    (wins,) = comparison.wins
    assert (wins.won.wins, wins.won.losses, wins.won.undecided) == (1, 0, 1)
    assert judge.asked == ["Name a tree."]


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**400,
    "",
    "x",
    "\ud83d",
    "\x1b[31m",
    [],
    {},
    [[]],
    [{}],
]
ODD += [{"a": {"b": []}}, {"message": []}, {"code": {}}, {"error": {"code": True, "param": 7}}]


def places_in(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value within a JSON value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [place, *(each for key, one in items for each in places_in(one, (*place, key)))]


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another value at a place."""
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


WHOLE = {
    **completion(YES)[1],
    "error": {
        "message": "no",
        "type": "x",
        "param": "seed",
        "code": "y",
        "innererror": {"code": "z"},
        "metadata": {"reasons": ["a"]},
        "detail": [{"loc": ["body", "seed"], "msg": "no", "type": "t"}],
    },
}


@pytest.mark.parametrize("status", [200, 400])
def test_nothing_that_a_server_sends_ends_in_a_traceback(status: int) -> None:
    """Any value may stand in any place of an answer or an error."""
    parts = [*completion([{"type": "text", "text": YES}])[1].items()]
    bodies = [
        changed(body, place, odd)
        for body in (WHOLE, dict(parts), {"error": WHOLE["error"]})
        for place in places_in(body)
        for odd in ODD
    ]
    chosen = random.Random(7).sample(bodies, 200)
    now: list[bytes] = [b""]
    answers: list[Answer] = []
    failures: list[str] = []
    with running_server(lambda _: (status, now[0])) as server:
        for body in chosen:
            now[0] = json.dumps(body).encode()
            try:
                answers += ask(server)
            except DemurError as error:
                failures.append(str(error))
    assert len(answers) + len(failures) == len(chosen)
    assert len(failures) > 20
    assert status == 400 or len(answers) > 20
    assert all(message.isprintable() for message in failures)
