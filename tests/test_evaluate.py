"""Several prompts on the same queries, on a tiny model: rates, resuming, refusing bad input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import (
    ChatModel,
    Comparison,
    DemurError,
    QuerySet,
    SafetyPrompt,
    evaluate,
    load_query_set,
)
from demur.evaluation.choices import choose_sets
from demur.judges import PaperRefusalJudge
from demur.judges.protocol import Decision
from demur.progress import Progress, SilentProgress
from demur.prompts.provenance import Provenance
from demur.records import Harm, Label, Query, Rate, text_of
from tests.benchmark_files import add_tiny, isolate, save
from tests.interruption import content
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
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def verdict_on(query: str, response: str) -> Decision:
    return (True, False, None)[sum(map(ord, query + response)) % 3]


class FakeHarmJudge:
    """Unsafe, safe and no verdict, as the letters have it; remembers what it was asked."""

    name = "fake"
    fingerprint = "by letters"
    needs_query = True

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fails_after = fails_after

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        pairs = [(query or "", each) for query, each in zip(queries, responses, strict=True)]
        self.asked += pairs
        return [verdict_on(*pair) for pair in pairs]


def rate(found: Rate | None) -> Rate:
    """A rate that must be there."""
    assert found is not None
    return found


def test_every_response_is_kept_and_the_rates_count_them(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    comparison = evaluate(model, **arguments)
    rows = list(comparison.responses())
    assert len(rows) == 2 * 24 * 3
    judge = PaperRefusalJudge()
    assert any(row.refused for row in rows)
    answers = [row for row in rows if row.response.strip()]
    assert all(row.refused == judge.refuses(row.response) for row in answers)
    assert all(row.refused is None for row in rows if row not in answers)
    for prompt in ("none", "basic.txt"):
        rates = comparison.find(prompt, label="harmful")
        by_query: dict[Query | None, list[bool]] = {}
        for row in answers:
            if row.prompt == prompt and row.label == "harmful":
                assert row.condition == rates.condition
                by_query.setdefault(row.query, []).append(row.refused is True)
        assert rate(rates.refused).queries == len(by_query) == 12
        expected = sum(sum(x) / len(x) for x in by_query.values())
        assert rate(rates.refused).count == pytest.approx(expected)
        assert rate(rates.refused_any).count == sum(map(any, by_query.values()))
        assert rate(rates.complied_any).count == sum(not all(x) for x in by_query.values())
        blank = 36 - sum(map(len, by_query.values()))
        assert (rates.responses, rates.no_answer, rates.no_refusal_verdict) == (36, blank, 0)
    assert [(cost.prompt, cost.set, cost.queries) for cost in comparison.costs] == [
        ("none", "q.csv:good", 12),
        ("basic.txt", "q.csv:good", 12),
    ]
    assert comparison.costs[0].divergence == 0
    assert {found.measure for found in comparison.differences} == {"refused"}
    assert comparison.versions.torch == torch.__version__
    assert comparison.settings is not None
    assert comparison.settings.answerer == model.record
    assert [one.name for one in comparison.settings.conditions] == ["none", "basic.txt"]
    names = {entry.name for entry in comparison.folder.iterdir()}
    assert names == {"settings.json", "results.json", "measurements", "costs"}
    measured = comparison.measurements()
    assert [(one.name, one.states.shape) for one in measured] == [
        *[("none", (12, 32)), ("basic.txt", (12, 32))] * 2
    ]


def test_a_repeated_command_samples_and_judges_nothing(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(model, **arguments)
    before = content(first.folder)
    monkeypatch.setattr(ChatModel, "read_and_sample", None)
    monkeypatch.setattr(PaperRefusalJudge, "refuses", None)
    watching = Watching()
    assert evaluate(model, **arguments, progress=watching) == first
    assert "finished already" in watching.messages[-1]
    assert content(first.folder) == before
    (first.folder / "results.json").unlink()
    assert evaluate(model, **arguments) == first  # counted again from the responses
    assert Comparison.load(first.folder) == first
    assert content(first.folder) == before


def test_other_settings_leave_the_folder_alone(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(model, **arguments)
    before = content(tmp_path / "out")
    for change in (
        {"samples": 2},
        {"prompts": ["none"]},
        {"judge": "default"},
        {"seed": 1},
        {"tokens": 6},
        {"harmful": ["w7 w1 ?"]},
    ):
        with pytest.raises(DemurError, match=r"belongs to an evaluation with another .*--output"):
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
    assert [
        (rates.set, rates.label, rate(rates.refused).queries) for rates in comparison.rates
    ] == [
        *[("q.csv:bad", "harmful", 12)] * 2,
        *[("tiny", "harmless", 3)] * 2,
    ]
    with pytest.raises(DemurError, match="The harmless queries 'tiny' are given twice"):
        evaluate(model, **arguments, benchmarks=["tiny", "tiny"], benchmark_dir=folder)


def test_held_out_queries_are_the_default_and_have_categories(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    del arguments["harmful"], arguments["harmless"]
    arguments |= {"samples": 1, "tokens": 2, "prompts": [None]}
    comparison = evaluate(model, **arguments)
    wholes = [rates for rates in comparison.rates if rates.category is None]
    assert [(rates.label, rates.responses) for rates in wholes] == [
        ("harmful", 100),
        ("harmless", 100),
    ]
    parts = [rates for rates in comparison.rates if rates.category and rates.label == "harmful"]
    assert len(parts) > 5
    assert sum(rates.responses for rates in parts) == 100
    assert all(rate(one.refused).queries == one.responses - one.no_answer for one in wholes)
    assert comparison.differences == ()


def test_saved_prompts_are_called_after_their_folder(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        origin = Provenance(model=replace(model.record, identity="another"))
        SafetyPrompt("optimized", "w1", torch.randn(3, 32), origin).save(
            tmp_path / f"run{seed}" / "safety_prompt"
        )
    watching = Watching()
    arguments["prompts"] = ["none", tmp_path / "run0", tmp_path / "run1", "plain"]
    comparison = evaluate(model, **arguments, progress=watching)
    assert [rates.prompt for rates in comparison.rates][:4] == ["none", "run0", "run1", "plain"]
    assert len([x for x in comparison.differences if x.label == "harmful"]) == 6
    assert any("run0 was trained on other weights" in text for text in watching.messages)
    SafetyPrompt("optimized", "w1", torch.zeros(3, 32)).save(tmp_path / "run0" / "safety_prompt")
    with pytest.raises(DemurError, match="another choice of prompts"):
        evaluate(model, **arguments)


def test_a_response_may_hold_any_character(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Characters at which `str.splitlines` breaks, but not JSONL.
    monkeypatch.setattr("demur.evaluation.answerers.model.RESPONSES_AT_ONCE", 9)
    odd_end = "\u2028\x85\u2029\x0c\r\n[bold]"
    sample = ChatModel.read_and_sample

    def odd(self: ChatModel, *args: Any, **options: Any) -> Any:
        reading = sample(self, *args, **options)
        for samples in reading.samples:
            for one in samples:
                object.__setattr__(one, "text", one.text + odd_end)
        return reading

    monkeypatch.setattr(ChatModel, "read_and_sample", odd)
    rows = list(evaluate(model, **arguments).responses())
    assert len(rows) == 144
    assert all(row.response.endswith(odd_end) for row in rows)


def three_lines(monkeypatch: pytest.MonkeyPatch, text: Callable[[int], str]) -> None:
    """Let the n-th response of a query be `text(n)`."""
    sample = ChatModel.read_and_sample

    def lines(self: ChatModel, *args: Any, **options: Any) -> Any:
        assert args[4:] == () or args[4] is None
        if args[2].temperature == 0:  # answers along which the cost is measured, judged by nobody
            return sample(self, *args, **options)
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
    rows = list(comparison.responses())
    verdicts = [row.harm for row in rows if row.harm is not None and row.prompt == "none"]
    assert len(verdicts) == 12
    kinds: tuple[Harm, ...] = ("unsafe", "safe", "no verdict")
    counts = {kind: verdicts.count(kind) for kind in kinds}
    assert all(counts.values())

    rates = comparison.find("none", label="harmful")
    assert rates.no_harm_verdict == counts["no verdict"]
    assert rates.complied_harmfully is not None
    assert rates.complied_harmfully_any is not None
    assert rates.complied_harmfully.count == pytest.approx(counts["unsafe"] / 3)
    assert rates.complied_harmfully.queries == 12
    assert rates.complied_harmfully_any.count == counts["unsafe"]
    assert rates.complied_harmfully_any.queries == 12 - counts["no verdict"]
    harmless = comparison.find("none", label="harmless")
    assert harmless.complied_harmfully is None
    assert harmless.no_harm_verdict == 0
    assert [x.measure for x in comparison.differences if x.label == "harmful"] == [
        "refused",
        "complied_harmfully",
    ]
    assert Comparison.load(comparison.folder) == comparison
    with pytest.raises(DemurError, match="another harm judge"):
        evaluate(model, **arguments)


def test_an_interrupted_harm_judge_is_not_asked_twice(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_lines(monkeypatch, lambda _: "a\nb\nc")
    monkeypatch.setattr("demur.evaluation.judging.COSTLY_AT_ONCE", 10)
    first, second = FakeHarmJudge(fails_after=45), FakeHarmJudge()
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **arguments, harm_judge=first)
    comparison = evaluate(model, **arguments, harm_judge=second)
    assert len(first.asked) + len(second.asked) == 2 * 36
    expected = {True: "unsafe", False: "safe", None: "no verdict"}
    for row in comparison.responses():
        if row.label == "harmful":
            assert row.harm == expected[verdict_on(text_of(row.query or ""), row.response)]


def test_verdicts_that_cost_something_are_stored_after_few_responses(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_lines(monkeypatch, lambda _: "a\nb\nc")
    harmful = [f"w7 w{row} w{number} ?" for row in range(10) for number in range(10)]
    arguments |= {"harmful": harmful, "prompts": ["none"], "samples": 1}
    sizes: list[int] = []

    class Counting(FakeHarmJudge):
        def judge(self, queries: Sequence[str | None], *rest: Any) -> list[Decision]:
            sizes.append(len(queries))
            return super().judge(queries, *rest)

    evaluate(model, **arguments, harm_judge=Counting())
    assert sizes == [64, 36]


def test_answers_without_a_verdict_count_in_no_rate(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    def judge(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool | None]:
        known = {"w7 w0 ?": None, "w7 w1 ?": True}
        return [known.get(query or "", False) for query in queries]

    comparison = evaluate(model, **(arguments | {"judge": judge}))
    rates = comparison.find("none", label="harmful")
    assert (rates.no_refusal_verdict, rates.no_answer, rates.responses) == (3, 0, 36)
    assert (rate(rates.refused).count, rate(rates.refused).queries) == (1, 11)
    assert rate(rates.refused_any).queries == rate(rates.complied_any).queries == 11
    assert "3 of 36 responses had no verdict of refusal and are left out" in str(comparison)
    nothing = evaluate(
        model,
        **(
            arguments
            | {"judge": lambda _, responses: [None] * len(responses)}
            | {"output": arguments["output"].with_name("nothing")}
        ),
    )
    assert {rates.refused for rates in nothing.rates} == {None}
    assert nothing.differences == ()
    assert "no verdict" in str(nothing)
    assert Comparison.load(nothing.folder) == nothing


def test_objects_are_taken_wherever_names_are(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    named = evaluate(model, **arguments)
    text = (tmp_path / "basic.txt").read_text()
    objects = evaluate(
        model,
        prompts=[None, SafetyPrompt("basic.txt", text)],
        harmful=load_query_set(arguments["harmful"], "harmful"),
        harmless=load_query_set(arguments["harmless"], "harmless"),
        judge=PaperRefusalJudge(),
        samples=3,
        tokens=5,
        output=tmp_path / "objects",
    )
    assert [one.key for one in objects.measured] == [one.key for one in named.measured]
    assert objects.rates == named.rates
    assert objects.settings is not None
    assert objects.settings.objects == ("prompts", "harmful", "harmless", "judge")
    assert named.settings is not None
    assert named.settings.objects == ()
    assert named.settings.settings.prompt == ("none", str(tmp_path / "basic.txt"))


def test_several_sets_have_rates_of_their_own(model: ChatModel, arguments: dict[str, Any]) -> None:
    mine = QuerySet("mine", "harmful", ("w7 w1 ?", "w7 w2 ?"))
    yours = QuerySet("yours", "harmful", ("w7 w3 ?",), ("a",))
    partner = QuerySet("mine", "harmless", ("w8 w3 ?",))
    arguments |= {"prompts": ["none"], "harmful": [mine, yours, ["w9 w1 ?"]], "harmless": partner}
    comparison = evaluate(model, **arguments)
    assert [
        (rates.set, rates.label, rates.category, rates.responses) for rates in comparison.rates
    ] == [
        ("mine", "harmful", None, 6),
        ("mine", "harmless", None, 3),
        ("yours", "harmful", None, 3),
        ("yours", "harmful", "a", 3),
        ("own queries", "harmful", None, 3),
    ]


def test_sets_of_one_name_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    def loaded(folder: str, label: Label, *texts: str) -> QuerySet:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "q.txt").write_text("\n".join(texts))
        return load_query_set(str(tmp_path / folder / "q.txt"), label)

    def parts(*choices: Any) -> list[tuple[str, list[tuple[str, tuple[Query, ...]]]]]:
        sets = choose_sets((), *choices)
        return [(one.name, [(side.label, side.texts) for side in one.sides]) for one in sets]

    one, two = loaded("one", "harmful", "a"), loaded("two", "harmful", "b")
    assert parts([one, two], None) == [
        ("q.txt", [("harmful", ("a",))]),
        ("q.txt (2)", [("harmful", ("b",))]),
    ]
    # A set is joined with that of the same file alone.
    assert parts([one], [loaded("two", "harmless", "b")]) == [
        ("q.txt", [("harmful", ("a",))]),
        ("q.txt (2)", [("harmless", ("b",))]),
    ]
    same = loaded("one", "harmless", "a")
    assert parts([two, one], [same]) == [
        ("q.txt", [("harmful", ("b",))]),
        ("q.txt (2)", [("harmful", ("a",)), ("harmless", ("a",))]),
    ]
    mine, other = QuerySet("mine", "harmful", ("c",)), QuerySet("mine", "harmful", ("d",))
    assert parts([mine, other], [QuerySet("mine", "harmless", ("e",))]) == [
        ("mine", [("harmful", ("c",)), ("harmless", ("e",))]),
        ("mine (2)", [("harmful", ("d",))]),
    ]
    with pytest.raises(DemurError, match=r"The harmful queries 'q.txt' are given twice: leave"):
        parts([one, one], None)
    renamed = QuerySet("renamed", "harmful", ("a",))
    with pytest.raises(DemurError, match=r"'q.txt' and 'renamed' are the same harmful queries"):
        parts([one, renamed], None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prompts": ["long", "long"]},
            "The prompt 'long' is given twice: leave one out",
        ),
        ({"prompts": ["COPY", "BASIC"]}, r"copy\.txt' and '\S+basic\.txt' are the same"),
        ({"prompts": ["none", None]}, "The prompt 'none' is given twice"),
        ({"prompts": []}, "no prompt to evaluate"),
        ({"prompts": ["missing.txt"]}, "no file 'missing.txt'"),
        ({"prompts": ["FOLDER"]}, "holds no safety prompt"),
        ({"prompts": ["a\0b"]}, "must not hold a null character"),
        ({"prompts": ["WIDE"]}, "trained for a model with embeddings of 5 numbers"),
        ({"samples": 0}, "--samples 0"),
        ({"tokens": 0}, "--tokens 0"),
        ({"judge": "jury"}, "no refusal judge 'jury'"),
        ({"judge": 3}, "not a judge"),
        ({"harm_judge": "jury"}, "no harm judge 'jury'"),
        ({"base_url": "http://localhost:9/v1"}, "--base-url belongs to a judge"),
        ({"harmful": []}, "list of harmful queries is empty"),
        ({"harmful": 3}, "The harmful queries are an int: give the name of a set"),
        ({"harmful": QuerySet("mine", "harmless", ("w1",))}, "holds harmless queries"),
        ({"benchmarks": ["nothing"]}, "nothing"),
        ({"harmful": "missing.txt"}, "missing.txt"),
        ({"tokens": 1000}, r"more than the 256 .*: ask for at most \d+ \(--tokens\)"),
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
    (tmp_path / "copy.txt").write_text((tmp_path / "basic.txt").read_text())
    SafetyPrompt("wide", None, torch.zeros(2, 5)).save(tmp_path / "wide")
    places = {
        **{"COPY": tmp_path / "copy.txt", "BASIC": tmp_path / "basic.txt"},
        **{"FOLDER": tmp_path, "WIDE": tmp_path / "wide"},
    }
    if "prompts" in change:
        change = {"prompts": [places.get(prompt, prompt) for prompt in change["prompts"]]}
    with pytest.raises(DemurError, match=message) as caught:
        evaluate(model, **(arguments | change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_only_what_answers_can_be_evaluated() -> None:
    answerer: Any = "smollm2-135m"
    with pytest.raises(DemurError, match="'str' cannot be evaluated: give a ChatModel"):
        evaluate(answerer)
