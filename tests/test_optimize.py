"""The whole pipeline on a tiny model: results, identity, going on, damage, refusing bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from demur import ChatModel, DemurError, QuerySet, Run, SafetyPrompt, optimize
from demur.evaluation.measuring import measure
from demur.judges import PaperRefusalJudge
from demur.optimization import OptimizeSettings
from demur.optimization.pipeline import default_output
from demur.optimization.plan import make_plan
from demur.optimization.run import RunRecord
from demur.prompts import Condition
from demur.records import MeasurementStore, from_plain, to_plain
from tests.interruption import check_interrupts, check_kills, content
from tests.telling import Telling
from tests.tiny import save_tiny_model

SMALL: dict[str, Any] = {
    "method": "dro",
    "judge": "paper",
    "preset": "quick",
    "samples": 4,
    "tokens": 4,
    "epochs": 2,
    "batch": 8,
    "learning_rate": 0.05,
    "most_anchors": 20,
    "most_held_out": 10,
}
TEXT = "w1 w2 w3 w4 w5 ."
HARMFUL = tuple(f"w{10 + row % 40} w7 w{row} ?" for row in range(20))
HARMLESS = tuple(f"w{10 + row % 40} w8 w{row} ?" for row in range(20))

Work = Callable[..., Run]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def basic_prompt(tmp_path: Path) -> str:
    file = tmp_path / "basic.txt"
    file.write_text(TEXT)
    return str(file)


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    """Anchors that the tiny model can tell apart."""
    (tmp_path / "harmful.txt").write_text("\n".join(HARMFUL))
    (tmp_path / "harmless.csv").write_text("n,q\n" + "\n".join(f"1,{text}" for text in HARMLESS))
    return {
        "harmful": str(tmp_path / "harmful.txt"),
        "harmless": str(tmp_path / "harmless.csv") + ":q",
    }


@pytest.fixture
def arguments(basic_prompt: str, words: dict[str, str]) -> dict[str, Any]:
    return {"basic_prompt": basic_prompt, **words, **SMALL}


class Idle(ChatModel):
    """A model that must not run."""

    def __init__(self, model: ChatModel) -> None:
        self.__dict__.update(model.__dict__)

    def read_and_sample(self, *_arguments: Any, **_options: Any) -> Any:
        raise AssertionError("the model ran")

    prompt_gradient = read_and_sample


def test_a_run_holds_everything(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    assert run.names == ("none", "basic.txt", "optimized")
    for rates in (run.none, run.basic, run.optimized):
        for label in ("harmful", "harmless"):
            refused = rates(label).refused
            assert refused is not None
            assert refused.queries == 10
            assert 0 <= refused.value <= 1
    costs = {cost.prompt: cost for cost in run.comparison.costs}
    assert costs["none"].divergence == pytest.approx(0, abs=1e-6)
    assert costs["optimized"].divergence > 0
    assert costs["optimized"].interval is not None
    pairs = {(one.first, one.second) for one in run.comparison.differences}
    assert ("basic.txt", "optimized") in pairs
    assert len(run.history) == 2
    assert run.safety_prompt.embeddings is not None
    assert run.safety_prompt.embeddings.shape == (6, 32)
    basic = model.prompt_embeddings(SafetyPrompt("basic", TEXT))
    assert not torch.equal(run.safety_prompt.embeddings, basic)

    names = set(content(tmp_path / "run"))
    assert {name.partition("/")[0] for name in names} == {
        "settings.json",
        "results.json",
        "measurements",
        "costs",
        "safety_prompt",
        "training",
    }
    assert "safety_prompt/safety_prompt.safetensors" in names
    assert "training/epoch-002.safetensors" in names

    again = Run.load(tmp_path / "run")
    assert again.results == run.results
    assert again.settings == run.settings
    assert str(again) == str(run)
    loaded = SafetyPrompt.load(tmp_path / "run")
    assert loaded.embeddings is not None
    assert torch.equal(loaded.embeddings, run.safety_prompt.embeddings)
    assert loaded.provenance == run.safety_prompt.provenance


def test_what_was_measured_can_be_read(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    held_out = run.held_out()
    assert [one.name for one in held_out] == ["none", "basic.txt", "optimized"]
    for one in held_out:
        assert len(one.queries) == 20
        assert all(len(responses) == 4 for responses in one.responses)
        assert one.states.shape == (20, 32)
    rates = held_out.optimized.refusal_rates()
    refused = run.optimized("harmful").refused
    assert refused is not None
    assert refused.value == pytest.approx(sum(rates[:10]) / 10)
    trained = Condition(run.safety_prompt)
    torch.testing.assert_close(
        held_out.optimized.states, model.represent(held_out.optimized.queries.texts, trained)
    )
    readings = run.readings()
    assert [(one.title, one.epoch) for one in readings] == [
        ("none", None),
        ("basic.txt", None),
        ("after epoch 1", 1),
    ]
    anchors = run.anchors()
    assert anchors is not None
    assert anchors.texts == HARMFUL + HARMLESS
    after, during = run.steps()
    assert (after.title, during.title) == ("after epoch 1", "during epoch 2")
    assert torch.equal(after.representations, readings[2].measurement.states)
    assert after.refusal_rates == tuple(readings[2].measurement.refusal_rates())
    assert during.representations.shape == (40, 32)
    assert during.refusal_rates is None
    for example, label in zip(run.examples, ("harmful", "harmless"), strict=True):
        assert example.label == label
        row = held_out.basic.queries.texts.index(example.query)
        assert example.before == held_out.basic.responses[row][0].response
        assert example.after == held_out.optimized.responses[row][0].response


def test_a_run_says_what_it_is(model: ChatModel, arguments: dict[str, Any], tmp_path: Path) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    record = run.settings
    assert from_plain(RunRecord, to_plain(record)) == record
    assert record.model == model.record
    assert record.load.model == model.settings.model
    assert record.basic_prompt.text == TEXT
    assert (record.anchors.harmful, record.anchors.harmless) == ("harmful.txt", "harmless.csv:q")
    assert (record.held_out.harmful, record.held_out.harmless) == ("held-out", "held-out")
    assert record.judge.fingerprint == PaperRefusalJudge().fingerprint
    assert record.method.name == "dro"
    assert {term.name for term in record.method.terms} == set(run.history[0].terms)
    assert record.settings.queries.harmful == (arguments["harmful"],)
    assert record.objects == ()
    plain = json.loads((tmp_path / "run/settings.json").read_text())["content"]["settings"]
    assert plain["training"]["epochs"] == 2
    assert plain["method_settings"]["components"] == 4
    assert set(plain) == set(OptimizeSettings.model_fields)
    provenance = run.safety_prompt.provenance
    assert provenance.model == model.record
    assert provenance.method == "Directed Representation Optimization"
    facts = {fact.name: fact.text for fact in (*provenance.settings, *provenance.measured)}
    assert facts["learning rate"] == "0.05"
    assert facts["components"] == "4"
    anchors = record.anchors
    assert facts["training queries"] == f"{anchors.harmful} and {anchors.harmless}"
    assert "pick" not in facts  # DRO scores no refusals
    assert facts["refusal judge"] == "paper"
    assert facts["samples"] == "4"
    assert [(row.role, row.prompt) for row in provenance.results] == [
        ("none", "none"),
        ("basic", "basic.txt"),
        ("this", "optimized"),
    ]
    assert provenance.results[2].harmful_refused == run.optimized("harmful").refused


def test_training_lowers_the_loss(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    arguments |= {"epochs": 12, "learning_rate": 0.02}
    run = optimize(model, **arguments, output=tmp_path / "run")
    assert run.history[-1].loss < run.history[0].loss - 0.01
    assert run.history[0].terms.keys() == {"refusal", "harmfulness", "complement"}


# Identity: what a condition is, and not what it is called.


@pytest.mark.parametrize("name", ["none.txt", "none", "optimized.txt", "optimized"])
def test_a_basic_prompt_is_told_from_the_others_whatever_its_name(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, name: str
) -> None:
    expected = optimize(model, **arguments, output=tmp_path / "expected")
    file = tmp_path / "other" / name
    file.parent.mkdir()
    file.write_text(TEXT)
    run = optimize(model, **(arguments | {"basic_prompt": str(file)}), output=tmp_path / "run")
    none, basic, optimized = run.names
    assert (none, optimized) == ("none", "optimized")
    assert basic == (name if name.endswith(".txt") else f"{name} (2)")
    for label in ("harmful", "harmless"):
        for rates in ("none", "basic", "optimized"):
            found, wanted = getattr(run, rates)(label), getattr(expected, rates)(label)
            assert (found.condition, found.refused) == (wanted.condition, wanted.refused)
    assert [cost.divergence for cost in run.comparison.costs] == [
        cost.divergence for cost in expected.comparison.costs
    ]
    assert run.safety_prompt.embeddings is not None
    assert expected.safety_prompt.embeddings is not None
    assert torch.equal(run.safety_prompt.embeddings, expected.safety_prompt.embeddings)
    found, wanted = run.held_out(), expected.held_out()
    for one, other in zip(found, wanted, strict=True):
        assert one.key == other.key
        assert [[r.response for r in some] for some in one.responses] == [
            [r.response for r in some] for some in other.responses
        ]


def test_another_name_for_the_same_prompt_is_the_same_run(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    prompt = SafetyPrompt("another name", TEXT)
    queries = {"harmful": list(HARMFUL), "harmless": QuerySet("x", "harmless", HARMLESS)}
    again = optimize(
        Idle(model),
        **(arguments | queries | {"basic_prompt": prompt}),
        output=tmp_path / "run",
    )
    assert again.results == run.results


def test_another_text_under_the_same_name_is_another_run(
    model: ChatModel, arguments: dict[str, Any], basic_prompt: str, tmp_path: Path
) -> None:
    optimize(model, **arguments, output=tmp_path / "run")
    Path(basic_prompt).write_text("w1 w2 w3 w4 w6 .")
    with pytest.raises(DemurError, match="belongs to a run with another basic prompt"):
        optimize(model, **arguments, output=tmp_path / "run")


def test_names_never_become_part_of_a_path(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = SafetyPrompt("../../escaped/" + "x" * 300, TEXT)
    run = optimize(model, **(arguments | {"basic_prompt": prompt}))
    assert run.path.resolve().parent == (tmp_path / "demur-runs").resolve()
    assert len(run.path.name) < 150
    assert not list(tmp_path.rglob("escaped*"))
    assert default_output(model, make_plan(preset="quick")).name == "tiny-long-quick"
    for method, preset in (("dro", "quick"), ("dro", "paper"), ("vpt", "standard")):
        plan = make_plan(preset=preset, method=method)
        assert default_output(model, plan).name == f"tiny-long-{method}-{preset}"


# Going on.


@pytest.fixture
def work(model: ChatModel, tmp_path: Path) -> Work:
    """A run that is short enough to be repeated often."""
    short = {
        **SMALL,
        "samples": 1,
        "most_anchors": 10,
        "most_held_out": 2,
        "learning_rate": 0.02,
        "basic_prompt": SafetyPrompt("basic.txt", TEXT),
        "harmful": list(HARMFUL),
        "harmless": list(HARMLESS),
    }

    def run(**changes: Any) -> Run:
        chosen = {**short, **changes}
        return optimize(model, **chosen, output=tmp_path / "run")

    return run


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of a finished run keep it for each other."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def finished(work: Work, kept: Path, tmp_path: Path) -> Run:
    """A finished run in `tmp_path / "run"`."""
    if kept.exists():
        shutil.copytree(kept, tmp_path / "run")
        return Run.load(tmp_path / "run")
    run = work()
    shutil.copytree(run.path, kept)
    return run


def test_a_killed_run_goes_on_to_the_same_files(work: Work, tmp_path: Path) -> None:
    assert check_kills(work, tmp_path / "run", most=16) == 16


def test_an_interrupted_run_goes_on_to_the_same_files(work: Work, tmp_path: Path) -> None:
    assert check_interrupts(work, tmp_path / "run", every=15) > 5


def test_a_finished_run_is_shown_and_not_repeated(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    before = content(tmp_path / "run")
    progress = Telling()
    again = optimize(Idle(model), **arguments, output=tmp_path / "run", progress=progress)
    assert again.results == run.results
    assert progress.messages == [f"This run is finished already: showing {tmp_path / 'run'}."]
    assert content(tmp_path / "run") == before


def files_of_a_run() -> list[str]:
    return [
        "settings.json",
        "results.json",
        "training/epoch-001.safetensors",
        "training/epoch-002.safetensors",
        "training/optimizer.safetensors",
        "safety_prompt/safety_prompt.json",
        "safety_prompt/safety_prompt.safetensors",
        *(f"{which} {kind}" for which in (0, 2, 5) for kind in ("journal", "jsonl", "f32")),
        *(f"cost {which}" for which in range(4)),  # of each prompt, and the answers
    ]


def found(run: Run, name: str) -> Path:
    """The file of a name in `files_of_a_run`; measurements are numbered in the order of work."""
    if name.startswith("cost "):
        return sorted((run.path / "costs").iterdir())[int(name.removeprefix("cost "))]
    if name[0].isdigit():
        place, kind = name.split()
        keys = [one.key for one in run.comparison.measured]
        keys += [one.key for one in run.results.readings]
        return run.path / "measurements" / f"{keys[int(place)].fingerprint[:16]}.{kind}"
    return run.path / name


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def change(data: bytes) -> bytes:
    place = len(data) * 2 // 3
    while not chr(data[place]).isalnum():
        place += 1
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def drop_a_line(data: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join(lines[:1] + lines[2:]) if len(lines) > 2 else data[:-4]


def message_of(work: Work) -> str | None:
    """What the work says that it cannot do; None where it does it."""
    try:
        work()
    except DemurError as error:
        return str(error)
    return None


@pytest.mark.parametrize("damage", [cut, change, drop_a_line])
@pytest.mark.parametrize("name", files_of_a_run())
def test_damage_is_named_and_the_fix_leads_to_the_undisturbed_result(
    work: Work, finished: Run, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    whole = content(tmp_path / "run")
    file = found(finished, name)
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    message = message_of(work)
    if message is None:
        # A journal without its end is one of a measurement that has not finished.
        assert (file.suffix, damage) == (".journal", cut)
    else:
        told = re.fullmatch(
            r"(\S+) is damaged.*: delete (\S+) and run the command that made it again\.", message
        )
        assert told is not None, message
        named = Path(told[1] if told[2] == "it" else told[2])
        shutil.rmtree(named) if named.is_dir() else named.unlink()
        work()
    assert content(tmp_path / "run") == whole


@pytest.mark.parametrize("name", files_of_a_run())
def test_a_file_that_is_missing_is_made_again(
    work: Work, finished: Run, tmp_path: Path, name: str
) -> None:
    """After an epoch's measurement is deleted, it is repeated under the prompt of that time."""
    whole = content(tmp_path / "run")
    found(finished, name).unlink()
    again = work()
    assert again.results == finished.results
    assert content(tmp_path / "run") == whole


def test_the_files_of_another_run_are_not_used(work: Work, tmp_path: Path) -> None:
    """Without its settings, a folder may hold anybody's training and results."""
    work(seed=1)
    shutil.move(tmp_path / "run", tmp_path / "expected")
    work(seed=2)
    (tmp_path / "run/settings.json").unlink()
    work(seed=1)
    expected = content(tmp_path / "expected")
    assert {name: content(tmp_path / "run")[name] for name in expected} == expected


def test_results_and_prompt_of_different_runs_are_told(work: Work, tmp_path: Path) -> None:
    work(seed=1)
    shutil.move(tmp_path / "run", tmp_path / "other")
    work(seed=2)
    shutil.rmtree(tmp_path / "run/safety_prompt")
    shutil.copytree(tmp_path / "other/safety_prompt", tmp_path / "run/safety_prompt")
    with pytest.raises(DemurError, match="incomplete or belong to different runs"):
        Run.load(tmp_path / "run")


def test_a_full_disk_loses_nothing(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = optimize(model, **arguments, output=tmp_path / "whole")
    replace, writes = Path.replace, iter(range(1_000))

    def full(self: Path, target: Path) -> Path:
        if next(writes) == 4:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DemurError, match="No space is left"):
        optimize(model, **arguments, output=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.part"))
    monkeypatch.undo()
    again = optimize(model, **arguments, output=tmp_path / "run")
    assert again.results == expected.results


def test_the_anchors_that_a_diagnosis_read_are_not_read_again(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = optimize(model, **arguments, output=tmp_path / "expected")
    monkeypatch.chdir(tmp_path)
    diagnosis = tmp_path / "demur-diagnoses" / "mine"
    shutil.copytree(tmp_path / "expected", diagnosis)
    kept = {expected.results.readings[0].key.fingerprint[:16]}
    for file in (diagnosis / "measurements").iterdir():
        if file.stem not in kept:
            file.unlink()
    progress = Telling()
    run = optimize(model, **arguments, output=tmp_path / "run", progress=progress)
    assert run.results == expected.results
    (message,) = progress.messages
    assert message.startswith("harmful.txt and harmless.csv:q under none was measured in")


# Objects in the place of names.


def test_objects_give_what_names_give(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    by_name = optimize(model, **arguments, output=tmp_path / "names")
    objects = {
        "basic_prompt": SafetyPrompt("basic.txt", TEXT),
        "harmful": list(HARMFUL),
        "harmless": [
            QuerySet("a", "harmless", HARMLESS[:5]),
            QuerySet("b", "harmless", HARMLESS[5:]),
        ],
        "judge": PaperRefusalJudge(),
    }
    by_object = optimize(model, **(arguments | objects), output=tmp_path / "objects")
    assert by_object.results.run == by_name.results.run
    assert by_object.results.history == by_name.results.history
    assert by_object.settings.objects == ("basic_prompt", "harmful", "harmless", "judge")
    assert by_object.settings.anchors.harmless == "a+b"


class WordJudge:
    """Says that a response with an even word refuses."""

    def __init__(self) -> None:
        self.seen: set[str | None] = set()
        self.fingerprint = "even words"

    def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        self.seen |= set(queries)
        return [any(word[-1:] in "02468" for word in text.split()) for text in responses]


def test_a_judge_of_ones_own_decides(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    judge = WordJudge()
    run = optimize(model, **(arguments | {"judge": judge}), output=tmp_path / "run")
    assert judge.seen >= {*HARMFUL, *HARMLESS}
    for one in run.held_out():
        for responses in one.responses:
            for response in responses:
                words = response.response.split()  # none in a blank answer, which is not judged
                even = any(word[-1:] in "02468" for word in words) if words else None
                assert response.refused is even
    assert run.settings.judge.name == "WordJudge"
    file = tmp_path / "mine.py"
    file.write_text(
        "def words(queries, responses):\n"
        "    return [any(w[-1:] in '02468' for w in text.split()) for text in responses]\n"
    )
    arguments["judge"] = f"{file}:words"
    same = optimize(model, **arguments, output=tmp_path / "file")
    assert same.history == run.history
    assert same.settings.objects == ()


def test_held_out_queries_of_ones_own(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    own = QuerySet("mine", "harmful", tuple(f"w{row} w9 ?" for row in range(12)))
    arguments.pop("most_held_out")
    run = optimize(model, **arguments, held_out=own, most_held_out=12, output=tmp_path / "run")
    assert run.held_out().none.queries.texts[:12] == own.texts
    assert run.settings.held_out.harmful == "mine"
    assert run.settings.held_out.harmless == "held-out"
    assert run.optimized("harmful").set == "mine and held-out"


def test_held_out_queries_that_are_trained_on_are_told(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    progress = Telling()
    optimize(
        model,
        **arguments,
        held_out=QuerySet("mine", "harmful", HARMFUL[:10]),
        output=tmp_path / "run",
        progress=progress,
    )
    assert progress.messages[0].startswith("10 of the 20 held-out queries are trained on")


# Other settings, and mistakes.


def test_another_seed_gives_another_prompt(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    for seed in (0, 1):
        optimize(model, **arguments, seed=seed, output=tmp_path / f"run{seed}")
    first, second = (
        load_file(tmp_path / f"run{seed}/safety_prompt/safety_prompt.safetensors")["safety_prompt"]
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_a_run_of_other_settings_is_left_alone(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    optimize(model, **arguments, output=tmp_path / "run")
    before = content(tmp_path / "run")
    with pytest.raises(DemurError, match=r"another method settings\.components.*another --output"):
        optimize(model, **arguments, components=3, output=tmp_path / "run")
    assert content(tmp_path / "run") == before


def test_the_paths_of_the_engine_are_not_mixed(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """They agree up to rounding only, so neither goes on with what the other measured."""
    monkeypatch.chdir(tmp_path)
    run = optimize(model, **arguments, output="run")
    diagnoses = tmp_path / "demur-diagnoses"
    shutil.copytree(run.path, diagnoses / "shared")
    (run.path / "results.json").unlink()
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    progress = Telling()
    plain = ChatModel.load(folder, dtype="float32", prefix_sharing="off", progress=progress)
    with pytest.raises(DemurError, match=r"run with another model\.prefix sharing"):
        optimize(plain, **arguments, output="run")
    alone = optimize(plain, **arguments, output="plain", progress=progress)
    assert not [text for text in progress.messages if "taking it from there" in text]
    shared, own = ({one.key for one in each.results.readings} for each in (run, alone))
    assert not shared & own
    again = ChatModel.load(folder, dtype="float32", prefix_sharing="on")
    assert optimize(again, **arguments, output="run").results == run.results


def test_a_folder_that_is_no_run_is_left_alone(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(DemurError, match="holds something else: choose another --output"):
        optimize(model, **arguments, output=tmp_path / "mine")
    assert content(tmp_path / "mine") == {"thesis.txt": b"precious"}


@pytest.mark.parametrize(("refuses", "what"), [(False, "none"), (True, "all")])
def test_a_model_that_never_refuses_or_always_does_is_refused(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, refuses: bool, what: str
) -> None:
    def judge(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        return [refuses] * len(responses)

    share = r"100\.0 %" if refuses else r"0\.0 %"
    with pytest.raises(
        DemurError,
        match=rf"refuses \(almost\) {what}.*none: harmful {share}.*a model that refuses some",
    ):
        optimize(model, **(arguments | {"judge": judge}), output=tmp_path / "run")
    assert not (tmp_path / "run/training").exists()


def test_a_judge_without_verdicts_is_told(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    def judge(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool | None]:
        return [None if " w7 " in str(query) else True for query in queries]

    with pytest.raises(DemurError, match="no verdict on any response to the query 'w10 w7 w0"):
        optimize(model, **(arguments | {"judge": judge}), output=tmp_path / "run")


def test_too_few_queries_a_long_query_and_bad_settings(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("w1 ?\nw2 ?")
    with pytest.raises(
        DemurError, match=r"'few.txt' holds 2 .*: give at least 10, or a built-in set"
    ):
        optimize(model, **(arguments | {"harmful": str(few)}), output=tmp_path / "run")
    held_out = {"held_out_harmful": str(few), "most_held_out": 2}
    assert len(make_plan(**(arguments | held_out)).held_out) == 4
    with pytest.raises(DemurError, match=r"'few.txt' holds 2 .*: give at least 3, or"):
        make_plan(**(arguments | held_out | {"most_held_out": 3}))
    long = tmp_path / "long.txt"
    long.write_text("\n".join([f"w{row} ?" for row in range(12)] + ["w1 " * 400]))
    for name in ("harmful", "held_out_harmless"):
        changed = {name: str(long), "most_held_out": 13}
        with pytest.raises(DemurError, match=r"more than the 256.*shorten or drop it"):
            optimize(model, **(arguments | changed), output=tmp_path / "run")
    with pytest.raises(DemurError, match="--components 32 is too many"):
        optimize(model, **arguments, components=32, output=tmp_path / "run")
    with pytest.raises(DemurError, match="--folds 81 is too many"):
        optimize(model, **arguments, folds=81, output=tmp_path / "run")
    with pytest.raises(DemurError, match="--epochs 0"):
        optimize(model, **(arguments | {"epochs": 0}), output=tmp_path / "run")
    with pytest.raises(DemurError, match="no preset 'fast'"):
        optimize(model, **(arguments | {"preset": "fast"}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_system_prompt_is_rendered_and_never_trained(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    system = tmp_path / "system.txt"
    system.write_text("w30 w31")
    run = optimize(model, **arguments, system_prompt=system, output=tmp_path / "run")
    assert run.safety_prompt.rows == 6
    assert run.settings.basic_prompt.system_prompt == "w30 w31"
    assert run.safety_prompt.provenance.with_system_prompt
    without = optimize(model, **arguments, output=tmp_path / "without")
    assert run.none("harmful").condition != without.none("harmful").condition
    assert run.comparison.rates != without.comparison.rates


def test_more_basic_prompts_are_read_for_the_directions(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other" / "basic.txt"
    other.parent.mkdir()
    other.write_text("w6 w7 w8")
    run = optimize(model, **arguments, anchor_prompts=(str(other),), output=tmp_path / "run")
    titles = [reading.title for reading in run.readings()]
    assert titles == ["none", "basic.txt (2)", "basic.txt", "after epoch 1"]
    assert run.readings()[1].measurement.condition.text == "w6 w7 w8"


def test_a_measurement_of_a_run_is_that_of_the_evaluation(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    """The final measurement can be done again from the run's parts."""
    run = optimize(model, **arguments, output=tmp_path / "run")
    stored = run.held_out().optimized
    again = measure(
        model,
        stored.queries,
        Condition(run.safety_prompt),
        OptimizeSettings.from_preset("quick", samples=4, tokens=4).protocol,
        PaperRefusalJudge(),
        MeasurementStore(tmp_path / "again"),
    )
    assert again.key == stored.key
    assert again.refusal_rates() == stored.refusal_rates()


def test_the_run_folder_can_be_moved(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert Run.load(tmp_path / "moved").results == run.results
    with pytest.raises(DemurError, match="not the folder of a run"):
        Run.load(tmp_path / "run")


def test_an_unfinished_run_is_not_loaded(work: Work, tmp_path: Path) -> None:
    work()
    (tmp_path / "run/results.json").unlink()
    with pytest.raises(DemurError, match="is not finished: run its command again to go on"):
        Run.load(tmp_path / "run")
