"""The text that a run brings: that of a wording run too, and none with `--system-prompt none`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from demur.cli.chat import ChatOptions
from demur.cli.export import ExportOptions
from demur.evaluation.chosen import choose
from demur.evaluation.settings import EvaluateSettings
from demur.progress import SilentProgress
from demur.prompts import trained_behind
from demur.settings import build, options_of, read_toml, values_of
from tests.command_line import demur, mistake
from tests.report_folders import finished_run
from tests.wording_server import BASIC, MODEL, PROPOSER, queries, running

NEEDED: dict[type[BaseModel], dict[str, object]] = {
    EvaluateSettings: {},
    ChatOptions: {},
    ExportOptions: {"run": "run", "folder": "folder", "to": "peft"},
}


@pytest.mark.parametrize("kind", NEEDED)
def test_none_is_another_value_than_the_default(kind: type[BaseModel], tmp_path: Path) -> None:
    plain = build(kind, NEEDED[kind])
    none = build(kind, {**NEEDED[kind], "system_prompt": "none"})
    assert values_of(plain)["system_prompt"] is None
    assert values_of(none)["system_prompt"] == "none"
    assert options_of(none, plain)[-2:] == ["--system-prompt", "none"]
    assert options_of(plain, none)[-2:] == ["--system-prompt", ""]
    assert build(kind, {"system_prompt": ""}, none) == plain
    file = tmp_path / "demur.toml"
    file.write_text('system_prompt = "none"\n')
    assert read_toml(file, kind)["system_prompt"] == "none"


def test_an_evaluation_of_a_run_leaves_its_text_out(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "app", basic="mine.txt", system="You are Saffron.")
    values = {"prompt": (str(run),), "harmful": ("held-out",)}
    for system, expected in ((None, "You are Saffron."), ("none", None)):
        settings = build(EvaluateSettings, {**values, "system_prompt": system})
        (condition,) = choose(settings, ("none",), SilentProgress()).conditions
        assert condition.system_prompt == expected


def test_a_wording_run_brings_its_text(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")
    pytest.importorskip("gepa", reason="gepa is not installed: pip install 'demur[gepa]'")
    from demur import SafetyPrompt, Server, optimize_wording

    text = tmp_path / "text.txt"
    text.write_text("You are Saffron.")
    sets: dict[str, Any] = {
        f"{target}{kind}": queries(kind, target or "training_")
        for target in ("", "validation_", "held_out_")
        for kind in ("harmful", "harmless")
    }
    with running(lambda _: "") as server:
        path = tmp_path / "wording"
        optimize_wording(
            Server(server.url, MODEL, retries=0),
            basic_prompt=SafetyPrompt("mine", BASIC),
            system_prompt=text,
            output=path,
            budget_calls=400,
            proposer_model=PROPOSER,
            **sets,
        )
    assert trained_behind(path) == "You are Saffron."


def test_the_command_compares_runs_behind_different_texts_without_them(tmp_path: Path) -> None:
    texts = {"saffron": "You are Saffron.", "basil": "You are Basil."}
    runs = [
        finished_run(tmp_path / name, basic="mine.txt", system=text) for name, text in texts.items()
    ]
    prompts = [part for run in runs for part in ("--prompt", run)]
    model = tmp_path / "no-model"
    assert "different system texts" in mistake(demur("evaluate", model, *prompts))
    said = mistake(demur("evaluate", model, *prompts, "--system-prompt", "none"))
    assert (
        "are the same prompt" in said
    )  # so the runs of this test are, once the texts are left out
