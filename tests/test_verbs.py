"""The list of commands, the words for them, completion, and the list of what lies here."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demur.cli.summaries import SUMMARIES
from demur.cli.verbs import VERBS
from tests.command_line import demur, done, mistake
from tests.tiny import save_tiny_model

NAMES = [verb.name for verb in VERBS]


def test_the_list_says_what_each_command_says_itself() -> None:
    assert list(SUMMARIES) == NAMES
    for verb in VERBS:
        command = verb.load()
        assert command.verb == verb.name
        assert command.help.startswith(SUMMARIES[verb.name])
        assert command.help.count(SUMMARIES[verb.name]) == 1  # it is written nowhere else


def test_no_word_stands_for_two_commands() -> None:
    words = [word for verb in VERBS for word in (verb.name, *verb.aliases)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("verb", VERBS, ids=NAMES)
def test_other_words_for_a_command(verb: object) -> None:
    found = next(one for one in VERBS if one is verb)
    for word in found.aliases:
        assert f"demur {found.name} [OPTIONS]" in done(demur(word, "--help")).replace("\n", " ")
    assert "no option '--xyz'" in mistake(demur(found.aliases[0], "--xyz"))


def test_the_help_imports_no_heavy_package() -> None:
    script = (
        "import sys; sys.argv = ['demur', '--help']\n"
        "from demur.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"
    assert all(name in ended.stdout for name in NAMES)


@pytest.mark.parametrize(
    ("typed", "place", "offered"),
    [("demur ev", 1, ["evaluate"]), ("demur evaluate --fail", 2, ["--fail-if-worse"])],
)
def test_a_shell_completes(typed: str, place: int, offered: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "demur"],
        env={
            **os.environ,
            "_DEMUR_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(place),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == offered, ended.stderr


def test_show_alone_lists_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no results here" in done(demur("show"))
    save_tiny_model(tmp_path / "model")
    (tmp_path / "q.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(10)))
    given = ["evaluate", "model", "--harmful", "q.txt", "--prompt", "none", "--dtype", "float32"]
    done(demur(*given, "--tokens", "4", "--output", "demur-evaluations/\x1b[31mred"))
    (tmp_path / "begun").mkdir()
    settings = next((tmp_path / "demur-evaluations").iterdir()) / "settings.json"
    (tmp_path / "begun/settings.json").write_bytes(settings.read_bytes())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/settings.json").write_text('{"editor": "tabs"}')
    shutil.copytree(settings.parent, tmp_path / "broken")
    (tmp_path / "broken/settings.json").write_bytes(settings.read_bytes()[:-40])
    out = done(demur("show"))
    lines = out.splitlines()
    rows = {
        folder: told for folder, told in itertools.pairwise(lines) if re.search(r", 20\d\d-", told)
    }
    assert "\x1b[31m" not in out
    assert "not finished" in rows["begun"]
    assert "evaluation" in rows["begun"]
    assert "damaged" in rows["broken"]
    assert "other" not in rows
    assert sum(" finished" in line and "not" not in line for line in rows.values()) == 1
    assert "give a folder as well" in mistake(demur("show", "--require", "harmful>=90%"))
