"""The diagnosis on a tiny model: numbers, files, going on, sharing with a run."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from demur import (
    ChatModel,
    Condition,
    DemurError,
    Diagnosis,
    Run,
    SafetyPrompt,
    diagnose,
    load_query_set,
    optimize,
)
from demur.diagnosis.verdict import make_verdict
from demur.progress import SilentProgress, Stage
from tests.command_line import demur, done, mistake
from tests.interruption import check_interrupts, check_kills, content
from tests.tiny import save_tiny_model

SAMPLING: dict[str, Any] = {
    "preset": "quick",
    "judge": "paper",
    "samples": 4,
    "tokens_harmful": 4,
    "tokens_harmless": 4,
    "most_anchors": 20,
}
TRAINING: dict[str, Any] = {
    "method": "dro",
    "epochs": 1,
    "batch": 8,
    "learning_rate": 0.05,
    "most_held_out": 10,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Queries that the tiny model can tell apart, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text("w1 w2 w3 w4 w5 .")
    Path("other.txt").write_text("w9 w9 .")
    Path("bad.txt").write_text("\n".join(f"w{10 + row % 40} w7 w{row} ?" for row in range(20)))
    Path("good.txt").write_text("\n".join(f"w{10 + row % 40} w8 w{row} ?" for row in range(20)))
    return {"harmful": "bad.txt", "harmless": "good.txt", **SAMPLING}


PROMPTS: dict[str, Any] = {"prompts": ["basic.txt", "other.txt"], "probe_queries": 40}


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a tiny diagnosis; tests of other things leave it out."""
    monkeypatch.setattr("demur.diagnosis.work.draw_figures", lambda *_: ())


quick = pytest.mark.usefixtures("without_figures")


class Listening(SilentProgress):
    """Keeps messages and the names of stages."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.stages: list[str] = []

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        self.stages.append(description)
        with super().stage(description, total, unit) as stage:
            yield stage

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_diagnosis_holds_the_numbers(model: ChatModel, arguments: dict[str, Any]) -> None:
    found = diagnose(model, **arguments, **PROMPTS, output="d")
    sheet = found.sheet
    assert [one.condition for one in sheet.conditions] == ["none", "basic.txt", "other.txt"]
    for one in sheet.conditions:
        assert one.harmfulness is not None
        assert one.harmfulness.auc > 0.8  # w7 against w8
        assert one.accuracy is not None
        assert one.accuracy.queries == 40
        assert one.accuracy.value == pytest.approx(one.harmfulness.accuracy)
        assert one.harmful_refused.queries == one.harmless_refused.queries == 20
    assert len(sheet.explained_variance) == 4
    assert [layer.layer for layer in sheet.layers] == [1, 2]
    assert all(len(layer.harmfulness) == 3 for layer in sheet.layers)
    assert len(sheet.movements) == 4
    moved = sheet.moved("none", "basic.txt", "harmful")
    texts = [f"w{10 + row % 40} w7 w{row} ?" for row in range(20)]
    after = model.represent(texts, Condition(SafetyPrompt("p", "w1 w2 w3 w4 w5 .")))
    mean = (after - model.represent(texts)).mean(dim=0)
    assert moved.length == pytest.approx(float(mean.norm()), rel=1e-3)
    for misplaced in sheet.misplaced:
        assert misplaced.depth > 0
        assert len(misplaced.refused) == 3
    assert [one.depth for one in sheet.misplaced] == sorted(
        (one.depth for one in sheet.misplaced), reverse=True
    )
    assert str(found).startswith("This model tells harmful from harmless queries by itself")
    assert "The prompt basic.txt moves" in str(found)

    names = set(content(Path("d")))
    assert {"settings.json", "results.json", "directions.safetensors"} <= names
    assert len([name for name in names if name.startswith("measurements/")]) == 3 * 3
    assert not [name for name in names if "layers" in name and "figures" not in name]
    assert not [name for name in names if "basic" in name or "report" in name]
    again = Diagnosis.load("d")
    assert (again.results, again.settings) == (found.results, found.settings)
    none, basic, _ = again.anchors()
    assert (none.name, basic.name) == ("none", "basic.txt")
    assert torch.allclose(basic.states[:20], after, atol=1e-5)
    assert sum(basic.refusal_rates()[:20]) == pytest.approx(
        sheet.conditions[1].harmful_refused.count
    )
    assert again.held_out() == ()


def check_finished(arguments: dict[str, Any], model: ChatModel) -> None:
    listening = Listening()
    diagnose(model, **arguments, **PROMPTS, output="cut", progress=listening)
    assert "finished already" in listening.messages[0]
    assert listening.stages == []


def test_a_killed_diagnosis_goes_on_to_the_same_result(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    def work() -> None:
        diagnose(model, **arguments, **PROMPTS, output="cut")

    assert check_kills(work, Path("cut"), most=6) == 6
    check_finished(arguments, model)


@quick
def test_an_interrupted_diagnosis_goes_on_to_the_same_result(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    def work() -> None:
        diagnose(model, **arguments, **PROMPTS, output="cut")

    assert check_interrupts(work, Path("cut"), every=5) > 10
    check_finished(arguments, model)


@quick
def test_an_unfinished_diagnosis_is_none(model: ChatModel, arguments: dict[str, Any]) -> None:
    diagnose(model, **arguments, **PROMPTS, output="d")
    Path("d/results.json").unlink()
    with pytest.raises(DemurError, match="not finished"):
        Diagnosis.load("d")


@quick
def test_what_was_deleted_is_read_again(model: ChatModel, arguments: dict[str, Any]) -> None:
    """A finished diagnosis without one of its measurements is completed to the same files."""
    diagnose(model, **arguments, **PROMPTS, output="d")
    whole = content(Path("d"))
    for file in sorted(Path("d/measurements").iterdir())[:3]:
        file.unlink()
        diagnose(model, **arguments, **PROMPTS, output="d")
        assert content(Path("d")) == whole


def test_figures_that_are_lost_or_damaged_are_drawn_again(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="run")
    diagnose(model, run=run, prompts=["other.txt"], output="d")
    whole = content(Path("d"))
    damaged = [name for name in whole if name.startswith(("figures/", "directions"))]
    assert len(damaged) == 4 * 3 + 1
    monkeypatch.setattr(ChatModel, "read_and_sample", None)
    monkeypatch.setattr(ChatModel, "represent_layers", None)
    for place, name in enumerate(damaged):
        file = Path("d", name)
        file.unlink() if place % 2 else file.write_bytes(file.read_bytes()[:10])
    listening = Listening()
    diagnose(model, run=run, prompts=["other.txt"], output="d", progress=listening)
    assert listening.stages == ["Drawing the figures"]
    assert content(Path("d")) == whole


@quick
def test_layers_of_another_condition_are_never_used(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted behind the layers, with two prompts of one name that change places."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    first, second = SafetyPrompt("mine", "w1 w2 ."), SafetyPrompt("mine", "w9 w9 .")
    whole = diagnose(model, **arguments, prompts=[second, first], output="whole")
    with monkeypatch.context() as patch:
        patch.setattr("demur.diagnosis.work.make_sheet", stop)
        with pytest.raises(KeyboardInterrupt):
            diagnose(model, **arguments, prompts=[first, second], output="d")
    (Path("d") / "settings.json").unlink()
    found = diagnose(model, **arguments, prompts=[second, first], output="d")
    assert [one.condition for one in found.sheet.conditions] == ["none", "mine", "mine (2)"]
    assert found.sheet == whole.sheet


@quick
def test_a_run_is_shared_and_shown(model: ChatModel, arguments: dict[str, Any]) -> None:
    run = optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="demur-runs/r")
    listening = Listening()
    alone = diagnose(model, **arguments, **PROMPTS, progress=listening)
    assert alone.path == Path("demur-diagnoses") / Path(model.name).name
    assert sum("taking it from there" in text for text in listening.messages) == 2
    assert alone.sheet.movements[-1].queries == "anchors"

    found = diagnose(model, run="demur-runs/r", prompts=["other.txt"])
    assert found.path == Path("demur-diagnoses/r")
    # The directions come from the same readings, so the numbers agree.
    assert found.sheet.conditions == alone.sheet.conditions
    held_out = [one for one in found.sheet.movements if one.queries == "held-out"]
    assert [(one.before, one.after) for one in held_out] == [("none", "basic.txt")] * 2 + [
        ("basic.txt", "optimized")
    ] * 2
    for own, theirs in zip(found.held_out(), run.held_out(), strict=True):
        assert own.key == theirs.key
        assert torch.equal(own.states, theirs.states)
    assert content(diagnose(model, run=run, prompts=["other.txt"], output="object").path)
    fresh = diagnose(model, **arguments, **PROMPTS, output="fresh")
    assert fresh.sheet == alone.sheet
    measured = content(alone.path / "measurements")
    assert {name for name in measured if name.endswith("jsonl")} <= set(
        content(found.path / "measurements")
    )


@quick
def test_an_optimization_takes_what_a_diagnosis_has_read(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    first = optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="first")
    diagnose(model, **arguments, **PROMPTS)
    listening = Listening()
    second = optimize(
        model,
        basic_prompt="basic.txt",
        **arguments,
        **TRAINING,
        output="second",
        progress=listening,
    )
    assert sum("taking it from there" in text for text in listening.messages) == 2
    assert torch.equal(_embeddings(first), _embeddings(second))
    assert first.results.figures == second.results.figures


def _embeddings(run: Run) -> torch.Tensor:
    assert run.safety_prompt.embeddings is not None
    return run.safety_prompt.embeddings


@quick
def test_objects_stand_for_names(model: ChatModel, arguments: dict[str, Any]) -> None:
    named = diagnose(model, **arguments, prompts=["basic.txt"], output="named")

    class Judge:
        name = "mine"
        fingerprint = "1"

        def judge(
            self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
        ) -> list[bool | None]:
            return ["apologize" in response for response in responses]

    given = diagnose(
        model,
        prompts=[SafetyPrompt("mine", "w1 w2 w3 w4 w5 ."), None, "none"],
        harmful=load_query_set("bad.txt", "harmful"),
        harmless=Path("good.txt").read_text().splitlines(),
        **SAMPLING | {"judge": Judge()},
        output="objects",
    )
    assert [one.condition for one in given.sheet.conditions] == ["none", "mine"]
    assert given.settings.anchors.fingerprint == named.settings.anchors.fingerprint
    assert given.settings.objects == ("prompt", "harmful", "harmless", "judge")
    assert given.settings.settings.prompt == ("mine",)
    assert given.settings.judge.name == "mine"
    assert [one.fingerprint for one in given.settings.conditions] == [
        one.fingerprint for one in named.settings.conditions
    ]
    assert torch.equal(given.anchors()[1].states, named.anchors()[1].states)


@quick
def test_a_prompt_that_is_there_already_is_read_once(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    """Identity is what a condition is; a prompt called `none` is not no prompt."""
    Path("none.txt").write_text("w9 w9 .")
    Path("copy.txt").write_text("w9 w9 .")
    prompts: list[str | SafetyPrompt] = ["./none.txt", "copy.txt", SafetyPrompt("none", "w1 .")]
    found = diagnose(model, **arguments, prompts=prompts, output="d")
    assert [one.condition for one in found.sheet.conditions] == ["none", "none.txt", "none (2)"]
    states = [one.states for one in found.anchors()]
    assert not torch.equal(states[0], states[2])


@quick
@pytest.mark.parametrize("change", [{"seed": 1}, {"samples": 3}, {"harmful": "worse.txt"}])
def test_other_readings_are_not_shared(
    model: ChatModel, arguments: dict[str, Any], change: dict[str, Any]
) -> None:
    Path("worse.txt").write_text("\n".join(f"w{row} w7 w5 ?" for row in range(12)))
    diagnose(model, **{**arguments, **change}, **PROMPTS, output="demur-runs/x")
    listening = Listening()
    diagnose(model, **arguments, **PROMPTS, output="y", progress=listening)
    assert not listening.messages


@quick
def test_a_model_that_refuses_nothing_is_told_so(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    found = diagnose(model, **arguments, **PROMPTS, output="d")
    rows = [replace(one, refusal=None) for one in found.sheet.conditions]
    sheet = replace(found.sheet, refusal_is_readable=False, conditions=tuple(rows))
    verdict = " ".join(make_verdict(sheet))
    assert "no refusal direction" in verdict
    assert "it h" not in verdict  # neither helps nor hurts


@quick
def test_the_verdict_follows_from_the_numbers(model: ChatModel, arguments: dict[str, Any]) -> None:
    sheet = diagnose(model, **arguments, **PROMPTS, output="d").sheet

    def verdict(harmful: tuple[float, float, float], harmless: tuple[float, float, float]) -> str:
        """With (logits, change of the rate, p) for each label."""
        values = {"harmful": harmful, "harmless": harmless}
        movements = tuple(
            replace(
                one,
                moved=replace(one.moved, refusal=values[one.label][0], refusal_error=0.1),
                refused_change=values[one.label][1],
                p_value=values[one.label][2],
            )
            for one in sheet.movements
        )
        changed = replace(sheet, movements=movements, refusal_is_readable=True)
        return make_verdict(changed)[1]

    assert "both groups toward less refusal: it hurts" in verdict(
        (-1, -0.3, 0.001), (-1, -0.1, 0.2)
    )
    assert "both groups toward more refusal: it helps, but it refuses more harmless" in verdict(
        (1, 0.3, 0.001), (1, 0.2, 0.01)
    )
    assert "moves the groups apart" in verdict((1, 0.3, 0.001), (-1, -0.1, 0.2))
    assert "both groups slightly toward more" in verdict((0.23, 0.0, 1.0), (0.22, 0.0, 1.0))
    assert "wrong way round" in verdict((-1, 0.0, 1.0), (1, 0.0, 1.0))
    assert "moves neither group" in verdict((0.1, 0.0, 1.0), (0.1, 0.0, 1.0))
    assert "no more than by chance" in verdict((1, 0.3, 0.3), (1, 0.2, 0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "no prompt to diagnose"),
        ({"prompts": ["none"]}, "no prompt to diagnose"),
        ({"prompts": ["missing.txt"]}, "missing.txt"),
        ({"preset": "slow"}, "no preset 'slow'"),
        ({"components": 1}, "must be 2 to"),
        ({"components": 32}, "less than 32"),
        ({"harmful": "missing.txt"}, "missing.txt"),
        ({"run": "missing"}, "A run brings its own settings: leave out --preset"),
    ],
)
def test_mistakes_are_named(
    model: ChatModel, arguments: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DemurError, match=message):
        diagnose(model, **{**arguments, **PROMPTS, **change}, output="d")
    assert not Path("d").exists()


@quick
def test_damage_is_named(model: ChatModel, arguments: dict[str, Any]) -> None:
    diagnose(model, **arguments, **PROMPTS, output="d")
    whole = content(Path("d"))
    results = Path("d/results.json")
    results.write_text(results.read_text().replace("AUC 0", "AUC 1"))
    with pytest.raises(DemurError, match=r"results\.json is damaged: delete it"):
        Diagnosis.load("d")
    results.unlink()
    rows = sorted(Path("d/measurements").glob("*.jsonl"))[0]
    rows.write_bytes(rows.read_bytes().replace(b'"refused":true', b'"refused":null', 1))
    for attempt in range(2):
        with pytest.raises(DemurError, match="damaged") as caught:
            diagnose(model, **arguments, **PROMPTS, output="d")
        assert rows.with_suffix(".journal").name in str(caught.value), attempt
    rows.with_suffix(".journal").unlink()  # what the message says
    diagnose(model, **arguments, **PROMPTS, output="d")
    assert content(Path("d")) == whole


@quick
def test_a_run_of_another_model_is_refused(model: ChatModel, arguments: dict[str, Any]) -> None:
    optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="r")
    run = Run.load("r")
    record = replace(run.settings, model=replace(run.settings.model, identity="sha256:0"))
    with pytest.raises(DemurError, match="not of"):
        diagnose(model, run=replace(run, settings=record))
    with pytest.raises(DemurError, match="not the folder of a run"):
        diagnose(model, run="missing")
    with pytest.raises(DemurError, match="leave out --seed"):
        diagnose(model, run="r", seed=3)
    with pytest.raises(DemurError, match="leave out --harmful"):
        diagnose(model, run="r", harmful=["one?"] * 9)


@quick
def test_code_that_only_a_runs_folder_names_is_not_run(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    Path("judge.py").write_text(
        "from pathlib import Path\n"
        "Path('ran').touch()\n"
        "def mine(queries, responses):\n"
        "    return ['apologize' in one for one in responses]\n"
    )
    arguments |= {"judge": "judge.py:mine"}
    optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="r")
    Path("ran").unlink()
    with pytest.raises(DemurError, match="give the same judge with --judge"):
        diagnose(model, run="r", output="d")
    assert not Path("ran").exists()
    with pytest.raises(DemurError, match="which is not the judge that is given"):
        diagnose(model, run="r", judge="default", output="d")
    assert not Path("d").exists()
    assert diagnose(model, run="r", judge="judge.py:mine", output="d").sheet.movements


@quick
def test_names_are_never_paths(model: ChatModel, arguments: dict[str, Any], tmp_path: Path) -> None:
    outside = sorted(tmp_path.parent.iterdir())
    basic = SafetyPrompt("../../up", "w1 w2 w3 w4 w5 .")
    optimize(model, basic_prompt=basic, **arguments, **TRAINING, output="x/..name $(touch y)")
    prompts = [SafetyPrompt("../../away", "w9 w9 ."), SafetyPrompt("/tmp/x/y.jsonl", "w8 .")]
    found = diagnose(model, run="x/..name $(touch y)", prompts=prompts)
    assert found.path == Path("demur-diagnoses/name-touch-y")
    assert [one.condition for one in found.sheet.conditions][1:] == [
        *("../../up", "../../away", "/tmp/x/y.jsonl"),
    ]
    assert sorted(tmp_path.parent.iterdir()) == outside
    assert not [
        name for name in content(Path()) if "up" in name or "away" in name or "y.js" in name
    ]


def test_the_command_prints_the_verdict_and_show_prints_it_again(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny_model(tmp_path / "tiny")
    words = ["diagnose", "tiny", "--harmful", "bad.txt", "--harmless", "good.txt"]
    words += ["--samples", "4", "--tokens", "4", "--dtype", "float32", "--prompt", "basic.txt"]
    result = demur(*words)
    out = done(result)
    for expected in ("This model tells", "none", "basic.txt", "AUC by layer", "demur-diagnoses"):
        assert expected in out
    assert "Reading every layer: basic.txt" in result.err
    assert Path("demur-diagnoses/tiny/report.html").is_file()
    assert done(demur("show", "demur-diagnoses/tiny")) == out
    assert "leave out --seed" in mistake(demur("diagnose", "--run", "r", "--seed", "3"))


def table(file: str) -> list[dict[str, str]]:
    with Path(file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_figures_come_as_png_svg_and_data(model: ChatModel, arguments: dict[str, Any]) -> None:
    optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="demur-runs/r")
    found = diagnose(model, run="demur-runs/r", prompts=["other.txt"], output="d")
    names = ["a-groups", "b-refusal", "c-optimized", "d-layers"]
    files = sorted(Path("d/figures").iterdir())
    assert [file.name for file in files] == [
        f"{name}.{kind}" for name in names for kind in ("csv", "png", "svg")
    ]
    for name in names:
        assert Path(f"d/figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        picture = ElementTree.parse(f"d/figures/{name}.svg").getroot()
        assert picture.tag.endswith("svg")
    rows = table("d/figures/a-groups.csv")
    assert len(rows) == 3 * 40
    assert {row["condition"] for row in rows} == {"none", "basic.txt", "other.txt"}
    rates = [float(row["refused"]) for row in rows if row["condition"] == "none"]
    none = found.sheet.conditions[0]
    whole = (none.harmful_refused.count + none.harmless_refused.count) / 40
    assert sum(rates) / 40 == pytest.approx(whole)
    held_out = table("d/figures/c-optimized.csv")
    assert {row["condition"] for row in held_out} == {"none", "basic.txt", "optimized"}
    layers = table("d/figures/d-layers.csv")
    assert {row["layer"] for row in layers} == {"1", "2"}


def test_names_cannot_be_formulas_in_figures_or_tables(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    Path("=1+$x^{$\u4e2d.txt").write_text("w9 w9 .")
    Path("bad.txt").write_text("\n".join(f"=w{row} w7 w{row} ?" for row in range(20)))
    diagnose(model, **arguments, prompts=["=1+$x^{$\u4e2d.txt"], output="d")
    rows = table("d/figures/a-groups.csv")
    assert {row["condition"][:2] for row in rows} == {"no", "'="}
    assert not [cell for row in rows for cell in row.values() if cell.startswith("=")]
    assert Path("d/figures/a-groups.svg").stat().st_size > 1000


@pytest.mark.parametrize("backend", ["nonsense", "tkagg"])
def test_figures_need_no_window(backend: str) -> None:
    code = "import os\nfrom demur.drawing import drawing, new_figure\n"
    code += "with drawing():\n    new_figure(1, 1)\nassert os.environ['MPLBACKEND']"
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MPLBACKEND": backend}, check=True
    )


def test_drawing_is_imported_nowhere_else() -> None:
    """Figures must not slow down the other commands."""
    code = (
        "import sys, demur.diagnosis, demur.cli, demur.diagnosis.figures; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
