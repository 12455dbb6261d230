"""The folder of an evaluation: identity by content, damage, interruptions, growth by appending."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Comparison, DemurError, ResponseFiles, SafetyPrompt, evaluate
from demur.chat.engine import SamplingSettings
from demur.evaluation.answerers import model as model_answerer
from demur.evaluation.measuring import measure
from demur.evaluation.protocol import Protocol
from demur.judges import as_refusal_judge
from demur.judges.preference import Preference
from demur.judges.protocol import Decision
from demur.progress import Progress, SilentProgress
from demur.prompts import Condition
from demur.queries import labelled, load_query_set
from demur.records import MeasurementKey, MeasurementStore
from tests.interruption import check_interrupts, check_kills, content
from tests.telling import Telling
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """Two prompts, one set with both labels; the tiny model's words."""
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    return {
        "prompts": ["none", str(tmp_path / "basic.txt")],
        "harmful": [f"w7 w{row} ?" for row in range(4)],
        "harmless": [f"w8 w{row} ?" for row in range(4)],
        "judge": "paper",
        "samples": 2,
        "tokens": 4,
        "output": tmp_path / "out",
    }


def test_other_prompts_get_a_folder_of_their_own(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    del arguments["output"]
    first = evaluate(model, **arguments)
    assert first.path is not None
    telling = Telling()
    second = evaluate(model, **{**arguments, "prompts": ["none", "plain"]}, progress=telling)
    assert second.path == first.path.with_name(f"{first.path.name}-2")
    assert f"{first.path} has other prompts or settings" in " ".join(telling.messages)
    taken = f"under none was measured in {first.path} already: taking it from there."
    assert any(taken in text for text in telling.messages)
    for prompts, path in ((arguments["prompts"], first.path), (["none", "plain"], second.path)):
        telling = Telling()
        assert evaluate(model, **{**arguments, "prompts": prompts}, progress=telling).path == path
        assert any("is finished already" in text for text in telling.messages)


class Third:
    """A judge of harm: every third answer is unsafe, as the letters have it."""

    name = "third"
    fingerprint = "by letters"

    def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> list[Decision]:
        return [sum(map(ord, response)) % 3 == 0 for response in responses]


class First:
    """A judge of pairs that prefers the first output where it is the longer one."""

    name = "first"
    fingerprint = "the longer one"

    def prefer(
        self,
        instructions: Sequence[str],
        firsts: Sequence[str],
        seconds: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Preference]:
        pairs = zip(firsts, seconds, strict=True)
        return ["first" if len(a) > len(b) else "second" for a, b in pairs]


def refused(comparison: Comparison, prompt: str, label: Any = "harmful") -> float:
    rate = comparison.find(prompt, label=label).refused
    assert rate is not None
    return rate.count


def test_prompts_are_what_they_hold_whatever_their_files_are_called(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    """`none` and `optimized` are names like any other."""
    texts = {"none.txt": "w1 w2", "none": "w3 w4 w5", "optimized.txt": "w9 w8 w7 w6"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    torch.manual_seed(0)
    trained = SafetyPrompt("optimized", "w1", torch.randn(3, 32))
    arguments["prompts"] = ["none", *(tmp_path / name for name in texts), trained]
    comparison = evaluate(model, **arguments)
    names = ["none", "none.txt", "none (2)", "optimized.txt", "optimized"]
    assert [rates.prompt for rates in comparison.rates[:5]] == names
    assert len({rates.condition for rates in comparison.rates}) == 5
    alone = {
        "none": None,
        "none.txt": SafetyPrompt("a", texts["none.txt"]),
        "none (2)": SafetyPrompt("b", texts["none"]),
        "optimized.txt": SafetyPrompt("c", texts["optimized.txt"]),
        "optimized": trained,
    }
    for number, (name, prompt) in enumerate(alone.items()):
        arguments |= {"prompts": [prompt], "output": tmp_path / f"alone-{number}"}
        single = evaluate(model, **arguments)
        for row, other in zip(single.rates, comparison.rates[number::5], strict=True):
            assert (other.prompt, other.condition) == (name, row.condition)
            assert (other.refused, other.set, other.label) == (row.refused, row.set, row.label)


def test_one_name_may_stand_for_different_prompts_in_two_evaluations(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    first = evaluate(model, **arguments)
    (tmp_path / "basic.txt").write_text("w9 w8 w7 w6")
    with pytest.raises(DemurError, match="another choice of prompts"):
        evaluate(model, **arguments)
    second = evaluate(model, **(arguments | {"output": tmp_path / "second"}))
    same, different = zip(first.measured[:2], second.measured[:2], strict=True)
    assert same[0].key == same[1].key
    assert different[0].key != different[1].key
    files = [
        tmp_path / folder / "measurements" / f"{measured.key.fingerprint[:16]}.jsonl"
        for folder, comparison in (("out", first), ("second", second))
        for measured in comparison.measured[1:2]
    ]
    both = evaluate(ResponseFiles(files), judge="paper", output=tmp_path / "both")
    assert [rates.prompt for rates in both.rates if rates.label == "harmful"] == [
        *("basic.txt", "basic.txt (2)"),
    ]
    assert refused(both, "basic.txt") == refused(first, "basic.txt")
    assert refused(both, "basic.txt (2)") == refused(second, "basic.txt")


def test_a_renamed_prompt_is_the_same_prompt(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(model, **arguments)
    (tmp_path / "basic.txt").rename(tmp_path / "renamed.txt")
    monkeypatch.setattr(ChatModel, "read_and_sample", None)
    arguments["prompts"] = ["none", tmp_path / "renamed.txt"]
    second = evaluate(model, **arguments)
    assert [measured.key for measured in second.measured] == [
        measured.key for measured in first.measured
    ]
    assert refused(second, "renamed.txt") == refused(first, "basic.txt")
    assert {row.prompt for row in second.responses()} == {"none", "renamed.txt"}
    assert [one.name for one in second.measurements()] == ["none", "renamed.txt"]
    assert Comparison.load(tmp_path / "out") == second
    assert [cost.prompt for cost in second.costs] == ["none", "renamed.txt"]


def test_another_evaluation_may_lend_a_measurement(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender = evaluate(model, **arguments)
    measurement = lender.measurements()[1]
    judge = as_refusal_judge("paper")
    protocol = Protocol(SamplingSettings(samples=2, most_tokens=4), 4, 4, 2, False)
    condition = Condition(SafetyPrompt("mine", "w1 w2 w3 w4 w5 ."))
    queries = measurement.queries
    key = MeasurementKey(
        condition=condition.fingerprint,
        queries=queries.fingerprint,
        model=model.record.fingerprint,
        protocol=protocol.fingerprint(judge, None),
    )
    assert key == measurement.key
    messages: list[str] = []

    class Telling(SilentProgress):
        def message(self, text: str) -> None:
            messages.append(text)

    def read(folder: str, **options: Any) -> Any:
        store = MeasurementStore(tmp_path / folder)
        options |= {"progress": Telling()}
        return measure(model, queries, condition, protocol, judge, store, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ChatModel, "read_and_sample", None)
        borrowed = read("borrower", lenders=[tmp_path / "nothing", tmp_path / "out"])
        again = read("borrower")
    assert "was measured in" in messages[0]
    assert torch.equal(borrowed.states, measurement.states)
    assert torch.equal(again.states, measurement.states)
    assert borrowed.name == "mine"
    assert {one.prompt for rows in borrowed.responses for one in rows} == {"mine"}
    texts = [[one.response for one in rows] for rows in measurement.responses]
    assert [[one.response for one in rows] for rows in borrowed.responses] == texts
    damaged = next((tmp_path / "out/measurements").glob(f"{key.fingerprint[:16]}.f32"))
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    fresh = read("fresh", lenders=[tmp_path / "out"])
    assert torch.equal(fresh.states, measurement.states)  # measured, not borrowed


def whole(model: ChatModel, arguments: dict[str, Any]) -> Comparison:
    """An evaluation that writes every kind of file."""
    return evaluate(
        model,
        **arguments,
        instructions=["w9 w1 ?", "w9 w2 ?"],
        preference_judge=First(),
        harm_judge=Third(),
    )


def drop_line(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:1] + lines[2:]))


def drop_last_line(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def zero(file: Path) -> None:
    data = bytearray(file.read_bytes())
    start = len(data) // 3
    data[start : start + 40] = bytes(len(data[start : start + 40]))
    file.write_bytes(bytes(data))


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b'{"query": "q"}\n')


FILES = [
    *("settings.json", "results.json", "measurements/*.jsonl", "measurements/*.f32"),
    *("measurements/*.journal", "costs/*.json", "preferences/*.jsonl", "preferences/*.journal"),
    "outputs/*.json",
]


@pytest.mark.parametrize("damage", [drop_line, drop_last_line, cut, change, zero, lengthen])
@pytest.mark.parametrize("pattern", FILES)
def test_damage_is_named_never_used_and_repaired_as_the_message_says(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    pattern: str,
    damage: Callable[[Path], None],
) -> None:
    expected = whole(model, arguments)
    before = content(tmp_path / "out")
    file = sorted((tmp_path / "out").glob(pattern))[-1]
    damage(file)
    is_made_again = pattern.startswith("outputs")  # from what is stored
    # A journal without its last lines is that of work that was interrupted.
    is_shorter = pattern.endswith("journal") and len(file.read_bytes()) < len(
        before[file.relative_to(tmp_path / "out").as_posix()]
    )
    if is_made_again or (is_shorter and (damage is not drop_line or "preferences" in pattern)):
        found = whole(model, arguments)
    else:
        with pytest.raises(DemurError, match=r"damaged.*: delete \S+ and run the") as caught:
            whole(model, arguments)
        assert "\n" not in str(caught.value)
        assert str(file.with_suffix("")) in str(caught.value)
        named = re.search(r"delete (\S+) and run", str(caught.value))
        assert named is not None
        (file if named[1] == "it" else Path(named[1])).unlink()
        found = whole(model, arguments)
    assert found == expected
    assert content(tmp_path / "out") == before


def test_a_missing_measurement_is_measured_again(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    expected = whole(model, arguments)
    before = content(tmp_path / "out")
    for file in sorted((tmp_path / "out/measurements").iterdir())[1::2]:
        file.unlink()
    with pytest.raises(DemurError, match="is missing or not finished: run the command"):
        list(expected.responses())
    assert whole(model, arguments) == expected
    assert content(tmp_path / "out") == before
    for name in ("outputs", "costs", "preferences"):
        shutil.rmtree(tmp_path / "out" / name)
        assert whole(model, arguments) == expected
        assert content(tmp_path / "out") == before


def test_a_killed_evaluation_goes_on_to_the_very_same_files(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_answerer, "RESPONSES_AT_ONCE", 6)
    assert check_kills(lambda: whole(model, arguments), tmp_path / "out", most=60) == 60


def test_an_interrupted_evaluation_goes_on_to_the_very_same_files(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_answerer, "RESPONSES_AT_ONCE", 6)
    assert check_interrupts(lambda: whole(model, arguments), tmp_path / "out", every=5) > 20


def test_responses_in_files_go_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.evaluation.answerers.files.ROWS_AT_ONCE", 3)
    rows = "".join(f"q{row},harmful,I cannot help {row % 3}.\n" for row in range(10))
    (tmp_path / "r.csv").write_text(f"query,label,response\n{rows}")
    output = tmp_path / "out"
    tried = check_kills(
        lambda: evaluate(ResponseFiles([tmp_path / "r.csv"]), harm_judge=Third(), output=output),
        output,
    )
    assert tried > 12


def test_an_interruption_costs_one_batch(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_answerer, "RESPONSES_AT_ONCE", 4)
    asked: list[str] = []
    sample = ChatModel.read_and_sample

    def counting(self: ChatModel, queries: Sequence[str], *args: Any, **options: Any) -> Any:
        asked.extend(queries)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return sample(self, queries, *args, **options)

    monkeypatch.setattr(ChatModel, "read_and_sample", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **arguments)
    evaluate(model, **arguments)
    # Two prompts and eight queries, two of which were asked twice; and four for the cost.
    assert len(asked) == 2 * 8 + 2 + 4


def test_a_measurement_grows_by_appending(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is what is kept, however many batches there are."""
    monkeypatch.setattr(model_answerer, "RESPONSES_AT_ONCE", 2)
    arguments |= {
        "harmful": [f"w7 w{row} w{number} ?" for row in range(10) for number in range(6)],
        "harmless": ["w8 w1 ?"],
        "prompts": ["none"],
    }
    written: list[int] = []
    opened = Path.open

    def counted(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        stream = opened(self, mode, *args, **options)
        return Counting(stream, written) if set("wa+") & set(mode) else stream

    monkeypatch.setattr(Path, "open", counted)
    evaluate(model, **arguments)
    monkeypatch.undo()
    kept = {name: len(data) for name, data in content(tmp_path / "out").items()}
    journals = sum(size for name, size in kept.items() if name.endswith(".journal"))
    assert 0 < journals < sum(kept.values()) / 2
    assert sum(written) == sum(kept.values())


class Counting:
    """A stream that notes how much is written."""

    def __init__(self, stream: Any, written: list[int]) -> None:
        self._stream = stream
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(len(data))
        self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stream.close()


def test_numbers_that_are_none_are_named(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = ChatModel.next_token_logits

    def broken(self: ChatModel, representations: torch.Tensor) -> torch.Tensor:
        return logits(self, representations) * float("nan")

    with monkeypatch.context() as patch:
        patch.setattr(ChatModel, "next_token_logits", broken)
        with pytest.raises(DemurError, match=r"KL divergence .* is not a finite number"):
            evaluate(model, **arguments)


def test_names_of_folders_stay_out_of_paths(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    odd = SafetyPrompt("../../escape; rm -rf [bold]", "w1 w2")
    arguments |= {"prompts": ["none", odd], "instructions": ["w9 w1 ?"]}
    comparison = evaluate(model, **arguments)
    inside = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[0-9a-z]+\.[0-9a-z]+", path.name) for path in inside)
    assert [outputs.prompt for outputs in comparison.outputs] == ["none", odd.name]
    assert all((tmp_path / "out" / outputs.file).is_file() for outputs in comparison.outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["basic.txt", "out"]


def test_the_held_out_queries_are_one_measurement_for_all_that_measure_them(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    del arguments["harmful"], arguments["harmless"]
    comparison = evaluate(model, **(arguments | {"tokens": 1, "samples": 1, "prompts": ["none"]}))
    sets = [load_query_set("held-out", label) for label in ("harmful", "harmless")]
    assert comparison.measured[0].key.queries == labelled("any name", *sets).fingerprint
