"""The model that `chat` and `evaluate` load where only a trained prompt is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from demur.chat.settings import LoadSettings
from demur.errors import DemurError
from tests.command_line import demur, mistake
from tests.report_folders import MODEL, finished_run


class Stopped:
    """Stands for loading a model, and keeps which one was asked for."""

    def __init__(self) -> None:
        self.asked: list[LoadSettings] = []

    def __call__(self, settings: LoadSettings, *_: object) -> None:
        self.asked.append(settings)
        raise DemurError("Stopped here.")


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    found = Stopped()
    monkeypatch.setattr("demur.chat.chosen.load_chosen", found)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run", system=None)


@pytest.mark.parametrize("verb", ["chat", "evaluate"])
def test_a_run_brings_its_model(verb: str, stopped: Stopped, run: Path) -> None:
    assert "Stopped here" in mistake(demur(verb, "--prompt", "none", "--prompt", run))
    (asked,) = stopped.asked
    assert (asked.model, asked.dtype) == (MODEL.name, "float32")


@pytest.mark.parametrize("verb", ["chat", "evaluate"])
def test_what_is_named_comes_first(verb: str, stopped: Stopped, run: Path) -> None:
    mistake(demur(verb, "my-org/my-model", "--prompt", run))
    mistake(demur(verb, "--prompt", "long"))
    assert [one.model for one in stopped.asked] == ["my-org/my-model", None]


@pytest.mark.parametrize("verb", ["chat", "evaluate"])
def test_a_strangers_prompt_names_no_path(
    verb: str, stopped: Stopped, run: Path, tmp_path: Path
) -> None:
    prompt = shutil.copytree(run / "safety_prompt", tmp_path / "prompt")
    told = mistake(demur(verb, "--prompt", prompt))
    assert not stopped.asked
    assert "give that model's folder or file" in told
