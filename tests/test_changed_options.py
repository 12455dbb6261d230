"""What an endpoint does not take is stored with the results and shown beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur import ChatModel, Comparison, DemurError, Server, evaluate
from demur.chat.engine import SamplingSettings
from demur.endpoint import ChangedOptions, EndpointSettings
from demur.evaluation.changed_options import FILE, kept_changes
from demur.evaluation.measuring import measure
from demur.evaluation.protocol import Protocol
from demur.judges import EndpointJudge
from demur.prompts import Condition
from demur.records import MeasurementStore, Queries
from demur.report import write_report
from tests.command_line import demur
from tests.endpoint_server import Reply, completion, running_server
from tests.report_pages import read
from tests.tiny import save_tiny_model

NEWER = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."


@pytest.fixture
def queries(tmp_path: Path) -> dict[str, Any]:
    for name in ("harmful", "harmless"):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{name} {row}" for row in range(40)))
    return {name: str(tmp_path / f"{name}.txt") for name in ("harmful", "harmless")}


def strict(body: dict[str, Any]) -> Reply:
    if "top_k" in body:
        return 400, {"error": {"message": "Unknown parameter: 'top_k'.", "param": "top_k"}}
    if "max_tokens" in body:
        return 400, {"error": {"message": NEWER, "param": "max_tokens"}}
    return completion("Here is how.")


def test_they_are_in_results_on_the_terminal_and_in_the_report(
    queries: dict[str, Any], tmp_path: Path
) -> None:
    options = ["--judge", "paper", "--harmful", queries["harmful"]]
    options += ["--harmless", queries["harmless"], "--output", tmp_path / "out"]
    with running_server(strict, ("m",)) as server:
        result = demur("evaluate", "--endpoint", server.url, *options)
        changed = ChangedOptions(f"{server.url}/", "m", ("top_k",), "max_completion_tokens")
        again = demur("evaluate", "--endpoint", server.url, *options)
    assert (result.status, again.status) == (0, 0)
    words = "does not take top_k: left out; takes the limit of tokens as max_completion_tokens."
    for shown in (result.out, again.out, demur("show", tmp_path / "out").out):
        assert words in " ".join(shown.split())
    comparison = Comparison.load(tmp_path / "out")
    assert comparison.changed_options == (changed,)
    assert words in str(comparison)
    page = read(write_report(tmp_path / "out", tmp_path / "report.html"))
    assert words in "".join(page.words)


def test_what_was_left_out_before_an_interruption_stays_known(
    queries: dict[str, Any], tmp_path: Path
) -> None:
    """The last answers may come from a server that takes everything."""
    asked = {"judge": "paper", "output": tmp_path / "out", **queries}

    def breaks(body: dict[str, Any]) -> Reply:
        late = body["messages"][-1]["content"] == "harmless 35"
        return (500, {"error": {"message": "down"}}) if late else strict(body)

    with running_server(breaks, ("m",)) as server:
        with pytest.raises(DemurError, match="down"):
            evaluate(Server(server.url, retries=0), **asked)
        server.reply = lambda _: completion("Here is how.")
        comparison = evaluate(Server(server.url), **asked)
        assert "top_k" in server.requests[-1]
    assert [one.left_out for one in comparison.changed_options] == [("top_k",)]
    assert Comparison.load(tmp_path / "out") == comparison


@pytest.mark.parametrize("further", [False, True], ids=["the first", "a further one"])
def test_those_of_judges_are_known_too(
    queries: dict[str, Any], tmp_path: Path, further: bool
) -> None:
    def judge(body: dict[str, Any]) -> Reply:
        if "temperature" in body:
            return 400, {"error": {"message": "no", "param": "temperature"}}
        return completion("answers")

    with (
        running_server(lambda _: completion("Yes."), ("m",)) as server,
        running_server(judge) as own,
    ):
        comparison = evaluate(
            Server(server.url),
            judge="paper" if further else "endpoint:j",
            other_judges=["endpoint:j"] if further else [],
            base_url=own.url,
            output=tmp_path / "out",
            **queries,
        )
    assert comparison.changed_options == (ChangedOptions(f"{own.url}/", "j", ("temperature",)),)


def test_they_go_with_a_measurement_that_is_copied(tmp_path: Path) -> None:
    def strict_judge(body: dict[str, Any]) -> Reply:
        if "temperature" in body:
            return 400, {"error": {"message": "no", "param": "temperature"}}
        return completion("answers")

    model = ChatModel.load(save_tiny_model(tmp_path / "tiny"), dtype="float32")
    queries = Queries("s", ("w7 w1 ?", "w7 w2 ?"), ("harmful", "harmless"), (None, None))
    protocol = Protocol(SamplingSettings(most_tokens=3), 3, 3, 1, False)
    first, second = (MeasurementStore(tmp_path / name) for name in ("first", "second"))
    with running_server(strict_judge) as server:
        judge = EndpointJudge("j", EndpointSettings(server.url), "refusal")
        measure(model, queries, Condition(), protocol, judge, first)
        count = len(server.requests)
        judge = EndpointJudge("j", EndpointSettings(server.url), "refusal")
        lenders = [tmp_path / "first"]
        measure(model, queries, Condition(), protocol, judge, second, lenders=lenders)
        assert len(server.requests) == count
    assert [one.left_out for one in kept_changes(second)] == [("temperature",)]
    assert kept_changes(second) == kept_changes(first)


def test_a_damaged_file_of_them_is_named(queries: dict[str, Any], tmp_path: Path) -> None:
    asked = {"judge": "paper", "output": tmp_path / "out", **queries}
    with running_server(strict, ("m",)) as server:
        comparison = evaluate(Server(server.url), **asked)
        (file,) = (tmp_path / "out").rglob(FILE)
        file.write_bytes(file.read_bytes().replace(b"top_k", b"top_p"))
        with pytest.raises(DemurError, match=FILE):
            evaluate(Server(server.url), **asked)
        file.unlink()
        assert evaluate(Server(server.url), **asked) == comparison


def test_nothing_is_said_where_everything_is_taken(queries: dict[str, Any], tmp_path: Path) -> None:
    with running_server(lambda _: completion("Yes."), ("m",)) as server:
        found = evaluate(Server(server.url), judge="paper", output=tmp_path / "out", **queries)
    assert found.changed_options == ()
    assert list((tmp_path / "out").rglob(FILE)) == []
