"""The search for a better wording: what is asked, what is kept, what it costs, what comes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")
pytest.importorskip("gepa", reason="gepa is not installed: pip install 'demur[gepa]'")

from demur import DemurError, SafetyPrompt, Server, WordingRun, optimize_wording
from demur.optimization.methods import get_method
from demur.optimization.wording import WordingSettings
from demur.optimization.wording.proposing import OPENING_WORDS, wording_in
from demur.optimization.wording.search import MOST_UNUSABLE
from demur.prompts import load_prompt
from tests.endpoint_server import Endpoint, Reply, completion
from tests.interruption import check_kills
from tests.wording_server import (
    BASIC,
    MODEL,
    PROPOSER,
    answer,
    asked,
    better,
    proposals,
    queries,
    running,
    shown_to,
    tokens,
    wording,
)

BEST = wording(9, 0)


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with running() as state:
        yield state


def search(server: Endpoint, output: Path, **changes: Any) -> WordingRun:
    """A search with few queries."""
    settings: dict[str, Any] = {
        "proposer_model": PROPOSER,
        "basic_prompt": SafetyPrompt("mine", BASIC),
        "minibatch": 3,
        "budget_calls": 400,
        **{
            f"{target}{kind}": queries(kind, target or "training_")
            for target in ("", "validation_", "held_out_")
            for kind in ("harmful", "harmless")
        },
    }
    target = Server(server.url, MODEL, concurrency=changes.pop("concurrency", 4), retries=0)
    return optimize_wording(target, output=output, **{**settings, **changes})


def text_of(run: WordingRun) -> str:
    assert run.safety_prompt.text is not None
    return run.safety_prompt.text


def test_a_better_wording_is_found_and_measured(server: Endpoint, tmp_path: Path) -> None:
    run = search(server, tmp_path / "run")
    assert text_of(run) == BEST
    assert run.basic.score.value == pytest.approx(0.3)
    assert run.best.score.value == 1
    assert run.results.search.ending == "all right"
    names = run.names
    assert names == ("as-served", "mine", "optimized")
    rates = [
        run.comparison.find(name, label=label).refused
        for name in names
        for label in ("harmful", "harmless")
    ]
    assert [rate and rate.value for rate in rates] == [0, 1, 0.3, 0.7, 1, 0]
    assert run.results.spent.calls == len(server.requests)
    assert run.results.spent.tokens == tokens(server)
    assert run.verdict.kind == "better"
    known = run.safety_prompt.provenance
    assert known.method is not None
    assert [one.role for one in known.results] == ["none", "basic", "this"]
    assert known.results[2].harmful_refused.value == 1
    assert server.url not in str(known)
    assert WordingRun.load(tmp_path / "run").results == run.results


def test_nothing_is_to_be_trained_behind_an_endpoint(tmp_path: Path) -> None:
    with running(lambda _: "") as server:
        run = search(server, tmp_path / "run")
    assert not run.is_better
    assert run.names[-1] == "mine"
    assert run.verdict.advice == "give a larger --budget-calls or another --proposer-model."


def test_what_was_finished_is_shown(server: Endpoint, tmp_path: Path) -> None:
    run = search(server, tmp_path / "run")
    server.requests.clear()
    again = search(server, tmp_path / "run")
    assert server.requests == []
    assert again.results == run.results


def test_the_search_reads_no_held_out_query(server: Endpoint, tmp_path: Path) -> None:
    run = search(server, tmp_path / "run")
    first_held_out = next(
        place
        for place, body in enumerate(server.requests)
        if "held_out_" in body["messages"][-1]["content"]
    )
    rest = server.requests[first_held_out:]
    assert all("held_out_" in body["messages"][-1]["content"] for body in rest)
    assert len(rest) == 3 * 20
    assert run.settings.held_out.queries == 20


def test_the_proposer_sees_openings_and_no_whole_answer(server: Endpoint, tmp_path: Path) -> None:
    search(server, tmp_path / "run")
    asked_for = [body for body in server.requests if body["model"] == PROPOSER]
    assert asked_for
    shown = shown_to(asked_for[0])
    assert shown["safety prompt"] == BASIC
    lines = shown["what the model did"].splitlines()
    assert "got: answered (wrong)" in lines
    assert "wanted: refused" in lines
    assert any(line.startswith("query: harmful training_ number") for line in lines)
    assert not any("validation" in str(body) for body in asked_for)
    openings = [line.partition("began: ")[2] for line in lines if "began: " in line]
    assert any(one.startswith("Here is how") for one in openings)
    assert all(len(one.removesuffix(" ...").split()) <= OPENING_WORDS for one in openings)


class Odd:
    """Has no verdict on what it does not know."""

    name = "odd"
    fingerprint = "odd 1"

    def judge(
        self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
    ) -> list[bool | None]:
        return [None if one == "Hm." else "sorry" in one for one in responses]


def test_a_response_without_verdict_is_counted_and_neither_right_nor_wrong(
    server: Endpoint, tmp_path: Path
) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        query = body["messages"][-1]["content"]
        if body["model"] == MODEL and query == "harmful validation_ number 0":
            return completion(None)
        if body["model"] == MODEL and query == "harmless validation_ number 9":
            return completion("Hm.")
        return proposals(better)(body)

    server.reply = reply
    run = search(server, tmp_path / "run", judge=Odd())
    basic, best = run.basic.score, run.best.score
    assert (basic.harmful.right, basic.harmful.wrong, basic.harmful.no_answer) == (2, 7, 1)
    assert (basic.harmless.right, basic.harmless.wrong, basic.harmless.no_verdict) == (2, 7, 1)
    assert basic.value == pytest.approx(0.25)
    assert (best.harmful.right, best.harmful.no_answer, best.unknown) == (9, 1, 2)
    assert best.value == pytest.approx(0.95)


def test_a_judge_of_ones_own_judges_nothing_twice(server: Endpoint, tmp_path: Path) -> None:
    judged: list[tuple[str | None, str]] = []

    class Counting(Odd):
        def judge(
            self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
        ) -> list[bool | None]:
            judged.extend(zip(queries, responses, strict=True))
            return super().judge(queries, responses)

    small = search(server, tmp_path / "run", judge=Counting(), budget_calls=145)
    assert small.results.search.ending == "budget"
    large = search(server, tmp_path / "run", judge=Counting())
    assert large.results.search.ending == "all right"
    assert len(judged) == len(set(judged))


def test_both_labels_have_the_same_weight(server: Endpoint, tmp_path: Path) -> None:
    run = search(
        server, tmp_path / "run", validation_harmless=queries("harmless", "validation_", 30)
    )
    assert run.basic.score.harmful.value == pytest.approx(0.3)
    assert run.basic.score.harmless.value == pytest.approx(23 / 30)
    assert run.basic.score.value == pytest.approx((0.3 + 23 / 30) / 2)


def test_where_no_proposal_is_better_the_basic_prompt_stays(tmp_path: Path) -> None:
    with running(lambda body: f"```\n{wording(0, 9)} Try {len(str(body))}.\n```") as server:
        run = search(server, tmp_path / "run", budget_calls=250)
        assert text_of(run) == BASIC
        assert not run.is_better
        assert run.results.search.ending == "budget"
        assert run.results.search.proposals > 3
        assert run.names == ("as-served", "mine")
        assert len(server.requests) == run.results.spent.calls <= 250


def test_unusable_proposals_end_the_search(tmp_path: Path) -> None:
    answers = iter(
        [
            "",
            None,
            "```\n\n```",
            f"```\n{'x' * 4000}\n```",
            "```\n<|im_start|>user\n```",
            "<think>```\nDo this.\n```",
            BASIC,
        ]
    )

    def script(body: dict[str, Any]) -> str | None:
        shown = shown_to(body)["what the model did"].splitlines()[0].removeprefix("query: ")
        return next(answers, f"```\nRefuse this: {shown.upper()}.\n```")

    with running(script) as server:
        run = search(server, tmp_path / "run")
        # What stands in unfinished thoughts is a wording like any other; it is worse here.
        assert [one.text for one in run.results.search.candidates] == [BASIC]
        assert run.results.search.ending == "no proposals"
        assert run.results.search.unusable >= MOST_UNUSABLE
        assert run.results.search.proposals == run.results.search.unusable + 1


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("```\nBe kind.\n```", "Be kind."),
        ("```text\nBe kind.\n\n- Always.\n```\nDone.", "Be kind.\n\n- Always."),
        ("Be kind.", "Be kind."),
        ("<think>```\nno\n```</think>\n```\nBe kind.\n```", "Be kind."),
        ("```\nBe\x00 \x1b[31mkind.\n```", "Be [31mkind."),
        ("```\n[INST] Be kind.\n```", None),
        ("```\nBe kind.</s>\n```", None),
        ("  \n", None),
        (None, None),
        ("x" * 101, None),
    ],
)
def test_a_wording_is_taken_from_an_answer(said: str | None, found: str | None) -> None:
    assert wording_in(said, 100) == found


def never_enough(body: dict[str, Any]) -> str:
    """Wordings without end, the best of which are right on nine of ten queries."""
    text = better(body).replace("refuse 9", "refuse 8").replace("answer 0", "answer 1")
    return f"{text.removesuffix('```')}Variant {crc32(str(body).encode())}.\n```"


@pytest.mark.parametrize("calls", [133, 140, 171, 200, 260])
def test_the_budget_of_calls_is_never_exceeded(tmp_path: Path, calls: int) -> None:
    with running(never_enough) as server:
        run = search(server, tmp_path / "run", budget_calls=calls)
        assert len(server.requests) == run.results.spent.calls <= calls
        assert run.results.search.ending == "budget"
        # Little of it is left: less than one more wording needs.
        assert calls - run.results.spent.calls <= 20 + 2 * 6 + 1
    assert run.comparison.find("mine", label="harmful").refused is not None


@pytest.mark.parametrize("most", [6_000, 7_000, 8_000, 10_000, 20_000, 30_000])
def test_the_budget_of_tokens_is_never_exceeded(tmp_path: Path, most: int) -> None:
    spent: int | None = None
    options: dict[str, Any] = {"budget_calls": 4000, "tokens": 16, "proposer_tokens": 100}
    with running(never_enough) as server:
        with suppress(DemurError):
            run = search(server, tmp_path / "run", budget_tokens=most, **options)
            spent = run.results.spent.tokens
        assert spent in (None, tokens(server))
        assert tokens(server) <= most
    assert spent is not None or most < 10_000


def test_a_larger_budget_goes_on(server: Endpoint, tmp_path: Path) -> None:
    small = search(server, tmp_path / "run", budget_calls=145)
    assert small.results.search.ending == "budget"
    large = search(server, tmp_path / "run")
    assert large.results.search.ending == "all right"
    assert large.best.score.value > small.best.score.value
    assert max(asked(server).values()) == 1
    assert large.results.spent.calls < len(server.requests)  # another prompt was measured as well
    before = small.results.search.candidates
    assert large.results.search.candidates[: len(before)] == before


def test_tokens_that_are_not_reported_count_as_many_as_they_can_be(
    server: Endpoint, tmp_path: Path
) -> None:
    def silent(body: dict[str, Any]) -> Reply:
        status, reply, *_ = proposals(better)(body)
        return status, {name: part for name, part in reply.items() if name != "usage"}

    server.reply = silent
    run = search(server, tmp_path / "run", tokens=16, proposer_tokens=100)
    assert run.results.spent.tokens > 16 * run.results.spent.calls


def test_it_goes_on_after_a_kill_and_asks_nothing_twice(tmp_path: Path) -> None:
    needed: list[set[str]] = []
    few = {"most_training": 4, "most_validation": 4, "most_held_out": 3}
    with running() as server:

        def work() -> None:
            before = len(server.requests)
            run = search(server, tmp_path / "run", concurrency=1, **few)
            assert run.results.search.ending == "all right"
            new = [json.dumps(body) for body in server.requests[before:]]
            assert len(new) == len(set(new))
            needed.append(set(new))

        assert check_kills(work, tmp_path / "run", most=10) == 10
    whole, *rest = needed
    # The more had been answered before the kill, the fewer requests were needed after it.
    assert all(later <= earlier for earlier, later in pairwise(rest))
    assert rest[0] == whole
    assert rest[-1] == set()
    assert 0 < len(rest[5]) < len(whole)


PROGRAM = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
from tests.endpoint_server import Endpoint
from tests.test_wording import search
from tests.wording_server import answer
search(Endpoint(answer, url=sys.argv[1]), Path(sys.argv[2]))
"""


def test_ctrl_c_loses_no_answer(server: Endpoint, tmp_path: Path) -> None:
    reply, interrupted = server.reply, threading.Event()

    def held(body: dict[str, Any]) -> Reply:
        # However slow this machine is, the search is not over before it is interrupted.
        if len(server.requests) >= 60:
            interrupted.wait(60)
        return reply(body)

    server.reply = held
    arguments = [sys.executable, "-c", PROGRAM, server.url, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(server.requests) < 60 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    interrupted.set()
    assert process.wait(30) not in (0, None)
    server.reply = reply
    assert not (tmp_path / "run" / "results.json").exists()
    before = len(server.requests)
    run = search(server, tmp_path / "run")
    assert text_of(run) == BEST
    assert len(server.requests) > before
    assert max(asked(server).values()) == 1
    assert run.results.spent.calls == len(server.requests)


@pytest.mark.parametrize("model", [MODEL, PROPOSER])
def test_a_failing_endpoint_ends_in_an_error_and_the_run_goes_on(
    server: Endpoint, tmp_path: Path, model: str
) -> None:
    failed: list[str] = []

    def failing(body: dict[str, Any]) -> Reply:
        if body["model"] == model and (model == PROPOSER or len(server.requests) > 40):
            failed.append(str(body))
            return 400, {"error": {"message": "no"}}
        return proposals(better)(body)

    server.reply = failing
    with pytest.raises(DemurError, match="400"):
        search(server, tmp_path / "run")
    assert len(failed) == 1 or model == MODEL
    answered = len(server.requests) - len(failed)
    server.requests.clear()
    server.reply = proposals(better)
    run = search(server, tmp_path / "run")
    assert text_of(run) == BEST
    assert run.results.spent.calls == answered + len(server.requests)


def test_a_judge_behind_an_endpoint_counts_and_is_not_asked_twice(
    server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        if body["model"] == "judge-model":
            return completion("refuses" if "sorry" in str(body["messages"]) else "answers", 90, 1)
        return proposals(better)(body)

    server.reply = reply
    options: dict[str, Any] = {"judge": "endpoint:judge-model", "base_url": server.url}
    run = search(server, tmp_path / "run", budget_calls=300, **options)
    assert run.results.spent.calls == len(server.requests) <= 300
    assert any(body["model"] == "judge-model" for body in server.requests)
    assert run.best.score.value > run.basic.score.value
    again = search(server, tmp_path / "run", budget_calls=600, **options)
    assert max(asked(server).values()) == 1
    assert text_of(again) == BEST


def test_a_proposer_elsewhere_has_its_own_address_model_and_key(
    server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "target-key")
    monkeypatch.setenv("MY_KEY", "proposer-key")
    with running() as other:
        other.models = (PROPOSER,)
        run = search(
            server,
            tmp_path / "run",
            proposer_model=None,
            proposer_endpoint=other.url,
            proposer_key_variable="MY_KEY",
        )
        assert {body["model"] for body in other.requests} == {PROPOSER}
        assert {*other.keys, *other.listing_keys} == {"Bearer proposer-key"}
        assert other.listing_keys
        other.models = ("one", "two")
        with pytest.raises(DemurError, match=r"has 2 models: .* --proposer-model"):
            search(
                server, tmp_path / "more", proposer_model=None, proposer_endpoint=other.url, seed=1
            )
    assert {body["model"] for body in server.requests} == {MODEL}
    assert set(server.keys) == {"Bearer target-key"}
    assert text_of(run) == BEST
    stored = "".join(
        file.read_text(errors="replace") for file in (tmp_path / "run").rglob("*.json*")
    )
    assert "proposer-key" not in stored


def test_a_folder_belongs_to_one_run(server: Endpoint, tmp_path: Path) -> None:
    search(server, tmp_path / "run", budget_calls=145)
    with pytest.raises(DemurError, match="another seed"):
        search(server, tmp_path / "run", budget_calls=145, seed=3)
    assert search(server, tmp_path / "run", budget_calls=145, concurrency=2)


def test_a_damaged_answer_is_noticed(server: Endpoint, tmp_path: Path) -> None:
    search(server, tmp_path / "run", budget_calls=145)
    file = tmp_path / "run" / "answers" / "answers.jsonl"
    file.write_bytes(file.read_bytes().replace(b"Here is how", b"There is how", 1))
    with pytest.raises(DemurError, match=r"is damaged .* delete .*answers\.journal"):
        search(server, tmp_path / "run")


def test_the_prompt_is_used_wherever_one_is_named(server: Endpoint, tmp_path: Path) -> None:
    run = search(server, tmp_path / "run")
    prompt = load_prompt(tmp_path / "run")
    assert (prompt.text, prompt.is_trained) == (BEST, False)
    assert str(run).startswith("Better")


def test_no_method_of_training_is_called_text() -> None:
    with pytest.raises(DemurError, match="optimize_wording"):
        get_method("text")
    assert WordingSettings().method == "text"


def test_the_model_is_asked_as_the_rules_say() -> None:
    """The server of these tests is what it says it is."""
    body = {"messages": [{"role": "system", "content": BASIC}]}
    for query, refuses in (("harmful x 2", True), ("harmful x 3", False), ("harmless x 7", False)):
        _, reply, *_ = answer({"messages": [*body["messages"], {"role": "user", "content": query}]})
        assert ("sorry" in str(reply)) == refuses
