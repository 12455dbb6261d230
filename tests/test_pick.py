"""The choice among the epochs of a validated run: `--pick`, the table of prompts, going on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Run, optimize, write_report
from demur.optimization.methods import get_method
from demur.optimization.validation import BUDGETS, Pick, chosen_epoch, front
from demur.prompts import Fact
from demur.records import Queries
from tests.command_line import demur, done, mistake
from tests.interruption import check_interrupts, check_kills, content
from tests.report_pages import read
from tests.tiny import save_tiny_model

PICKS: tuple[Pick, ...] = ("careful", "balanced", "strict")
EPOCHS = 6


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries, a basic prompt and a judge, as files."""
    place = tmp_path_factory.mktemp("place")
    (place / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    for kind, number in (("training", 12), ("validation", 10), ("test", 10)):
        for label, word in (("harmful", "w7"), ("harmless", "w8")):
            lines = [f"w{10 + row % 40} {word} w{row} {kind} ?" for row in range(number)]
            (place / f"{kind}-{label}.txt").write_text("\n".join(lines))
    (place / "judge.py").write_text(
        "def even(queries, responses):\n"
        "    first = [(one.split() or ['1'])[0].strip('w.?') for one in responses]\n"
        "    return [one[-1:] in '02468' for one in first]\n"
    )
    return place


def items_of(place: Path) -> list[str]:
    """The options of the runs."""
    sets = {
        "harmful": "training-harmful",
        "harmless": "training-harmless",
        "validation-harmful": "validation-harmful",
        "validation-harmless": "validation-harmless",
        "held-out-harmful": "test-harmful",
        "held-out-harmless": "test-harmless",
    }
    items = ["--basic-prompt", str(place / "basic.txt"), "--judge", f"{place / 'judge.py'}:even"]
    for name, file in sets.items():
        items += [f"--{name}", str(place / f"{file}.txt")]
    items += ["--samples", "2", "--tokens", "4", "--opening-tokens", "2", "--dtype", "float32"]
    items += ["--epochs", str(EPOCHS), "--learning-rate", "0.05", "--benign-budget", "0.1"]
    return items


@pytest.fixture(scope="module")
def command(tiny: Path, place: Path) -> list[str]:
    return ["optimize", str(tiny), *items_of(place)]


@pytest.fixture(scope="module")
def kept(command: list[str], place: Path) -> tuple[Path, str]:
    """A finished run with the default pick, to be read only, and what the command printed."""
    out = done(demur(*command, "--output", place / "kept"))
    return place / "kept", out


@pytest.fixture
def folder(kept: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(kept[0], tmp_path / "run"))


class Counted:
    """How often the model trained and sampled."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps = self.sampled = 0
        gradient, sample = ChatModel.prompt_gradient, ChatModel.read_and_sample

        def counted_gradient(model: ChatModel, *arguments: Any, **options: Any) -> Any:
            self.steps += 1
            return gradient(model, *arguments, **options)

        def counted_sample(model: ChatModel, *arguments: Any, **options: Any) -> Any:
            self.sampled += 1
            return sample(model, *arguments, **options)

        patch.setattr(ChatModel, "prompt_gradient", counted_gradient)
        patch.setattr(ChatModel, "read_and_sample", counted_sample)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def rows_of(out: str) -> list[tuple[int, float, float, str]]:
    """The table of the prompts to choose from: epoch, harmful, harmless, chosen by."""
    _, _, table = out.partition("Prompts to choose from")
    found = re.findall(
        r"^ +(\d+) +([\d.]+) % +([\d.]+) %(?: +\d+ %){0,2} *(.*?) *$", table, re.MULTILINE
    )
    return [(int(row[0]), float(row[1]), float(row[2]), row[3]) for row in found]


def test_the_epochs_of_the_picks_differ(kept: tuple[Path, str]) -> None:
    """Else the tests below would show nothing."""
    run = Run.load(kept[0])
    assert len({run.epoch_of(pick) for pick in PICKS}) > 1


def test_another_pick_trains_nothing_again(
    folder: Path, command: list[str], counted: Counted
) -> None:
    first = Run.load(folder)
    before, results = content(folder / "training"), (folder / "results.json").read_bytes()
    seen: set[int | None] = set()
    for pick in (*PICKS, "balanced"):
        result = demur(*command, "--pick", pick, "--output", folder)
        out = done(result)
        run = Run.load(folder)
        assert run.settings.settings.pick == pick
        same = [one for one in PICKS if run.epoch_of(one) == run.results.epoch]
        assert Fact("pick", ", ".join(same)) in run.safety_prompt.provenance.settings
        assert run.results.epoch == run.epoch_of(pick)
        assert run.history == first.history
        assert run.results.epoch is not None
        stored = run.prompt_after(run.results.epoch).embeddings
        assert stored is not None
        assert run.safety_prompt.embeddings is not None
        assert torch.equal(run.safety_prompt.embeddings, stored)
        assert run.results.figures.measured[-1].key.condition == (
            run.held_out().optimized.condition.fingerprint
        )
        chosen = [row for row in rows_of(out) if row[3].endswith("(this one)")]
        assert [row[0] for row in chosen] == [run.results.epoch]
        if run.results.epoch in seen:  # what was measured is not measured again
            assert counted.sampled == 0
        seen.add(run.results.epoch)
        counted.sampled = 0
    assert counted.steps == 0
    assert content(folder / "training") == before
    assert (folder / "results.json").read_bytes() == results
    assert Run.load(folder).results == first.results


def test_the_picks_give_prompts_from_careful_to_strict(kept: tuple[Path, str]) -> None:
    run = Run.load(kept[0])
    validations = [one.validation for one in run.history]
    assert all(one is not None for one in validations)
    budget = run.settings.settings.training.benign_budget
    assert budget == 0.1
    refused = []
    for pick in PICKS:
        epoch = run.epoch_of(pick)
        assert epoch == chosen_epoch(validations, budget, pick)
        assert epoch == chosen_epoch(validations, budget * BUDGETS[pick])
        assert epoch is not None
        found = validations[epoch - 1]
        assert found is not None
        refused.append((found.harmful, found.harmless))
    assert refused == sorted(refused)


def test_the_front_runs_from_careful_to_strict(kept: tuple[Path, str]) -> None:
    path, out = kept
    run = Run.load(path)
    assert run.front == tuple(front([one.validation for one in run.history]))
    on_front = [run.history[epoch - 1].validation for epoch in run.front]
    harmless = [one.harmless for one in on_front if one is not None]
    harmful = [one.harmful for one in on_front if one is not None]
    assert harmless == sorted(harmless)
    assert harmful == sorted(harmful)
    table = rows_of(out)
    picked = {run.epoch_of(pick) for pick in PICKS}
    assert {row[0] for row in table} == {*run.front, *picked}
    shares = [row[2] for row in table]
    assert shares == sorted(shares)
    for epoch, harmful_share, harmless_share, _ in table:
        found = run.history[epoch - 1].validation
        assert found is not None
        assert harmful_share == pytest.approx(100 * found.harmful, abs=0.051)
        assert harmless_share == pytest.approx(100 * found.harmless, abs=0.051)


def test_show_prints_the_prompts_to_choose_from(kept: tuple[Path, str]) -> None:
    path, out = kept
    assert done(demur("show", path)) == out
    run = Run.load(path)
    names = {row[0]: row[3] for row in rows_of(out)}
    for pick in PICKS:
        epoch = run.epoch_of(pick)
        assert epoch is not None
        assert f"--pick {pick}" in names[epoch] or pick != "balanced"
    assert names[run.epoch_of("balanced") or 0] == "--pick balanced (this one)"
    assert all("--pick" in name for epoch, name in names.items() if epoch not in run.front)


def picks_in(report: Path) -> dict[str, list[str]]:
    """The commands of a report that take another prompt of its run, by what they pick."""
    found = [words.split() for words in read(report).words if words.startswith("demur optimize ")]
    # The last one does the run itself again.
    return {words[words.index("--pick") + 1]: words for words in found[:-1]}


def test_the_report_has_the_prompts_to_choose_from_and_their_commands(
    folder: Path, command: list[str], counted: Counted
) -> None:
    run = Run.load(folder)
    report = write_report(run)
    shown = [" ".join(one.split()) for one in read(report).words]
    place = shown.index("Prompts to choose from: refused on validation queries, scored")
    candidates = [*{*run.front, *map(run.epoch_of, PICKS)}]
    for epoch in candidates:
        assert epoch is not None
        found = run.history[epoch - 1].validation
        assert found is not None
        start = shown.index(str(epoch), place)
        row = [one.replace("\u00a0", " ") for one in shown[start : start + 12] if one]
        assert row[1:3] == [f"{100 * found.harmful:.1f} %", f"{100 * found.harmless:.1f} %"]
    commands = picks_in(report)
    others = [pick for pick in PICKS if pick in commands]
    assert others
    # Each of them is taken, trains nothing, and its report leads back.
    for pick in others:
        assert run.epoch_of(pick) != run.results.epoch
        done(demur(*commands[pick][1:]))
        taken = Run.load(folder)
        assert taken.settings.settings.pick == pick
        assert taken.results.epoch == run.epoch_of(pick)
        back = picks_in(write_report(taken))
        assert "balanced" in back
        assert pick not in back
    assert counted.steps == 0


def test_methods_that_score_nothing_have_no_such_table(
    tiny: Path, place: Path, tmp_path: Path
) -> None:
    items = ["--basic-prompt", place / "basic.txt", "--judge", f"{place / 'judge.py'}:even"]
    items += ["--harmful", place / "training-harmful.txt"]
    items += ["--harmless", place / "training-harmless.txt", "--most-held-out", "10"]
    items += ["--samples", "2", "--tokens", "4", "--epochs", "1", "--dtype", "float32"]
    command = ["optimize", tiny, "--method", "vpt", *items, "--output", tmp_path / "run"]
    out = done(demur(*command))
    assert "Prompts to choose from" not in out
    run = Run.load(tmp_path / "run")
    report = write_report(run)
    assert "Prompts to choose from" not in report.read_text(encoding="utf-8")
    assert not picks_in(report)
    assert (run.front, run.epoch_of("strict"), run.results.epoch) == ((), None, None)
    assert [one.validation for one in run.history] == [None]
    again = demur(*command, "--pick", "strict")
    assert "finished already" in again.err
    assert done(again) == out


def test_a_pick_that_does_not_exist_is_told(command: list[str]) -> None:
    line = mistake(demur(*command, "--pick", "best"))
    assert "--pick best: must be careful, balanced or strict." in line


# Going on.


@pytest.fixture
def arguments(place: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "basic_prompt": place / "basic.txt",
        "judge": f"{place / 'judge.py'}:even",
        "harmful": place / "training-harmful.txt",
        "harmless": place / "training-harmless.txt",
        "validation_harmful": place / "validation-harmful.txt",
        "validation_harmless": place / "validation-harmless.txt",
        "held_out_harmful": place / "test-harmful.txt",
        "held_out_harmless": place / "test-harmless.txt",
        "tokens": 3,
        "opening_tokens": 2,
        "epochs": 3,
        "learning_rate": 0.05,
        "benign_budget": 0.1,
        "most_held_out": 4,
        "output": tmp_path / "run",
    }


@pytest.fixture(scope="module")
def model(tiny: Path) -> ChatModel:
    return ChatModel.load(tiny, dtype="float32")


def test_a_killed_run_goes_on_to_the_same_files(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    """Validation, weights and openings follow from what is stored, byte for byte."""

    def work() -> None:
        run = optimize(model, **arguments)
        assert all(one.validation is not None for one in run.history)

    assert check_kills(work, tmp_path / "run", most=16) == 16


def test_an_interrupted_run_goes_on_to_the_same_files(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    assert check_interrupts(lambda: optimize(model, **arguments), tmp_path / "run", every=9) > 5


@pytest.mark.parametrize("during", [1, 2, 3])
def test_an_interrupted_validation_is_repeated(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    during: int,
) -> None:
    whole = optimize(model, **arguments)
    expected = content(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    method, calls = get_method("likelihood"), []
    own = method.refusal_probabilities

    def interrupted(self: Any, context: Any, queries: Queries, prompt: Any) -> Any:
        calls.append(prompt)
        if len(calls) == during:
            raise KeyboardInterrupt
        return own(self, context, queries, prompt)

    monkeypatch.setattr(method, "refusal_probabilities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimize(model, **arguments)
    assert not (tmp_path / "run/results.json").exists()
    assert len(list((tmp_path / "run/training").glob("epoch-*"))) == during - 1
    run = optimize(model, **arguments)
    # Only the epochs without a record were scored again.
    assert len(calls) == during + (3 - during + 1)
    assert run.history == whole.history
    assert content(tmp_path / "run") == expected
