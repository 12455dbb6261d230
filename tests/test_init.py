"""`demur init`: files to start from, which the other commands take as they are."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from demur.cli.config import FILE
from demur.cli.init import ANSWER, PROMPT, REFUSE
from demur.cli.optimize import optimize_command
from demur.prompts import load_basic_prompt
from demur.queries import load_query_set
from demur.settings import options_in, read_toml
from tests.command_line import demur, done, mistake
from tests.tiny import save_tiny_model


def test_the_files_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny_model(tmp_path / "a tiny model")
    out = done(demur("init", tmp_path / "my app", "--model", model))
    assert f"cd '{tmp_path}/my app'" in out
    monkeypatch.chdir(tmp_path / "my app")
    assert load_basic_prompt(PROMPT).text == load_basic_prompt("long").text
    for name in (REFUSE, ANSWER):
        assert len(load_query_set(name, "harmful")) == 5
    chosen = optimize_command().choose({}, Path(FILE))
    assert chosen.load.model == str(model)
    assert chosen.queries.harmful == ("training", REFUSE)
    line = next(line for line in out.splitlines() if line.startswith("demur evaluate"))
    words = shlex.split(line)[1:]
    assert words[:2] == ["evaluate", str(model)]
    assert "my-prompt" in done(demur(*words, "--tokens", 2))


def test_a_path_of_a_model_holds_in_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that it names are run in there, where a path from here leads elsewhere."""
    model = save_tiny_model(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    out = done(demur("init", "app", "--model", "models/mine"))
    assert optimize_command().choose({}, Path("app") / FILE).load.model == str(model)
    assert f"demur evaluate {model} --prompt none" in out
    assert f"demur optimize --config {FILE} --output demur-runs/my-run" in out
    assert f"demur evaluate {model} --prompt {PROMPT} --prompt demur-runs/my-run --harmful" in out
    here = done(demur("init", "--model", "models/mine"))
    assert optimize_command().choose({}, Path(FILE)).load.model == "models/mine"
    assert "demur evaluate models/mine --prompt none" in here
    assert "\ndemur evaluate --prompt none" in done(demur("init", "other"))


def test_the_way_into_a_folder_works_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-P", "my $HOME 'app'"):
        out = done(demur("init", "--", name))
        line = next(line for line in out.splitlines() if line.startswith("cd "))
        shell = subprocess.run(
            ["sh", "-c", f"{line} && pwd"], check=True, capture_output=True, text=True
        )
        assert shell.stdout.strip() == str(tmp_path / name)


def test_each_default_is_the_one_that_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done(demur("init"))
    written = Path(FILE).read_text()
    command = optimize_command()
    for option in options_in(command.settings):
        assert len(re.findall(rf"^(?:# )?{option.name} = ", written, re.MULTILINE)) == 1
    text = re.sub(r"^# (\w+ = (?!\.\.\.).*)$", r"\1", written, flags=re.MULTILINE)
    Path("all.toml").write_text(text)
    assert len(read_toml(Path("all.toml"), command.settings)) > 40
    assert command.choose({}, Path("all.toml")) == command.choose({}, Path(FILE))


def test_what_people_change_stands_at_the_top(tmp_path: Path) -> None:
    done(demur("init", tmp_path, "--model", "qwen2.5-coder-1.5b"))
    written = (tmp_path / FILE).read_text()
    top, rest = written.split("\n# Everything below may stay as it is.")
    assert len(top.splitlines()) < 40
    set_there = re.findall(r"^(\w+) = ", top, re.MULTILINE)
    assert set_there == ["model", "basic_prompt", "system_prompt", "harmful", "harmless", "preset"]
    assert not re.findall(r"^\w+ = ", rest, re.MULTILINE)
    assert "Everything below them may stay as it is." in " ".join(top.split())
    assert all(len(line) <= 80 for line in written.splitlines())
    assert "likewise" not in written


def test_every_line_may_be_used_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose value is left open is one of its table as well."""
    monkeypatch.chdir(tmp_path)
    done(demur("init"))
    written = Path(FILE).read_text()
    assert " = ...\n" in written
    text = re.sub(r"^# (\w+ = )\.\.\.$", r"\g<1>1", written, flags=re.MULTILINE)
    text = re.sub(r"^# (\w+ = .*)$", r"\1", text, flags=re.MULTILINE)
    Path("all.toml").write_text(text)
    settings = optimize_command().settings
    assert set(read_toml("all.toml", settings)) == {one.name for one in options_in(settings)}


def test_nothing_that_is_there_is_changed(tmp_path: Path) -> None:
    (tmp_path / REFUSE).write_text("mine")
    assert f"{tmp_path / REFUSE} exists already" in mistake(demur("init", tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == [REFUSE]
    assert (tmp_path / REFUSE).read_text() == "mine"
    assert mistake(demur("init", tmp_path / REFUSE))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "refuse.txt").write_text("w1")
    line = mistake(demur("init", tmp_path / "refuse.txt"))
    assert line.endswith("refuse.txt is a file: give the name of a folder.")


def test_settings_that_are_not_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = f"{FILE} lies here and is not read: add --config {FILE} to use it."
    command = ("optimize", "--basic-prompt", "./my-prompt.txt", "no-model")
    done(demur("init"))
    assert told in demur(*command).err
    assert told not in demur(*command, "--config", FILE).err
    assert told not in demur("evaluate", "no-model").err
    Path(FILE).unlink()
    assert told not in demur(*command).err


def test_a_model_that_is_not_there_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = done(demur("init", "app", "--model", "qwen2.5-coder-0.6b"))
    assert "Before you go on: 'qwen2.5-coder-0.6b' is neither a catalog model" in out
    assert "(did you mean" in out
    out = done(demur("init", "other", "--model", "./later/mine"))
    assert "Before you go on: './later/mine' is neither" in out
    chosen = optimize_command().choose({}, Path("other") / FILE)
    assert chosen.load.model == str(tmp_path / "later" / "mine")
    assert "Before you go on" not in done(demur("init", "third", "--model", "org/on-the-hub"))


@pytest.mark.parametrize("name", ["\N{GRINNING FACE}", "a\x7fb", 'q"]\n[x]', "\\u0041", "\u202e"])
def test_any_name_of_a_model_is_read_back(tmp_path: Path, name: str) -> None:
    done(demur("init", tmp_path / "app", "--model", name))
    chosen = optimize_command().choose({}, tmp_path / "app" / FILE)
    assert chosen.load.model == name


def test_it_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    done(demur("init", tmp_path))
    whole = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    (tmp_path / ANSWER).unlink()
    (tmp_path / f".{REFUSE}.1-0123abcd.part").write_text("begun")
    done(demur("init", tmp_path))
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == whole
    assert "exists already" in mistake(demur("init", tmp_path))
