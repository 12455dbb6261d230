"""Studies of a tiny model: the grid, what cells share, going on, failures, mistakes in the file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, Comparison, DemurError, FinishedStudy, Run, Study
from demur.chat import chosen
from demur.records import read_record, write_record
from demur.study.changed import patterns
from demur.study.record import Outcome, StudyRecord
from tests.command_line import Result, demur, done, mistake
from tests.endpoint_server import Reply, completion, running_endpoint
from tests.tiny import save_tiny_model
from tests.tiny_study import FILE, write_study

FAILING = '''
from pathlib import Path

from demur.errors import DemurError
from demur.optimization.methods.dro import DirectedRepresentation


class Failing(DirectedRepresentation):
    """Cannot prepare."""

    name = "failing"

    def prepare(self, context):
        if not Path(__file__).with_name("idea").exists():
            raise DemurError("The method has no idea: give it one.")
        return super().prepare(context)
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's file, with all that it names."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def counted(written: Path) -> tuple[Path, Result, Counter[str]]:
    """The folder of a finished study, how the command ended, and how often the model was used."""
    uses: Counter[str] = Counter()
    load, sample = chosen.load_chosen, ChatModel.read_and_sample

    def counting_load(*arguments: Any, **options: Any) -> ChatModel:
        uses["load"] += 1
        return load(*arguments, **options)

    def counting_sample(
        self: ChatModel, queries: Any, condition: Any, settings: Any, **more: Any
    ) -> Any:
        if settings.temperature:
            size = f"{len(queries)}, {settings.samples} x {settings.most_tokens}"
            uses[f"{condition.name}, {size}, {settings.seed}"] += 1
        return sample(self, queries, condition, settings, **more)

    folder = written.parent / "done"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen, "load_chosen", counting_load)
        patch.setattr(ChatModel, "read_and_sample", counting_sample)
        result = demur("study", written, "--output", folder)
    return folder, result, uses


@pytest.fixture
def finished(counted: tuple[Path, Result, Counter[str]], tmp_path: Path) -> Path:
    """A copy of the finished study."""
    return shutil.copytree(counted[0], tmp_path / "copy")


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model fail to load."""

    def refuse(*_: Any, **__: Any) -> ChatModel:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(chosen, "load_chosen", refuse)


def test_every_cell_is_a_folder_that_its_own_commands_know(
    counted: tuple[Path, Result, Counter[str]],
) -> None:
    folder, result, _ = counted
    assert "10 of 10 cells are done" in done(result)
    runs = sorted(one.name for one in (folder / "runs" / "tiny").iterdir())
    assert runs == [f"calm-{method}-seed-{seed}" for method in ("dro", "steep") for seed in (0, 1)]
    run = Run.load(folder / "runs/tiny/calm-steep-seed-1")
    assert run.settings.settings.seed == 1
    assert run.settings.settings.training.learning_rate == 0.05
    comparison = Comparison.load(folder / "evaluations/tiny/calm-steep-seed-1")
    assert comparison.settings is not None
    names = [one.name for one in comparison.settings.conditions]
    assert names == ["none", "calm.txt", "calm-steep-seed-1"]
    assert comparison.settings.conditions[2].trained
    untrained = Comparison.load(folder / "evaluations/tiny/untrained-seed-0")
    assert untrained.settings is not None
    assert [one.name for one in untrained.settings.conditions] == ["none", "calm.txt", "brief.txt"]
    assert (folder / "evaluations/tiny/untrained-seed-0/report.html").is_file()


def test_cells_share_the_model_and_the_measurements(
    counted: tuple[Path, Result, Counter[str]],
) -> None:
    uses = Counter(counted[2])
    assert uses.pop("load") == 1
    # No prompt and the basic prompt: once a seed for the evaluations, and for the runs once for
    # the anchors and once for the held-out queries.
    for name in ("none", "calm.txt"):
        for seed in (0, 1):
            assert uses[f"{name}, 10, 2 x 4, {seed}"] == 2, "one of each label's set"
            assert uses[f"{name}, 24, 4 x 4, {seed}"] == 1
            assert uses[f"{name}, 20, 4 x 4, {seed}"] == 1


def test_a_finished_study_loads_no_model_and_changes_nothing(
    written: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model(monkeypatch)
    before = {one: one.stat().st_mtime_ns for one in finished.rglob("results.json")}
    assert "10 of 10 cells are done" in done(demur("study", written, "--output", finished))
    after = {one: one.stat().st_mtime_ns for one in before if one.parent != finished}
    assert after.items() <= before.items()


def test_a_lost_file_is_made_again_and_nothing_else(written: Path, finished: Path) -> None:
    cell = finished / "evaluations/tiny/calm-dro-seed-1"
    lost = next((cell / "costs").glob("*.json"))
    lost.unlink()
    run = finished / "runs/tiny/calm-dro-seed-1/results.json"
    before = run.stat().st_mtime_ns
    done(demur("study", written, "--output", finished))
    assert lost.is_file()
    assert run.stat().st_mtime_ns == before


def test_a_killed_study_goes_on(written: Path, tmp_path: Path, counted: Any) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "demur", "study", str(written), "--output", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = folder / "runs/tiny/calm-steep-seed-0"
    deadline = time.monotonic() + 120
    while not any(second.glob("measurements/*.journal")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = folder / "runs/tiny/calm-dro-seed-0/results.json"
    before = first.stat().st_mtime_ns
    assert "10 of 10 cells are done" in done(demur("study", written, "--output", folder))
    assert first.stat().st_mtime_ns == before
    for seed in (0, 1):
        place = f"runs/tiny/calm-steep-seed-{seed}/results.json"
        assert (folder / place).read_bytes() == (counted[0] / place).read_bytes()
        place = f"evaluations/tiny/calm-steep-seed-{seed}"
        killed, whole = Comparison.load(folder / place), Comparison.load(counted[0] / place)
        assert (killed.rates, killed.costs) == (whole.rates, whole.costs)


def test_a_cell_that_fails_does_not_stop_the_others(
    written: Path, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    more = f'\n[methods.broken]\nmethod = "{tmp_path}/own.py:Failing"\n'
    file = tmp_path / "more.toml"
    file.write_text(FILE.format(folder=written.parent) + more)
    result = demur("study", file, "--output", finished)
    assert result.status == 1
    assert "10 of 14 cells are done" in result.out
    lines = [line for line in result.out.splitlines() if line.startswith("failed")]
    assert len(lines) == 4
    assert lines[0] == (
        "failed  run: tiny, calm, broken, seed 0: The method has no idea: give it one"
    )
    assert "because its run failed" in lines[1]
    study = FinishedStudy.load(finished)
    assert [cell.method for cell, _ in study.failures] == ["broken"] * 4
    (tmp_path / "idea").touch()
    assert "14 of 14 cells are done" in done(demur("study", file, "--output", finished))


def test_a_model_that_cannot_be_loaded_is_tried_once(
    written: Path, finished: Path, tmp_path: Path
) -> None:
    text = FILE.format(folder=written.parent)
    text = text.replace("models = [", f'models = ["{tmp_path}/missing", ')
    file = tmp_path / "more.toml"
    file.write_text(text)
    result = demur("study", file, "--output", finished)
    assert result.status == 1
    assert "10 of 20 cells are done" in result.out
    assert result.out.count("missing") >= 10


def test_a_study_may_grow(
    written: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "more.toml"
    file.write_text(FILE.format(folder=written.parent).replace("[0, 1]", "[0, 1, 2]"))
    plan = Study.load(file, finished).plan()
    assert [cell.seed for cell in plan.left] == [2] * 5
    assert "15 of 15 cells are done" in done(demur("study", file, "--output", finished))
    no_model(monkeypatch)
    done(demur("study", file, "--output", finished))


def test_a_cell_with_other_settings_is_refused_before_a_model_is_loaded(
    written: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model(monkeypatch)
    file = tmp_path / "other.toml"
    text = FILE.format(folder=written.parent)
    file.write_text(text.replace("learning_rate = 0.05", "learning_rate = 0.04"))
    told = mistake(demur("study", file, "--output", finished))
    assert "were begun with other settings than it has now (learning_rate): delete " in told
    places = [f"{finished}/{kind}/*/calm-steep-seed-*" for kind in ("runs", "evaluations")]
    assert f"delete {', '.join(places)}, or choose another --output." in told
    calm = tmp_path / "calm.txt"
    calm.write_text("w1 w3 .")
    file.write_text(text.replace(f"{written.parent}/calm.txt", str(calm)))
    told = mistake(demur("study", file, "--output", finished))
    assert "(the prompt calm.txt is another, the basic prompt calm is another)" in told
    assert f"delete {finished}/evaluations/*/*, {finished}/runs/*/*, or" in told
    file.write_text(text.replace("tokens = 4", "tokens = 5", 1))
    told = mistake(demur("study", file, "--output", finished))
    assert f"(tokens): delete {finished}/evaluations/*/*, or" in told
    file.write_text(text.replace('"float32"', '"bfloat16"'))
    assert "(settings of the model tiny)" in mistake(demur("study", file, "--output", finished))


def test_a_new_prompt_names_the_cells_to_delete(
    written: Path, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.txt").write_text("w1 w9 .")
    file = tmp_path / "more.toml"
    text = FILE.format(folder=written.parent)
    brief = f'"{written.parent}/brief.txt"'
    file.write_text(text.replace(brief, f'{brief}, "{tmp_path}/new.txt"'))
    told = mistake(demur("study", file, "--output", finished))
    place = f"{finished}/evaluations/*/untrained-seed-*"
    assert f"(the prompt new.txt is new): delete {place}, or choose another --output." in told
    for cell in finished.glob("evaluations/*/untrained-seed-*"):
        shutil.rmtree(cell)
    plan = Study.load(file, finished).plan()
    assert [cell.method for cell in plan.left] == ["untrained"] * 2


def test_patterns_match_no_cell_that_is_as_it_was() -> None:
    begun = [f"runs/{model}/long-dro-seed-{seed}" for model in "ab" for seed in (0, 1)]
    assert patterns(begun, begun) == ["runs/*/*"]
    assert patterns(begun[:2], begun) == ["runs/a/*"]
    assert patterns(begun[:1], begun) == [begun[0]]
    assert patterns([begun[0], begun[2]], begun) == [begun[0], begun[2]]
    more = [*begun, "runs/a/long-vpt-seed-0"]
    assert patterns(begun, more) == ["runs/*/long-dro-seed-*"]


def test_the_plan_counts_what_is_left_and_writes_nothing(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    shown = done(demur("study", written, "--output", folder, "--plan"))
    assert "10 cells" in shown
    assert "not known" in shown
    assert "…" not in shown
    assert not folder.exists()
    plan = Study.load(written, folder).plan()
    # Evaluations: three prompts and two trained ones with each of two seeds, 20 queries, 2 samples.
    # Runs: two prompts, shared by both methods, and a trained one each; 20 queries, 4 samples.
    assert plan.cost.responses == 2 * (3 + 2) * 20 * 2 + 2 * (2 + 2) * 20 * 4
    assert plan.cost.tokens == 4 * plan.cost.responses
    assert plan.cost.trained == 4 * 2 * 24


def test_the_plan_shows_names_and_numbers_whole_at_80_columns(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = FILE.format(folder=written.parent).replace("samples = 2", "samples = 9000")
    text = text.replace("samples = 4", "samples = 9999")
    text = text.replace("[methods.steep]", '[methods."openings mined once"]')
    file = tmp_path / "wide.toml"
    file.write_text(
        text.replace("[methods.dro]", '[methods."no penalty on answers"]\nmethod = "dro"')
    )
    shown = done(demur("study", file, "--output", tmp_path / "none", "--plan"))
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith("/"))
    assert re.search(r"^ cells +done +responses +trained +time left $", shown, re.MULTILINE)
    for name in ("no penalty on answers", "openings mined once"):
        for kind in ("runs", "evaluations"):
            assert re.search(rf"^   {kind}, {name} +0 of \d+ +[\d,]+ ", shown, re.MULTILINE)


def test_the_plan_of_a_finished_study_knows_its_times(written: Path, finished: Path) -> None:
    shutil.rmtree(finished / "runs/tiny/calm-dro-seed-0")
    plan = Study.load(written, finished).plan()
    group = next(one for one in plan.groups if (one.kind, one.method) == ("run", "dro"))
    assert (group.cells, group.done) == (2, 1)
    assert group.seconds is not None
    assert group.seconds > 0
    assert plan.cost.responses == 3 * 20 * 4


def test_a_study_in_python_is_that_of_the_file(written: Path, finished: Path) -> None:
    folder = written.parent
    study = Study(
        "mine",
        output=finished,
        models=[folder / "tiny"],
        basic_prompts=[folder / "calm.txt"],
        prompts={"brief": str(folder / "brief.txt")},
        seeds=(0, 1),
        load={"dtype": "float32"},
        queries={
            "harmful": [str(folder / "test-harmful.txt")],
            "harmless": [str(folder / "test-harmless.txt")],
        },
        sampling={"samples": 2, "tokens": 4},
        judges={"judge": "paper"},
        training={
            "preset": "quick",
            "judge": "paper",
            "harmful": [str(folder / "harmful.txt")],
            "harmless": [str(folder / "harmless.txt")],
            "held_out_harmful": [str(folder / "test-harmful.txt")],
            "held_out_harmless": [str(folder / "test-harmless.txt")],
            "samples": 4,
            "tokens": 4,
            "epochs": 2,
            "batch": 8,
            "most_anchors": 12,
            "most_held_out": 10,
            "third_turn": 0,
        },
        methods={"dro": {}, "steep": {"method": "dro", "learning_rate": 0.05}},
    )
    assert not study.plan().left
    found = study.run()
    assert len(found.outcomes) == 10
    assert all(isinstance(one, Outcome) and one.status == "done" for one in found.outcomes)


MISTAKES = {
    "mods = ['a']": "There is no setting 'mods' (in {file}): write 'models'.",
    "models = ['a']\nseed = 3": "A study has no 'seed' (in {file}): write seeds",
    "models = []": "There are no models (in {file}): give models",
    "models = ['a']\nseeds = [0, 0]": "--seeds 0 0 (in {file}): must be whole numbers",
    "models = ['a']\nseeds = ['x']": "--seeds ['x'] (in {file}): must be a whole number",
    "models = ['a/b', 'c/b']": "has two that are called 'b': give them names of their own",
    "models = ['a']\nmethods = ['dro']": "have nothing to start from: give basic_prompts.",
    "models = ['a']\nbasic_prompts = ['long']\nmethods = ['dra']": "There is no method 'dra'",
    "models = ['a']\nbasic_prompts = ['lon']": "lon",
    "models = ['a']\nbasic_prompts = ['long']\n[methods.Untrained]\nmethod = 'dro'": (
        "The method 'Untrained' (in {file}) is called as what no method trained"
    ),
    "models = ['a']\n[basic_prompts]\nlong = 'long'\nlong-strict = 'short'\n"
    "[methods.strict-dro]\nmethod = 'dro'\n[methods.dro]": (
        "of 'long' with 'strict-dro' and of 'long-strict' with 'dro' have one name: call"
    ),
    "models = ['a']\nprompts = ['none']": "is measured in every study: leave it out.",
    "models = ['a']\n[queries]\nharmfull = ['x']": "write 'queries.harmful'",
    "models = ['a']\n[training]\nepochs = 3": "[training] (in {file}) is for methods",
    "models = ['a']\nbasic_prompts = ['long']\nmethods = ['dro']\n[training]\nepoch = 3": (
        "There is no setting 'epoch' (in [training] of {file}): write 'epochs'."
    ),
    "models = ['a']\nbasic_prompts = ['long']\n[methods.dro]\nopenings = 3": (
        "There is no setting 'openings' (in [methods.dro] of {file})"
    ),
    "models = ['a']\nbasic_prompts = ['long']\n[methods.dro]\nepochs = 0": (
        "--epochs 0 (in [methods.dro] of {file}): must be 1 to 100000."
    ),
    "models = ['a']\nbasic_prompts = ['long']\n[methods.dro]\nseed = 1": (
        "belongs to the study: write seeds at the top."
    ),
    "models = ['a']\nbasic_prompts = ['long']\n[methods.dro]\npreset = 'quik'": (
        "There is no preset 'quik' (did you mean 'quick'?)"
    ),
    "[models.a]\ndtyp = 'x'": (
        "There is no setting 'dtyp' (in [models.a] of {file}): write 'dtype'."
    ),
    "models = ['a']\n[load]\ndtype = 'float33'": "--dtype float33 (in [models.a] of {file})",
    "[models.a]\nendpoint = 'http://localhost:1/v1'\n[methods.dro]\n": "nothing to start from",
    "basic_prompts = ['long']\nmethods = ['dro']\n[models.a]\nendpoint = 'http://localhost:1/v1'": (
        "is behind a server, where nothing can be trained"
    ),
    "models = ['a'": "cannot be read as TOML",
    f"models = ['{'x' * 101}']": "has a name of 101 letters",
    f"models = ['a']\nprompts = {{ {'x' * 101} = 'long' }}": "give one of up to 100 in a table",
    f"models = ['a']\nname = '{'x' * 101}'": "must be a text with letters or digits, up to 100.",
    "models = ['a']\nseeds = [4294967296]": "whole numbers from 0 to 4294967295",
    "models = ['a']\njudge = 'papr'": "There is no",
}


@pytest.mark.parametrize("text", list(MISTAKES))
def test_mistakes_in_the_file_are_told_in_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(text.replace("'", '"'))
    told = mistake(demur("study", "s.toml"))
    assert MISTAKES[text].format(file="s.toml") in told
    assert not (tmp_path / "demur-studies").exists()


def test_mistakes_in_python_are_told_alike() -> None:
    with pytest.raises(DemurError, match="There is no setting 'modles': write 'models'"):
        Study(modles=["a"])


def test_a_folder_of_something_else_is_refused(written: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds something else" in mistake(demur("study", written, "--output", tmp_path))


def test_outputs_for_instructions_are_shared_as_well(written: Path, tmp_path: Path) -> None:
    folder = written.parent
    text = FILE.format(folder=folder).replace("[0, 1]", "[0]")
    text = text.replace("[queries]", f'[queries]\ninstructions = "{folder}/test-harmless.txt"')
    file = tmp_path / "small.toml"
    file.write_text(text[: text.index("[methods.steep]")])
    uses: Counter[str] = Counter()
    sample = ChatModel.read_and_sample

    def counting(self: ChatModel, queries: Any, condition: Any, settings: Any, **more: Any) -> Any:
        uses[f"{condition.name}, {settings.samples}, {settings.temperature}"] += 1
        return sample(self, queries, condition, settings, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatModel, "read_and_sample", counting)
        done(demur("study", file, "--output", tmp_path / "out"))
    assert uses["none, 1, 1.0"] == uses["calm.txt, 1, 1.0"] == 1
    outputs = [
        len(list((tmp_path / "out/evaluations/tiny" / name / "outputs").glob("*.json")))
        for name in ("untrained-seed-0", "calm-dro-seed-0")
    ]
    assert outputs == [3, 3]


def test_every_seed_is_measured_on_the_same_conversations(written: Path, tmp_path: Path) -> None:
    text = FILE.format(folder=written.parent).partition("[training]")[0]
    file, folder = tmp_path / "turns.toml", tmp_path / "out"
    file.write_text(text.replace("[queries]", "[queries]\nturn = [1, 3]"))
    done(demur("study", file, "--output", folder))
    study = FinishedStudy.load(folder)
    assert len(study.table.groups) == 4, "two sets in two turns"
    for one in study.table.figures:
        assert (one.seeds, one.queries) == (2, 10)
    assert {one.queries for one in study.table.tests} == {10}
    records = [
        Comparison.load(folder / f"evaluations/tiny/untrained-seed-{seed}").settings
        for seed in (0, 1)
    ]
    assert [one.settings.sampling.seed for one in records if one is not None] == [0, 1]


def exchange(first: Path, second: Path) -> None:
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


@pytest.mark.parametrize("kind", ["runs", "evaluations"])
@pytest.mark.parametrize("other", ["calm-dro-seed-1", "calm-steep-seed-0"])
def test_the_folder_of_another_cell_is_never_counted(
    written: Path, finished: Path, kind: str, other: str
) -> None:
    cell = finished / kind / "tiny" / "calm-dro-seed-0"
    exchange(cell, cell.with_name(other))
    told = mistake(demur("study", finished, "--report"))
    assert "are not those that the study ended with: run the study's command again" in told
    assert "are not those" in mistake(demur("show", finished))
    result = demur("study", written, "--output", finished)
    assert result.status != 0
    assert f"{cell} belongs to " in result.err
    exchange(cell, cell.with_name(other))
    assert "10 of 10 cells are done" in done(demur("study", written, "--output", finished))


def test_a_cell_that_was_left_out_meanwhile_keeps_its_settings(
    written: Path, finished: Path, tmp_path: Path
) -> None:
    text = FILE.format(folder=written.parent)
    file = tmp_path / "less.toml"
    file.write_text(text.partition("[methods.steep]")[0])
    assert "6 of 6 cells are done" in done(demur("study", file, "--output", finished))
    file.write_text(text.replace("learning_rate = 0.05", "learning_rate = 0.04"))
    told = mistake(demur("study", file, "--output", finished))
    assert "calm-steep-seed-*" in told
    assert "were begun with other settings" in told


def test_evaluations_of_other_weights_are_never_counted_together(
    written: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(written.parent / "tiny", tmp_path / "tiny")
    text = FILE.format(folder=written.parent).partition("[training]")[0]
    text = text.replace(str(written.parent / "tiny"), str(model)).replace("seeds = [0, 1]", "")
    file, folder = tmp_path / "file.toml", tmp_path / "out"
    file.write_text(text)
    done(demur("study", file, "--output", folder))
    shutil.rmtree(model)
    save_tiny_model(model, "qwen2")
    file.write_text(f"seeds = [0, 1]\n{text}")
    told = mistake_of(demur("study", file, "--output", folder))
    assert "untrained-seed-1 was measured with another model than" in told
    assert "delete it and run the study again" in told


@pytest.mark.parametrize("place", ["../../x", "runs/../../x", "/etc", "runs/tiny", "a/b/.."])
def test_a_strangers_study_names_no_folder_of_others(
    finished: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "x").mkdir()
    record = read_record(finished / "settings.json", StudyRecord, "study")
    cells = (replace(record.cells[0], folder=place), *record.cells[1:])
    write_record(finished / "settings.json", replace(record, cells=cells), "study")
    for command in (["study", finished, "--report"], ["show", finished], ["report", finished]):
        assert f"{finished}/settings.json is damaged" in mistake(demur(*command))
    assert not any((tmp_path / "x").iterdir())


@pytest.mark.parametrize(
    "place", ["figures", "runs", "runs/tiny", "evaluations/tiny/calm-dro-seed-0"]
)
def test_a_link_out_of_a_study_is_not_followed(
    written: Path, finished: Path, tmp_path: Path, place: str
) -> None:
    (finished / place).rename(tmp_path / "aside")
    (finished / place).symlink_to(tmp_path / "aside")
    before = {one: one.stat().st_mtime_ns for one in (tmp_path / "aside").rglob("*")}
    for command in (["study", finished, "--report"], ["report", finished]):
        assert "leads out of the folder of the study" in mistake(demur(*command))
    assert "link" in mistake(demur("study", written, "--output", finished))
    assert {one: one.stat().st_mtime_ns for one in (tmp_path / "aside").rglob("*")} == before


def mistake_of(result: Result) -> str:
    """The one line of a mistake that is found at the end."""
    assert result.status == 2
    assert "Traceback" not in result.err
    return next(line for line in result.err.splitlines() if line.startswith("error: "))


def test_each_method_asks_the_judge_at_its_own_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def by_length(texts: dict[str, str]) -> Reply:
        return completion("refuses" if len(texts["response"]) % 2 else "answers")

    with running_endpoint(by_length) as first, running_endpoint(by_length) as second:
        judged = 'judge = "endpoint:m"\nbase_url = "{url}"\n'
        start = FILE[: FILE.index("[methods.dro]")].replace("seeds = [0, 1]", "seeds = [0]")
        for name, one in (("one", first), ("two", second)):
            start += f'[methods.{name}]\nmethod = "dro"\n' + judged.replace("{url}", one.url)
        done(demur("study", write_study(tmp_path, text=start), "--output", tmp_path / "out"))
    assert first.requests
    assert len(first.requests) == len(second.requests)
