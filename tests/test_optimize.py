"""The whole pipeline on a tiny model: results, resuming, refusing bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from demur import ChatModel, DemurError, Run, SafetyPrompt, optimize
from demur.optimization import PRESETS, OptimizeSettings
from demur.progress import SilentProgress, Stage
from tests.tiny import save_tiny_model

SMALL: dict[str, Any] = {
    "preset": "quick",
    "samples": 4,
    "tokens_harmful": 4,
    "tokens_harmless": 4,
    "epochs": 2,
    "batch": 8,
    "learning_rate": 0.05,
    "most_anchors": 20,
    "most_held_out": 10,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def basic_prompt(tmp_path: Path) -> str:
    file = tmp_path / "basic.txt"
    file.write_text("w1 w2 w3 w4 w5 .")
    return str(file)


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    """Anchors that the tiny model can tell apart."""
    harmful = [f"w{10 + row % 40} w7 w{row} ?" for row in range(20)]
    harmless = [f"w{10 + row % 40} w8 w{row} ?" for row in range(20)]
    (tmp_path / "harmful.txt").write_text("\n".join(harmful))
    (tmp_path / "harmless.csv").write_text("n,q\n" + "\n".join(f"1,{text}" for text in harmless))
    return {
        "harmful": str(tmp_path / "harmful.txt"),
        "harmless": str(tmp_path / "harmless.csv") + ":q",
    }


@pytest.fixture
def arguments(basic_prompt: str, words: dict[str, str]) -> dict[str, Any]:
    return {"basic_prompt": basic_prompt, **words, **SMALL}


class Interrupting(SilentProgress):
    """Raises `KeyboardInterrupt` at the n-th sign of progress."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        yield self

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


def test_a_run_holds_everything(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    assert [result.prompt for result in run.evaluation.results] == [
        "none",
        "basic.txt",
        "optimized",
    ]
    for result in run.evaluation.results:
        assert result.harmful_refused.queries == result.harmless_refused.queries == 10
        assert 0 <= result.harmful_refused.value <= 1
    assert run.evaluation["none"].divergence == pytest.approx(0, abs=1e-6)
    assert run.evaluation["optimized"].divergence > 0
    assert len(run.history) == 2
    assert run.safety_prompt.embeddings is not None
    assert run.safety_prompt.embeddings.shape == (6, 32)
    basic = model.prompt_embeddings(SafetyPrompt("basic", "w1 w2 w3 w4 w5 ."))
    assert not torch.equal(run.safety_prompt.embeddings, basic)

    names = set(content(tmp_path / "run"))
    assert {"settings.json", "metrics.json", "directions.safetensors"} <= names
    assert "safety_prompt/safety_prompt.safetensors" in names
    lines = (tmp_path / "run/responses/held-out-optimized.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 20
    assert all(len(row["responses"]) == 4 for row in rows)
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert set(OptimizeSettings.model_fields) <= set(settings)
    assert settings["model"]["dtype"] == "float32"

    again = Run.load(tmp_path / "run")
    assert again.evaluation == run.evaluation
    assert again.examples == run.examples
    loaded = SafetyPrompt.load(tmp_path / "run")
    assert loaded.embeddings is not None
    assert torch.equal(loaded.embeddings, run.safety_prompt.embeddings)
    assert loaded.metadata["results"] == run.evaluation.to_json()


def test_training_lowers_the_loss(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    arguments |= {"epochs": 12, "learning_rate": 0.02}
    run = optimize(model, **arguments, output=tmp_path / "run")
    assert run.history[-1]["loss"] < run.history[0]["loss"] - 0.01
    assert run.history[0].keys() == {"loss", "refusal", "harmfulness", "complement"}


@pytest.mark.parametrize("after", [0, 3, 47, 300, 481, 486, 500, 648, 655, 700])
def test_an_interrupted_run_goes_on_to_the_same_result(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path, after: int
) -> None:
    expected = optimize(model, **arguments, output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        optimize(model, **arguments, output=tmp_path / "cut", progress=Interrupting(after))
    optimize(model, **arguments, output=tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert Run.load(tmp_path / "cut").evaluation == expected.evaluation


def test_a_finished_run_is_shown_and_not_repeated(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    again = optimize(model, **arguments, output=tmp_path / "run", progress=Interrupting(0))
    assert again.evaluation == run.evaluation


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
    with pytest.raises(DemurError, match=r"another components.*choose another --output"):
        optimize(model, **arguments, components=3, output=tmp_path / "run")
    assert content(tmp_path / "run") == before


def test_a_folder_that_is_no_run_is_left_alone(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(DemurError, match="something other than a run"):
        optimize(model, **arguments, output=tmp_path / "mine")
    assert content(tmp_path / "mine") == {"thesis.txt": b"precious"}


def test_a_truncated_checkpoint_is_named(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    optimize(model, **arguments, output=tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    checkpoint = tmp_path / "run/training.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(DemurError, match=r"training\.safetensors is damaged"):
        optimize(model, **arguments, output=tmp_path / "run")


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
    assert again.evaluation == expected.evaluation


def test_a_model_that_never_refuses_is_refused(
    model: ChatModel,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("demur.judges.PaperRefusalJudge.refuses", lambda _self, _text: False)
    with pytest.raises(DemurError, match=r"refuses \(almost\) none.*none: harmful 0\.0%"):
        optimize(model, **arguments, output=tmp_path / "run")
    assert not (tmp_path / "run/training.safetensors").exists()


def test_too_few_queries_a_long_query_and_a_bad_setting(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("w1 ?\nw2 ?")
    with pytest.raises(DemurError, match="10"):
        optimize(model, **(arguments | {"harmful": str(few)}), output=tmp_path / "run")
    long = tmp_path / "long.txt"
    long.write_text("\n".join([f"w{row} ?" for row in range(12)] + ["w1 " * 400]))
    with pytest.raises(DemurError, match=r"more than the 256.*shorten or drop it"):
        optimize(model, **(arguments | {"harmful": str(long)}), output=tmp_path / "run")
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
    run = optimize(model, **arguments, system_prompt=str(system), output=tmp_path / "run")
    assert run.safety_prompt.rows == 6
    assert run.settings["system_prompt"] == "w30 w31"
    without = optimize(model, **arguments, output=tmp_path / "without")
    assert run.evaluation != without.evaluation


def test_the_paper_preset_is_the_paper(tmp_path: Path) -> None:
    assert PRESETS["paper"] == {}
    paper = OptimizeSettings.preset("paper")
    assert (paper.components, paper.folds, paper.epochs, paper.batch) == (4, 10, 40, 50)
    assert (paper.learning_rate, paper.gradient_norm) == (1e-3, 1.0)
    weights = (paper.weight_refusal, paper.weight_harmfulness, paper.weight_complement)
    assert weights == (1.0, 0.01, 0.001)
    assert (paper.samples, paper.kept_samples, paper.least_tokens) == (25, 20, 10)
    assert (paper.tokens_harmful, paper.tokens_harmless) == (300, 200)
    assert (paper.temperature, paper.top_p, paper.top_k) == (1.0, 0.9, 50)
    assert not paper.learning_rate_decay
    assert not paper.averaged_prompt
    assert paper.weight_harmless == 1
    assert paper.protocol.kept == 20
    assert OptimizeSettings.preset("paper", samples=3).protocol.kept == 3


def test_the_run_folder_can_be_moved(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(model, **arguments, output=tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert Run.load(tmp_path / "moved").evaluation == run.evaluation
    with pytest.raises(DemurError, match="not the folder of a run"):
        Run.load(tmp_path / "run")
