"""Conversations and turns, measured: by a model, by a server, in files, and in training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demur import (
    ChatModel,
    Comparison,
    Condition,
    Conversation,
    DemurError,
    ResponseFiles,
    Run,
    SafetyPrompt,
    Server,
    evaluate,
    optimize,
    write_report,
)
from demur.chat.engine import SamplingSettings
from demur.evaluation.answerers import model as model_answerer
from demur.judges.protocol import Decision
from demur.progress import Progress
from demur.queries import QuerySet, in_turn, labelled, load_histories, mix_conversations
from demur.records import (
    JudgedResponse,
    Label,
    Query,
    history_of,
    text_of,
    transcript_of,
)
from tests.command_line import demur, done, mistake
from tests.endpoint_server import Reply, completion, running_server
from tests.interruption import check_interrupts, content
from tests.tiny import save_tiny_model

HISTORY = (("w20 ?", "w21 w22 ."),)
BEHIND = Conversation("w7 w0 ?", HISTORY)
HARMFUL: list[Query] = [
    "w7 w0 ?",
    BEHIND,
    *(f"w7 w{row} ?" for row in range(1, 6)),
    Conversation("w9 ?", (*HISTORY, ("w23", "w24"))),
]
HARMLESS: list[Query] = [*(f"w8 w{row} ?" for row in range(5)), Conversation("w8 w0 ?", HISTORY)]
HELD_OUT = [
    QuerySet("mine", "harmful", tuple(HARMFUL)),
    QuerySet("mine", "harmless", tuple(HARMLESS)),
]


class Remembering:
    """Refuses by the letters of the response; remembers the queries that it was asked about."""

    name = fingerprint = "remembering"

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        self.asked += queries
        return [sum(map(ord, response)) % 2 == 0 for response in responses]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "prompts": [None, SafetyPrompt("basic", "w1 w2 w3 .")],
        "harmful": HARMFUL,
        "harmless": HARMLESS,
        "samples": 2,
        "tokens": 5,
        "judge": "paper",
        "output": tmp_path / "out",
    }


def rows_of(comparison: Comparison, prompt: str, set: str) -> list[JudgedResponse]:
    return [row for row in comparison.responses() if (row.prompt, row.set) == (prompt, set)]


def test_each_query_is_measured_behind_its_own_history(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    judge = Remembering()
    comparison = evaluate(model, **{**arguments, "judge": judge})
    settings = SamplingSettings(samples=2, most_tokens=5)
    for prompt in arguments["prompts"]:
        name = "none" if prompt is None else "basic"
        rows = rows_of(comparison, name, "own queries")
        assert [row.query for row in rows[::2]] == [*HARMFUL, *HARMLESS]
        for query in (HARMFUL[0], BEHIND, HARMLESS[-1]):
            ((one, other),) = model.read_and_sample([query], Condition(prompt), settings).samples
            texts = [row.response for row in rows if row.query == query]
            assert texts == [one.text, other.text]
        rates = comparison.find(name, label="harmful")
        assert rates.refused is not None
        assert rates.refused.queries == len(HARMFUL)  # the same text counts once with each history
    assert [one.queries for one in comparison.differences] == [8, 6]
    assert [cost.queries for cost in comparison.costs] == [6, 6]
    # A judge reads what was said before.
    assert {transcript_of(query) for query in [*HARMFUL, *HARMLESS]} == {*judge.asked}
    assert "User: w20 ?\n\nAssistant: w21 w22 .\n\nUser: w7 w0 ?" in judge.asked
    assert Comparison.load(comparison.folder) == comparison
    ((first, *_),) = [one.responses[1:2] for one in comparison.measurements()[:1]]
    assert first[0].query == BEHIND


def test_an_evaluation_of_conversations_goes_on(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_answerer, "RESPONSES_AT_ONCE", 6)
    arguments |= {"turns": (1, 3), "samples": 1, "prompts": [None]}
    assert check_interrupts(lambda: evaluate(model, **arguments), arguments["output"], every=9) > 5


def test_another_history_is_another_choice_of_queries(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    arguments |= {"samples": 1, "prompts": [None]}
    evaluate(model, **arguments)
    for other in (
        {"harmful": [*map(text_of, HARMFUL[1:]), "w30"]},
        {"turns": [3]},
        {"turns": [1, 3]},
    ):
        with pytest.raises(DemurError, match="another choice of queries"):
            evaluate(model, **{**arguments, **other})


def test_first_and_third_turn_stand_side_by_side(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    both = evaluate(model, **arguments, turns=(1, 3), seed=5)
    names = ["own queries", "own queries, third turn"]
    wholes = [rates for rates in both.rates if rates.category is None]
    assert [(one.set, one.label, one.prompt) for one in wholes] == [
        (name, label, prompt)
        for name in names
        for label in ("harmful", "harmless")
        for prompt in ("none", "basic")
    ]
    first, third = (rows_of(both, "basic", name) for name in names)
    third_turn = in_turn(QuerySet("q", "harmful", (*HARMFUL, *HARMLESS)), 3, seed=5)
    assert [row.query for row in first[::2]] == [*HARMFUL, *HARMLESS]
    assert [row.query for row in third[::2]] == [*third_turn]
    for row in third:
        assert row.query is not None
        assert history_of(row.query)[:2] in load_histories("measurement")
    # Each turn alone comes to the same figures.
    for turn, name in zip((1, 3), names, strict=True):
        output = tmp_path / f"turn {turn}"
        alone = evaluate(model, **{**arguments, "output": output}, turns=[turn], seed=5)
        assert [one for one in both.rates if one.set == name] == list(alone.rates)
        assert [one for one in both.costs if one.set == name] == list(alone.costs)
    page = write_report([both], tmp_path / "report.html").read_text()
    assert "own queries, third turn" in page
    assert "User: w20 ?" in page


@pytest.mark.parametrize("turns", [[2], [], [1, 1], [1, 2]])
def test_there_are_two_turns(model: ChatModel, arguments: dict[str, Any], turns: list[int]) -> None:
    with pytest.raises(DemurError, match="must be 1 or 3"):
        evaluate(model, **arguments, turns=turns)


def test_files_have_no_turns(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("response\nHello.\n")
    with pytest.raises(DemurError, match="leave out turns"):
        evaluate(ResponseFiles([tmp_path / "r.csv"]), turns=[3], output=tmp_path / "out")


def test_a_query_that_does_not_fit_in_its_third_turn_is_found_early(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    arguments |= {"harmful": ["w7 " * 190]}  # of 256 tokens
    evaluate(model, **{**arguments, "output": arguments["output"].with_name("first")})
    with pytest.raises(DemurError, match="with what was said before it has 253 tokens"):
        evaluate(model, **arguments, turns=[3])
    assert not arguments["output"].exists()


def test_responses_to_conversations_are_compared_by_query(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    whole = evaluate(model, **arguments)
    again = evaluate(
        ResponseFiles(sorted(whole.folder.glob("measurements/*.jsonl"))),
        judge="paper",
        output=tmp_path / "again",
    )
    assert {row.query for row in again.responses()} == {*HARMFUL, *HARMLESS}
    for rates in whole.rates:
        found = again.find(rates.prompt, label=rates.label)
        assert (found.refused, found.wrong_any) == (rates.refused, rates.wrong_any)
    # Which of the two files comes first is left to their names.
    assert {(one.label, abs(one.difference), one.queries) for one in again.differences} == {
        (one.label, abs(one.difference), one.queries) for one in whole.differences
    }


def test_rows_may_carry_messages(tmp_path: Path) -> None:
    messages = [
        {"role": role, "content": text}
        for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    ]
    rows = [
        {"messages": messages, "response": "One.", "prompt": "x"},
        {"query": {"text": "c", "history": [["a", "b"]]}, "response": "Two.", "prompt": "y"},
        {"query": "c", "messages": "left alone", "response": "Three.", "prompt": "y"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparison = evaluate(ResponseFiles([file]), output=tmp_path / "out")
    queries = [row.query for row in comparison.responses()]
    assert queries == [Conversation("c", (("a", "b"),)), Conversation("c", (("a", "b"),)), "c"]
    assert [one.queries for one in comparison.differences] == [1]
    for damaged in (
        {"messages": messages[:2]},
        {"query": {"text": "c"}},
        {"query": {"history": 1}},
    ):
        file.write_text(json.dumps(rows[0]) + "\n" + json.dumps({**damaged, "response": "a"}))
        with pytest.raises(DemurError, match="line 2"):
            evaluate(ResponseFiles([file]), output=tmp_path / "other")


def test_a_server_gets_the_whole_conversation(arguments: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    (tmp_path / "system.txt").write_text("You sell shoes.")

    def answer(body: dict[str, Any]) -> Reply:
        refuses = len(body["messages"]) % 2 == 0  # with a system message
        return completion("I cannot help with that." if refuses else "Here is how.")

    with running_server(answer, ("my-model",)) as server:
        comparison = evaluate(
            Server(server.url),
            **arguments,
            turns=[1, 3],
            system_prompt=tmp_path / "system.txt",
        )
        sent = {json.dumps(request["messages"]) for request in server.requests}
        seeds = [request["seed"] for request in server.requests]
    system = ["You sell shoes.", "w1 w2 w3 .\n\nYou sell shoes."]
    first = [*HARMFUL, *HARMLESS]
    third = in_turn(QuerySet("q", "harmful", tuple(first)), 3)
    wanted = set()
    for opening in system:
        for query in [*first, *third]:
            said = query.messages if isinstance(query, Conversation) else [("user", query)]
            messages = [("system", opening), *said]
            wanted.add(json.dumps([{"role": role, "content": text} for role, text in messages]))
    assert sent == wanted
    assert len(set(seeds)) == len(seeds) / 2  # the same under both prompts, else all different
    assert {row.query for row in comparison.responses()} == {*first, *third}


def test_a_query_with_a_system_text_of_its_own(tmp_path: Path) -> None:
    """As requests of a batch have it: it follows the safety prompt, and is one of two at most."""
    asked = [
        {
            "custom_id": f"r{n}",
            "body": {
                "messages": [
                    {"role": "system", "content": f"You sell {n % 2}."},
                    {"role": "user", "content": f"How is {n}?"},
                ]
            },
        }
        for n in range(4)
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    (tmp_path / "system.txt").write_text("You sell shoes.")
    with running_server(lambda body: completion("Here is how."), ("my-model",)) as server:
        arguments: dict[str, Any] = {
            "harmful": str(path),
            "prompts": ["none", SafetyPrompt("kind", "Be kind.")],
            "judge": "paper",
            "output": tmp_path / "out",
        }
        with pytest.raises(DemurError, match=r"'How is 0\?' has a system message of its own"):
            evaluate(Server(server.url), system_prompt=tmp_path / "system.txt", **arguments)
        assert not server.requests
        comparison = evaluate(Server(server.url), **arguments)
        sent = {tuple(one["content"] for one in each["messages"]) for each in server.requests}
    assert sent == {
        (f"{opening}You sell {n % 2}.", f"How is {n}?")
        for n in range(4)
        for opening in ("", "Be kind.\n\n")
    }
    assert {transcript_of(row.query) for row in comparison.responses() if row.query} == {
        f"System: You sell {n % 2}.\n\nUser: How is {n}?" for n in range(4)
    }


def test_instructions_are_single_messages(model: ChatModel, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="give single messages"):
        evaluate(model, instructions=[BEHIND], output=tmp_path / "out")


def test_sets_and_single_conversations_do_not_mix(model: ChatModel, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="into a QuerySet"):
        evaluate(model, harmful=[HELD_OUT[0], BEHIND], output=tmp_path / "out")  # type: ignore[arg-type]


def test_turns_on_the_command_line(
    model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = model.folder
    messages = [{"role": "user", "content": "w1 ?"}, {"role": "assistant", "content": "w2"}]
    lines = [{"m": [*messages, {"role": "user", "content": f"w7 w{row}"}]} for row in range(12)]
    Path("talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["evaluate", tiny, "--dtype", "float32", "--tokens", "4", "--judge", "paper"]
    command += ["--harmful", "talk.jsonl:m", "--turn", "1", "--turn", "3"]
    out = done(demur(*command, "--prompt", "none", "--prompt", "plain"))
    assert "talk.jsonl:m, harmful" in out
    assert "talk.jsonl:m, third turn," in out
    (folder,) = Path("demur-evaluations").iterdir()
    assert done(demur("show", folder)) == out
    assert "--turn 1 3 2: must be 1 or 3" in mistake(demur(*command, "--turn", "2"))
    Path("talk.jsonl").write_text(json.dumps({"m": messages}) + "\n")
    said = mistake(demur("evaluate", "no/such-model", "--harmful", "talk.jsonl:m"))
    assert "line 1" in said
    assert "ends with the assistant" in said


def test_a_prompt_is_trained_and_measured_on_conversations(
    model: ChatModel, tmp_path: Path
) -> None:
    """All the way: training queries with histories and application texts, and going on."""
    pairs = [
        QuerySet("h", "harmful", (*HARMFUL, *(f"w7 w{row} w9 ?" for row in range(8)))),
        QuerySet("l", "harmless", (*HARMLESS, *(f"w8 w{row} w9 ?" for row in range(10)))),
    ]
    mixed = mix_conversations(labelled("mixed", *pairs), histories=0.5, applications=0.3, seed=1)
    harmful, harmless = (
        QuerySet(
            "mixed",
            "harmful" if one else "harmless",
            tuple(mixed.texts[row] for row in mixed.rows(harmful=one)),
        )
        for one in (True, False)
    )
    held_out = [
        QuerySet("o", one.label, (*one.texts, *(f"w1{n} w{place} ?" for n in range(4))))
        for place, one in enumerate(HELD_OUT, start=2)
    ]

    def work(name: str) -> Any:
        return optimize(
            model,
            basic_prompt=SafetyPrompt("basic", "w1 w2 w3 ."),
            harmful=harmful,
            harmless=harmless,
            held_out=held_out,
            method="dro",
            preset="quick",
            epochs=1,
            samples=1,
            judge=Remembering(),
            output=tmp_path / name,
        )

    run = work("run")
    assert run.held_out().optimized.queries.texts[1] == BEHIND
    queries = {one.query for one in run.results.examples}
    assert queries <= {transcript_of(query) for one in held_out for query in one}
    again = work("other")
    assert again.history == run.history
    assert work("run").history == run.history
    assert content(tmp_path / "run")


def test_a_run_measures_the_third_turn_as_well(model: ChatModel, tmp_path: Path) -> None:
    """Some held-out queries come again behind two short exchanges."""
    labels: tuple[Label, Label] = ("harmful", "harmless")
    anchors = {
        label: [f"w7 w{row} w{row + start} ?" for row in range(12)]
        for label, start in zip(labels, (1, 20), strict=True)
    }
    held_out = [
        QuerySet("mine", label, tuple(f"w{start} w{row} ?" for row in range(12)))
        for label, start in zip(labels, (30, 40), strict=True)
    ]

    def work(folder: Path, third_turn: int) -> Run:
        return optimize(
            model,
            basic_prompt=SafetyPrompt("basic", "w1 w2 w3 ."),
            harmful=anchors["harmful"],
            harmless=anchors["harmless"],
            held_out=held_out,
            method="dro",
            preset="quick",
            epochs=1,
            judge=Remembering(),
            third_turn=third_turn,
            output=folder,
        )

    assert work(tmp_path / "without", 0).third_turn is None
    run = work(tmp_path / "run", 4)
    third = run.third_turn
    assert third is not None
    measured = third.measurements()
    assert [one.name for one in measured] == list(run.names)
    histories = load_histories("measurement")
    for one in measured:
        assert len(one.queries.rows(harmful=True)) == len(one.queries.rows(harmful=False)) == 4
        for query in one.queries.texts:
            assert history_of(query) in histories
            assert text_of(query) in {text_of(each) for held in held_out for each in held}
    assert third.find("optimized", label="harmful").refused is not None
    assert "Refused in the third turn" in write_report(run).read_text(encoding="utf-8")
    again = work(tmp_path / "run", 4)
    assert again.results == run.results
