"""Several prompts on the same queries, on a tiny model: rates, resuming, refusing bad input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Comparison, DemurError, SafetyPrompt, evaluate
from demur.evaluation.judged import JudgedResponse
from demur.judges import PaperRefusalJudge
from demur.judges.harm import HarmVerdict
from demur.progress import Progress, SilentProgress, Stage
from tests.benchmark_files import add_tiny, isolate, save
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """Two prompts, one set with both labels; the tiny model's words."""
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    (tmp_path / "q.csv").write_text(
        "bad,good\n" + "\n".join(f"w7 w{row} ?,w8 w{row} ?" for row in range(12))
    )
    return {
        "prompts": ["none", str(tmp_path / "basic.txt")],
        "harmful": f"{tmp_path}/q.csv:bad",
        "harmless": f"{tmp_path}/q.csv:good",
        "judge": "paper",
        "samples": 3,
        "tokens": 5,
        "output": tmp_path / "out",
    }


class Watching(SilentProgress):
    """Keeps what it hears; raises `KeyboardInterrupt` at the n-th sign of progress."""

    def __init__(self, after: int | None = None) -> None:
        self.left = after
        self.messages: list[str] = []
        self.sampled = 0.0

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        yield self

    def advance(self, amount: float = 1) -> None:
        self.sampled += amount
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass

    def message(self, text: str) -> None:
        self.messages.append(text)


def verdict_on(query: str, response: str) -> HarmVerdict:
    return (True, False, None)[sum(map(ord, query + response)) % 3]


class FakeHarmJudge:
    """Unsafe, safe and no verdict, as the letters have it; remembers what it was asked."""

    name = "fake"

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fails_after = fails_after

    def judge(
        self, queries: Sequence[str], responses: Sequence[str], progress: Progress
    ) -> list[HarmVerdict]:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += zip(queries, responses, strict=True)
        return [verdict_on(*pair) for pair in zip(queries, responses, strict=True)]


def responses_in(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted((folder / "responses").glob("*.jsonl"))
        for line in file.read_text().removesuffix("\n").split("\n")
    ]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_every_response_is_kept_and_the_rates_count_them(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    comparison = evaluate(model, **arguments)
    rows = responses_in(comparison.path)
    assert len(rows) == 2 * 24 * 3
    assert set(rows[0]) == {
        *("prompt", "set", "label", "category", "query", "response", "refused", "end"),
    }
    judge = PaperRefusalJudge()
    assert any(row["refused"] for row in rows)
    assert all(row["refused"] == judge.refuses(row["response"]) for row in rows)
    for prompt in ("none", "basic.txt"):
        rates = comparison.find(prompt, label="harmful")
        by_query: dict[str, list[bool]] = {}
        for row in rows:
            if row["prompt"] == prompt and row["label"] == "harmful":
                by_query.setdefault(row["query"], []).append(row["refused"])
        assert rates.refused.queries == len(by_query) == 12
        assert rates.refused.count == pytest.approx(sum(sum(x) / 3 for x in by_query.values()))
        assert rates.refused_any.count == sum(map(any, by_query.values()))
        assert rates.complied_any.count == sum(not all(x) for x in by_query.values())
        assert rates.responses == 36
    assert [(cost.prompt, cost.set, cost.queries) for cost in comparison.costs] == [
        ("none", "q.csv:good", 12),
        ("basic.txt", "q.csv:good", 12),
    ]
    results = json.loads((comparison.path / "results.json").read_text())
    assert results["costs"][0]["divergence"] == 0
    assert results["rates"][0]["refused"]["value"] == comparison.rates[0].refused.value
    assert {row["measure"] for row in results["differences"]} == {"refused"}
    assert {"demur", "torch"} <= set(results["versions"])
    assert not (comparison.path / "unfinished").exists()


def test_a_repeated_command_samples_and_judges_nothing(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(model, **arguments)
    before = content(first.path)
    monkeypatch.setattr(ChatModel, "read_and_sample", None)
    monkeypatch.setattr(PaperRefusalJudge, "refuses", None)
    watching = Watching()
    assert evaluate(model, **arguments, progress=watching) == first
    assert "finished already" in watching.messages[-1]
    assert content(first.path) == before
    (first.path / "results.json").unlink()
    assert evaluate(model, **arguments) == first  # counted again from the responses
    assert Comparison.load(first.path) == first


@pytest.mark.parametrize("after", [0, 1, 20, 76, 80, 120])
def test_an_interrupted_evaluation_goes_on_to_the_same_result(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("demur.evaluation.measuring.RESPONSES_AT_ONCE", 9)
    evaluate(model, **(arguments | {"output": tmp_path / "whole"}))
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **arguments, progress=Watching(after))
    assert not (tmp_path / "out/results.json").exists()
    evaluate(model, **arguments)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_other_settings_leave_the_folder_alone(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(model, **arguments)
    before = content(tmp_path / "out")
    for change in ({"samples": 2}, {"prompts": ["none"]}, {"judge": "default"}, {"seed": 1}):
        with pytest.raises(DemurError, match=r"belongs to a run with another .*--output"):
            evaluate(model, **(arguments | change))
    assert content(tmp_path / "out") == before


def test_benchmarks_beside_other_sets_with_their_categories(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    isolate(monkeypatch, tmp_path)
    add_tiny(monkeypatch, b"w11 ?\nw12 ?\nw13 ?\n", side="harmless")
    folder = save(tmp_path / "files", b"w11 ?\nw12 ?\nw13 ?\n")
    del arguments["harmless"]
    comparison = evaluate(model, **arguments, benchmarks=["tiny"], benchmark_dir=folder)
    assert [(rates.set, rates.label, rates.refused.queries) for rates in comparison.rates] == [
        *[("q.csv:bad", "harmful", 12)] * 2,
        *[("tiny", "harmless", 3)] * 2,
    ]
    with pytest.raises(DemurError, match="two sets of harmless queries are called 'tiny'"):
        evaluate(model, **arguments, benchmarks=["tiny", "tiny"], benchmark_dir=folder)


def test_held_out_queries_are_the_default_and_have_categories(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    del arguments["harmful"], arguments["harmless"]
    arguments |= {"samples": 1, "tokens": 2, "prompts": [None]}
    comparison = evaluate(model, **arguments)
    wholes = [rates for rates in comparison.rates if rates.category is None]
    assert [(rates.label, rates.refused.queries) for rates in wholes] == [
        ("harmful", 100),
        ("harmless", 100),
    ]
    parts = [rates for rates in comparison.rates if rates.category and rates.label == "harmful"]
    assert len(parts) > 5
    assert sum(rates.refused.queries for rates in parts) == 100
    assert comparison.differences == ()


def test_saved_prompts_are_called_after_their_folder(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        SafetyPrompt(
            "optimized", "w1", torch.randn(3, 32), {"model": {"identity": "another"}}
        ).save(tmp_path / f"run{seed}" / "safety_prompt")
    watching = Watching()
    arguments["prompts"] = ["none", tmp_path / "run0", tmp_path / "run1", "plain"]
    comparison = evaluate(model, **arguments, progress=watching)
    assert [rates.prompt for rates in comparison.rates][:4] == ["none", "run0", "run1", "plain"]
    assert len([x for x in comparison.differences if x.label == "harmful"]) == 6
    assert any("run0 was trained on other weights" in text for text in watching.messages)
    SafetyPrompt("optimized", "w1", torch.zeros(3, 32)).save(tmp_path / "run0" / "safety_prompt")
    with pytest.raises(DemurError, match="another prompts"):
        evaluate(model, **arguments)


def test_a_response_may_hold_any_character(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Characters at which `str.splitlines` breaks, but not JSONL.
    monkeypatch.setattr("demur.evaluation.measuring.RESPONSES_AT_ONCE", 9)
    monkeypatch.setattr("demur.evaluation.measuring.cut_unfinished_paragraph", lambda text: text)
    sample = ChatModel.read_and_sample

    def odd(self: ChatModel, *args: Any, **options: Any) -> Any:
        reading = sample(self, *args, **options)
        for samples in reading.samples:
            for one in samples:
                object.__setattr__(one, "text", one.text + "\u2028\x85\u2029\x0c\r\n[bold]")
        return reading

    monkeypatch.setattr(ChatModel, "read_and_sample", odd)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **arguments, progress=Watching(60))
    evaluate(model, **arguments)
    rows = responses_in(arguments["output"])
    assert len(rows) == 144
    assert all(row["response"].endswith("\u2028\x85\u2029\x0c\r\n[bold]") for row in rows)


def three_lines(monkeypatch: pytest.MonkeyPatch, text: Callable[[int], str]) -> None:
    """Let the n-th response of a query be `text(n)`."""
    sample = ChatModel.read_and_sample

    def lines(self: ChatModel, *args: Any, **options: Any) -> Any:
        assert args[4:] == () or args[4] is None
        assert options["settled"] is None  # whole responses are judged
        reading = sample(self, *args, **options)
        for samples in reading.samples:
            for number, one in enumerate(samples):
                object.__setattr__(one, "text", text(number))
        return reading

    monkeypatch.setattr(ChatModel, "read_and_sample", lines)


def test_harm_is_judged_of_long_answers_to_harmful_queries_alone(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A refusal, two lines with blank ones around them, three lines.
    texts = ["I cannot say.\na\nb\nc", "\n\na\nb\n\n", "a\nb\nc"]
    three_lines(monkeypatch, lambda number: texts[number])
    judge = FakeHarmJudge()
    comparison = evaluate(model, **arguments, harm_judge=judge)
    assert len(judge.asked) == 2 * 12
    assert {response for _, response in judge.asked} == {"a\nb\nc"}
    assert all(query.startswith("w7 ") for query, _ in judge.asked)
    rows = responses_in(comparison.path)
    verdicts = [row["harm"] for row in rows if "harm" in row and row["prompt"] == "none"]
    assert len(verdicts) == 12
    counts = {name: verdicts.count(name) for name in ("unsafe", "safe", "no verdict")}
    assert all(counts.values())

    rates = comparison.find("none", label="harmful")
    assert rates.no_verdict == counts["no verdict"]
    assert rates.complied_harmfully is not None
    assert rates.complied_harmfully_any is not None
    assert rates.complied_harmfully.count == pytest.approx(counts["unsafe"] / 3)
    assert rates.complied_harmfully.queries == 12
    assert rates.complied_harmfully_any.count == counts["unsafe"]
    assert rates.complied_harmfully_any.queries == 12 - counts["no verdict"]
    harmless = comparison.find("none", label="harmless")
    assert harmless.complied_harmfully is None
    assert harmless.no_verdict == 0
    assert [x.measure for x in comparison.differences if x.label == "harmful"] == [
        "refused",
        "complied_harmfully",
    ]
    assert Comparison.load(comparison.path) == comparison
    with pytest.raises(DemurError, match="another harm_judge"):
        evaluate(model, **arguments)


def test_an_interrupted_harm_judge_is_not_asked_twice(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_lines(monkeypatch, lambda _: "a\nb\nc")
    monkeypatch.setattr("demur.evaluation.judged._HARM_AT_ONCE", 10)
    first, second = FakeHarmJudge(fails_after=45), FakeHarmJudge()
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **arguments, harm_judge=first)
    evaluate(model, **arguments, harm_judge=second)
    assert len(first.asked) + len(second.asked) == 2 * 36
    rows = [row for row in responses_in(arguments["output"]) if row["label"] == "harmful"]
    expected = {True: "unsafe", False: "safe", None: "no verdict"}
    for row in rows:
        assert row["harm"] == expected[verdict_on(row["query"], row["response"])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ["long", "long"]}, "two prompts are called 'long'"),
        ({"prompts": ["none", None]}, "two prompts are called 'none'"),
        ({"prompts": ["NONE"]}, "cannot be called 'none'"),
        ({"prompts": []}, "no prompt to evaluate"),
        ({"prompts": ["missing.txt"]}, "there is no file 'missing.txt'"),
        ({"prompts": ["FOLDER"]}, "holds no safety prompt"),
        ({"prompts": ["a\0b"]}, "cannot read"),
        ({"prompts": ["WIDE"]}, "trained for a model with embeddings of 5 numbers"),
        ({"samples": 0}, "--samples 0"),
        ({"tokens": 0}, "--tokens 0"),
        ({"judge": "jury"}, "no refusal judge 'jury'"),
        ({"benchmarks": ["nothing"]}, "nothing"),
        ({"harmful": "missing.txt"}, "missing.txt"),
        ({"tokens": 1000}, r"more than the 256.*shorten or drop it"),
        ({"system_prompt": "missing.txt"}, "missing.txt"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "none").write_text("w1")
    SafetyPrompt("wide", None, torch.zeros(2, 5)).save(tmp_path / "wide")
    places = {"NONE": tmp_path / "none", "FOLDER": tmp_path, "WIDE": tmp_path / "wide"}
    if "prompts" in change:
        change = {"prompts": [places.get(prompt, prompt) for prompt in change["prompts"]]}
    with pytest.raises(DemurError, match=message) as caught:
        evaluate(model, **(arguments | change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_response_file_is_named(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(model, **arguments)
    (tmp_path / "out/results.json").unlink()
    file = next((tmp_path / "out/responses").iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DemurError, match=r"jsonl is damaged: delete it"):
        evaluate(model, **arguments)


def test_a_row_is_read_as_it_was_written() -> None:
    response = JudgedResponse("p", "s", "harmful", None, "q", "r", True, "stop", "no verdict")
    assert JudgedResponse.from_row(json.loads(json.dumps(response.to_row()))) == response
    with pytest.raises(TypeError):
        JudgedResponse.from_row({"query": "q"})
