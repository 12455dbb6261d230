"""A prompt that was trained behind an application's system text is used behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demur import DemurError
from demur.cli.chat import ChatOptions, run_chat
from demur.evaluation.chosen import Chosen, choose
from demur.evaluation.settings import EvaluateSettings, QuerySettings
from demur.progress import SilentProgress
from demur.prompts import Condition, load_prompt, system_text_for, trained_behind
from demur.records import SETTINGS
from tests.command_line import demur, mistake
from tests.report_folders import finished_run

SAFFRON = "You are Saffron, who helps people to cook."


class Heard(SilentProgress):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "app", basic="mine.txt", system=SAFFRON)


def chosen(progress: Heard, *prompts: str | Path, system: str | Path | None = None) -> Chosen:
    settings = EvaluateSettings(
        prompt=tuple(map(str, prompts)),
        system_prompt=None if system is None else str(system),
        queries=QuerySettings(harmful=("held-out",)),
    )
    return choose(settings, ("none",), progress)


def test_an_evaluation_of_a_run_takes_its_system_text_over(run: Path, tmp_path: Path) -> None:
    heard = Heard()
    conditions = chosen(heard, "none", run).conditions
    assert [one.system_prompt for one in conditions] == [SAFFRON, SAFFRON]
    assert len(heard.messages) == 1
    assert f"that {run} was trained behind" in heard.messages[0]

    other = tmp_path / "other.txt"
    other.write_text("You are Basil.")
    for system, expected in ((other, "You are Basil."), ("none", None)):
        heard = Heard()
        conditions = chosen(heard, "none", run, system=system).conditions
        assert {one.system_prompt for one in conditions} == {expected}
        assert heard.messages == []


def test_a_run_without_one_and_other_prompts_bring_none(tmp_path: Path) -> None:
    plain = finished_run(tmp_path / "plain", basic="mine.txt", system=None)
    heard = Heard()
    conditions = chosen(heard, "none", "long", plain).conditions
    assert {one.system_prompt for one in conditions} == {None}
    assert heard.messages == []
    assert trained_behind("long") is None
    assert trained_behind(plain / "safety_prompt") is None
    assert trained_behind("\0") is None


def test_a_saved_prompt_says_that_its_text_is_missing(run: Path) -> None:
    heard = Heard()
    saved = run / "safety_prompt"
    assert chosen(heard, saved).conditions[0].system_prompt is None
    assert "safety_prompt was trained behind an application's system text" in heard.messages[0]
    assert "--system-prompt FILE" in heard.messages[0]
    prompt = load_prompt(run)
    assert system_text_for(None, [prompt], [prompt]).remark.startswith("app was trained behind")


def test_two_texts_are_not_mixed(run: Path, tmp_path: Path) -> None:
    other = finished_run(tmp_path / "other", basic="mine.txt", system="You are Basil.")
    with pytest.raises(
        DemurError, match=r"different system texts: give .* --system-prompt none\.$"
    ):
        chosen(Heard(), run, other)
    assert "different system texts" in mistake(
        demur("evaluate", "--prompt", run, "--prompt", other)
    )
    choices, prompts = [run, other], [load_prompt(run), load_prompt(other)]
    assert system_text_for("none", choices, prompts).text is None


def test_damaged_settings_are_named(run: Path) -> None:
    file = run / SETTINGS
    document = json.loads(file.read_text(encoding="utf-8"))
    document["content"]["basic_prompt"]["system_prompt"] = "Obey."
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DemurError, match=r"settings\.json is damaged"):
        trained_behind(run)


def test_a_chat_takes_it_over(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Condition] = []

    class Talked:
        failed = 0

        def __init__(self, dialogue: Condition, *_: object) -> None:
            seen.append(dialogue)

        def run(self) -> None:
            pass

    monkeypatch.setattr("demur.chat.chosen.load_chosen", lambda *_: None)
    monkeypatch.setattr("demur.chat.Dialogue", lambda _model, condition, _settings: condition)
    monkeypatch.setattr("demur.cli.talk.Talk", Talked)
    run_chat(ChatOptions.model_validate({"prompt": (str(run),), "load": {"model": "tiny"}}))
    assert seen[0].system_prompt == SAFFRON
    assert "Using the application's system text" in capsys.readouterr().err
