"""Nothing that demur did not write itself drives the terminal."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.progress import track
from rich.table import Table
from rich.text import Text

from demur.cli.app import main
from demur.cli.plain import PlainConsole, PlainStream, make_streams_plain, plain
from demur.cli.stages import TerminalProgress
from tests.command_line import demur, mistake
from tests.tiny import save_tiny_model

HOSTILE = "a\x1b[2J\x1b]0;title\x07\x08\x9b31m\u202eb[red]c[/red]:smile:\x7f\r"
DRIVING = "\x1b\x07\x08\x9b\u202e\x7f"


def is_plain(text: str) -> bool:
    return not any(one in text for one in DRIVING)


def test_a_plain_text_stays_as_it_is() -> None:
    assert (
        plain("How do I kill a process?\nÜber 中文 [red]")
        == "How do I kill a process?\nÜber 中文 [red]"
    )
    assert plain("a\x1b[0mb\tc") == "a\N{REPLACEMENT CHARACTER}[0mb\N{REPLACEMENT CHARACTER}c"


def test_a_console_shows_every_text_as_it_is() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=200)
    table = Table(title=Text(HOSTILE), expand=True)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    shapes = (HOSTILE, Text(HOSTILE), table, Panel(Text(HOSTILE)))
    for shown in shapes:
        console.print(shown)
    console.out(HOSTILE)
    found = file.getvalue()
    assert is_plain(found)
    assert found.count("[red]c[/red]:smile:") == len([*shapes, "out"]) + 2  # a table has three


def test_a_console_keeps_its_own_colours_and_bars() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, color_system="standard", width=80)
    console.print(Text(f"x{HOSTILE}", style="red"))
    list(track([1, 2], console=console))
    found = file.getvalue()
    assert "\x1b[31mx" in found
    assert "\x1b[2J" not in found
    assert "\x07" not in found


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_moves_on_a_terminal_moves_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    for each in ("stdout", "stderr"):
        monkeypatch.setattr(sys, each, terminal if each == name else io.StringIO())
    make_streams_plain()
    console = PlainConsole(stderr=name == "stderr", color_system="standard", width=80)
    progress = TerminalProgress(console)
    with progress.stage("Measuring", 2, "responses") as stage:
        stage.advance()
        print(f"said{HOSTILE.rstrip()}", file=getattr(sys, name))
        stage.advance()
    with console.status(Text(f"Answering{HOSTILE}")):
        pass
    console.print(Text("done", style="red"))
    found = terminal.getvalue()
    # Moving up and erasing lines is what the console does itself.
    assert "\x1b[2K" in found
    assert "\x1b[31mdone" in found
    assert "\N{REPLACEMENT CHARACTER}[2K" not in found
    assert "\N{REPLACEMENT CHARACTER}[0m" not in found
    assert "2/2 responses" in found
    assert "said" in found
    assert not any(one in found for one in ("\x1b[2J", "\x1b]0;", "\x07", "\x08", "\u202e"))


def test_what_other_packages_write_is_plain() -> None:
    file = io.StringIO()
    stream = PlainStream(file)
    handler = logging.StreamHandler(stream)
    handler.emit(logging.LogRecord("x", logging.WARNING, "x", 1, HOSTILE, None, None))
    print(HOSTILE, file=stream)
    stream.writelines([HOSTILE])
    stream.write("\r 50 %|bar\t|")
    assert is_plain(file.getvalue())
    assert file.getvalue().count("\r") == 1
    assert file.getvalue().endswith("\r 50 %|bar\t|")


def test_the_command_makes_its_streams_plain(tmp_path: Path) -> None:
    """Also for what Python and other packages write while it runs."""
    judge = tmp_path / "judge.py"
    judge.write_text(
        "import sys, warnings\n"
        "def judge(queries, responses):\n"
        f"    warnings.warn({HOSTILE!r})\n"
        f"    print({HOSTILE!r})\n"
        f"    sys.stderr.write({HOSTILE!r})\n"
        "    return [False] * len(responses)\n"
    )
    (tmp_path / "r.csv").write_text("query,label,response\nw1?,harmful,no\nw2?,harmless,yes\n")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "demur",
            "evaluate",
            "--responses",
            "r.csv",
            "--judge",
            "judge.py:judge",
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "title" in ended.stdout
    assert "title" in ended.stderr
    assert is_plain(ended.stdout)
    assert is_plain(ended.stderr)


def hostile_model(folder: Path, file: str, key: str) -> Path:
    """A model one of whose files holds the text."""
    save_tiny_model(folder)
    content = json.loads((folder / file).read_text())
    content[key] = HOSTILE
    (folder / file).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "model_type"),
        ("config.json", "architectures"),
        ("config.json", "rope_scaling"),
        ("tokenizer_config.json", "tokenizer_class"),
        ("generation_config.json", "eos_token_id"),
    ],
)
def test_files_of_a_model_cannot_drive_the_terminal(tmp_path: Path, file: str, key: str) -> None:
    model = hostile_model(tmp_path / "tiny", file, key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = demur(
            "evaluate", model, "--output", tmp_path / "out", "--samples", 1, "--tokens", 2
        )
    assert is_plain(result.out)
    assert is_plain(result.err)
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "raised", ["{{ raise_exception(TEXT) }}", "{{ TEXT | nofilter }}", "{{ x.y }}"]
)
def test_a_templates_error_cannot_drive_the_terminal(tmp_path: Path, raised: str) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    template = raised.replace("TEXT", json.dumps(HOSTILE))
    (model / "chat_template.jinja").write_text(template)
    line = mistake(demur("evaluate", model, "--output", tmp_path / "out"))
    assert is_plain(line)


@pytest.mark.parametrize("verb", ["show", "report", "optimize", "evaluate", "chat", "diagnose"])
def test_names_in_a_command_cannot_drive_the_terminal(tmp_path: Path, verb: str) -> None:
    name = HOSTILE.replace("/", "")
    arguments = {
        "show": [name],
        "report": [name],
        "optimize": ["--basic-prompt", name],
        "evaluate": ["--harmful", f"{name}.csv:q"],
        "chat": ["--prompt", name],
        "diagnose": ["--run", name],
    }
    line = mistake(demur(verb, *arguments[verb]))
    assert is_plain(line)


def test_installing_the_completion_writes_no_replacement_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typer colours its message on a terminal, and a plain stream would show the colour's codes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setattr(sys, "argv", ["demur", "--install-completion", "zsh"])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit):
        main()
    assert terminal.getvalue().startswith("zsh completion installed in ")
