"""The diagnosis on a tiny model: numbers, files, going on, sharing with a run."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from demur import (
    ChatModel,
    Condition,
    DemurError,
    Diagnosis,
    SafetyPrompt,
    diagnose,
    optimize,
)
from demur.cli import main
from demur.diagnosis.verdict import make_verdict
from demur.progress import SilentProgress, Stage
from tests.tiny import save_tiny_model

SAMPLING: dict[str, Any] = {
    "preset": "quick",
    "samples": 4,
    "tokens_harmful": 4,
    "tokens_harmless": 4,
    "most_anchors": 20,
}
TRAINING: dict[str, Any] = {"epochs": 1, "batch": 8, "learning_rate": 0.05, "most_held_out": 10}


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


PROMPTS: dict[str, Any] = {"prompts": ["basic.txt", "other.txt"]}


class Listening(SilentProgress):
    """Hears messages; raises `KeyboardInterrupt` at the n-th sign of progress."""

    def __init__(self, after: float = float("inf")) -> None:
        self.left = after
        self.messages: list[str] = []
        self.stages: list[str] = []

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        self.stages.append(description)
        yield self

    def message(self, text: str) -> None:
        self.messages.append(text)

    def advance(self, amount: float = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


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
    assert all(
        set(layer.harmfulness) == {"none", "basic.txt", "other.txt"} for layer in sheet.layers
    )
    assert len(sheet.movements) == 4
    moved = sheet.moved("none", "basic.txt", "harmful")
    texts = [f"w{10 + row % 40} w7 w{row} ?" for row in range(20)]
    after = model.represent(texts, Condition(SafetyPrompt("p", "w1 w2 w3 w4 w5 .")))
    mean = (after - model.represent(texts)).mean(dim=0)
    assert moved.length == pytest.approx(float(mean.norm()), rel=1e-3)
    for misplaced in sheet.misplaced:
        assert misplaced.depth > 0
        assert set(misplaced.refused) == {"none", "basic.txt", "other.txt"}
    assert [one.depth for one in sheet.misplaced] == sorted(
        (one.depth for one in sheet.misplaced), reverse=True
    )
    assert str(found).startswith("This model tells harmful from harmless queries by itself")
    assert "The prompt basic.txt moves" in str(found)

    names = set(content(Path("d")))
    assert {"settings.json", "diagnosis.json", "directions.safetensors"} <= names
    assert "responses/anchors-1-basic.txt.jsonl" in names
    assert not [name for name in names if "unfinished" in name]
    again = Diagnosis.load("d")
    assert (again.sheet, again.verdict) == (found.sheet, found.verdict)


@pytest.mark.parametrize("after", [1, 330, 484, 487])
def test_an_interrupted_diagnosis_goes_on_to_the_same_result(
    model: ChatModel, arguments: dict[str, Any], after: int
) -> None:
    diagnose(model, **arguments, **PROMPTS, output="whole")
    with pytest.raises(KeyboardInterrupt):
        diagnose(model, **arguments, **PROMPTS, output="cut", progress=Listening(after))
    with pytest.raises(DemurError, match="not finished"):
        Diagnosis.load("cut")
    diagnose(model, **arguments, **PROMPTS, output="cut")
    assert content(Path("cut")) == content(Path("whole"))
    heard = Listening(0)
    diagnose(model, **arguments, **PROMPTS, output="cut", progress=heard)
    assert "finished already" in heard.messages[0]


def test_a_run_is_shared_and_shown(model: ChatModel, arguments: dict[str, Any]) -> None:
    optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="demur-runs/r")
    assert Path("demur-runs/r/representations/training-epoch-1.safetensors").is_file()
    assert "during epoch 1" in Path("demur-runs/r/report.html").read_text(encoding="utf-8")
    heard = Listening()
    alone = diagnose(model, **arguments, **PROMPTS, progress=heard)
    assert alone.path == Path("demur-diagnoses") / Path(model.name).name
    assert sum("taking them from there" in text for text in heard.messages) == 2
    assert alone.sheet.movements[-1].queries == "anchors"

    found = diagnose(model, run="demur-runs/r", prompts=["other.txt"])
    assert found.path == Path("demur-diagnoses/r")
    assert "Held-out queries" in (found.path / "report.html").read_text(encoding="utf-8")
    # The directions come from the same readings, so the numbers agree.
    assert found.sheet.conditions == alone.sheet.conditions
    held_out = [one for one in found.sheet.movements if one.queries == "held-out"]
    assert [(one.before, one.after) for one in held_out] == [("none", "basic.txt")] * 2 + [
        ("basic.txt", "optimized")
    ] * 2
    diagnose(model, **arguments, **PROMPTS, output="fresh")
    assert content(Path("fresh/responses")) == content(alone.path / "responses")


def test_an_optimization_takes_what_a_diagnosis_has_read(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="first")
    diagnose(model, **arguments, **PROMPTS)
    heard = Listening()
    optimize(
        model, basic_prompt="basic.txt", **arguments, **TRAINING, output="second", progress=heard
    )
    assert sum("taking them from there" in text for text in heard.messages) == 2
    assert content(Path("first")) == content(Path("second"))


@pytest.mark.parametrize("change", [{"seed": 1}, {"samples": 3}, {"harmful": "worse.txt"}])
def test_other_readings_are_not_shared(
    model: ChatModel, arguments: dict[str, Any], change: dict[str, Any]
) -> None:
    Path("worse.txt").write_text("\n".join(f"w{row} w7 w5 ?" for row in range(12)))
    diagnose(model, **arguments, **PROMPTS)
    heard = Listening()
    diagnose(model, **{**arguments, **change}, **PROMPTS, output="demur-runs/x")
    diagnose(model, **arguments, **PROMPTS, output="y", progress=heard)
    assert not heard.messages


def test_a_model_that_refuses_nothing_is_told_so(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    found = diagnose(model, **arguments, **PROMPTS, output="d")
    rows = [replace(one, refusal=None) for one in found.sheet.conditions]
    sheet = replace(found.sheet, refusal_is_readable=False, conditions=tuple(rows))
    verdict = " ".join(make_verdict(sheet))
    assert "no refusal direction" in verdict
    assert "it h" not in verdict  # neither helps nor hurts


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
    assert "both groups toward more refusal: it helps, and harmless queries pay" in verdict(
        (1, 0.3, 0.001), (1, 0.2, 0.01)
    )
    assert "moves the groups apart" in verdict((1, 0.3, 0.001), (-1, -0.1, 0.2))
    assert "both groups slightly toward more" in verdict((0.23, 0.0, 1.0), (0.22, 0.0, 1.0))
    assert "wrong way round" in verdict((-1, 0.0, 1.0), (1, 0.0, 1.0))
    assert "moves neither group" in verdict((0.1, 0.0, 1.0), (0.1, 0.0, 1.0))
    assert "no more than chance" in verdict((1, 0.3, 0.3), (1, 0.2, 0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "no prompt to diagnose"),
        ({"prompts": ["none"]}, "no prompt to diagnose"),
        ({"prompts": ["missing.txt"]}, "missing.txt"),
        ({"preset": "slow"}, "no preset 'slow'"),
        ({"components": 1}, "at least 2"),
        ({"components": 32}, "less than 32"),
        ({"harmful": "missing.txt"}, "missing.txt"),
        ({"run": "missing"}, "not the folder of a run"),
    ],
)
def test_mistakes_are_named(
    model: ChatModel, arguments: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DemurError, match=message):
        diagnose(model, **{**arguments, **PROMPTS, **change}, output="d")
    assert not Path("d").exists()


def test_damage_is_named(model: ChatModel, arguments: dict[str, Any]) -> None:
    diagnose(model, **arguments, **PROMPTS, output="d")
    Path("d/diagnosis.json").write_text("{}")
    with pytest.raises(DemurError, match="damaged"):
        Diagnosis.load("d")


def test_a_run_of_another_model_is_refused(model: ChatModel, arguments: dict[str, Any]) -> None:
    optimize(model, basic_prompt="basic.txt", **arguments, **TRAINING, output="r")
    shutil.copytree("r", "other")
    settings = json.loads(Path("other/settings.json").read_text())
    settings["model"]["identity"] = "sha256:0"
    Path("other/settings.json").write_text(json.dumps(settings))
    with pytest.raises(DemurError, match="not of"):
        diagnose(model, run="other")


def test_the_command_prints_the_verdict_and_show_prints_it_again(
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    save_tiny_model(tmp_path / "tiny")

    def demur(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    words = ["diagnose", "tiny", "--harmful", "bad.txt", "--harmless", "good.txt"]
    words += ["--samples", "4", "--tokens", "4", "--dtype", "float32", "--prompt", "basic.txt"]
    status, out, err = demur(*words)
    assert status == 0, err
    for expected in ("This model tells", "none", "basic.txt", "AUC by layer", "demur-diagnoses"):
        assert expected in out
    assert "Reading every layer: basic.txt" in err
    assert demur("show", "demur-diagnoses/tiny")[1] == out
    status, out, err = demur("diagnose", "--run", "r", "--seed", "3")
    assert (status, out) == (2, "")
    assert "leave out --seed" in err


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


def test_drawing_is_imported_by_nobody_else() -> None:
    """Figures must not slow down the other commands."""
    code = (
        "import sys, demur.diagnosis, demur.cli, demur.diagnosis.figures; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
