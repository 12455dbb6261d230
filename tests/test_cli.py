"""The command line: what a user types and sees."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demur.cli import main
from tests.tiny import save_tiny_model

Result = tuple[int, str, str]
Command = Callable[..., Result]

SMALL = [
    *("--preset", "quick", "--samples", "4", "--tokens", "4"),
    *("--epochs", "1", "--dtype", "float32", "--learning-rate", "0.05"),
]


@pytest.fixture
def demur(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["demur", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def basic_prompt(tmp_path: Path) -> Path:
    file = tmp_path / "basic.txt"
    file.write_text("w1 w2 w3 .")
    return file


def mistake(result: Result) -> str:
    """The one line of a user's mistake."""
    status, out, err = result
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_optimize_prints_the_table_and_show_prints_it_again(
    demur: Command, tiny: Path, basic_prompt: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["optimize", tiny, "--basic-prompt", basic_prompt, "--output", run, *SMALL]
    status, out, err = demur(*arguments)
    assert status == 0, err
    for expected in ("none ", "basic.txt (basic)", "optimized ", "KL cost", str(run)):
        assert expected in out
    assert "before" in out
    assert "after" in out
    assert "Training the prompt" in err
    assert "float32" in err
    status, again, _ = demur("show", run)
    assert status == 0
    assert again == out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimize", "no-such-model"], "neither a catalog model"),
        (["optimize", "TINY", "--preset", "fast"], "no preset 'fast'"),
        (["optimize", "TINY", "--epochs", "0"], "--epochs 0"),
        (["optimize", "TINY", "--top-p", "1.5"], "--top-p 1.5"),
        (["optimize", "TINY", "--basic-prompt", "missing.txt"], "missing.txt"),
        (["optimize", "TINY", "--basic-prompt", "EMPTY"], "empty"),
        (["optimize", "TINY", "--harmful", "missing.csv:q"], "missing.csv"),
        (["optimize", "TINY", "--harmful", "EMPTY"], "empty"),
        (["optimize", "TINY", "--system-prompt", "missing.txt"], "missing.txt"),
        (["optimize", "TINY", "--dtype", "float99"], "float99"),
        (["optimize", "TINY", "--device", "abacus"], "abacus"),
        (["show", "EMPTY"], "not the folder of a run"),
        (["pull", "no-such-model"], "no-such-model"),
    ],
)
def test_mistakes_end_in_one_line(
    demur: Command,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    places = {"TINY": str(tiny), "EMPTY": str(tmp_path / "empty.txt")}
    line = mistake(demur(*[places.get(argument, argument) for argument in arguments]))
    assert expected in line
    assert not (tmp_path / "demur-runs").exists()


def test_a_model_that_never_refuses_stops_before_training(
    demur: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.judges.PaperRefusalJudge.refuses", lambda _self, _text: False)
    line = mistake(demur("optimize", tiny, "--output", tmp_path / "run", *SMALL))
    assert "no refusal direction" in line
    assert "harmless 0.0% refused" in line


def test_model_output_cannot_drive_the_terminal(
    demur: Command, tiny: Path, basic_prompt: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    demur("optimize", tiny, "--basic-prompt", basic_prompt, "--output", run, *SMALL)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["examples"][0]["after"] = "[bold red]boo[/] \x1b[2J\x07 \u202eabc"
    (run / "metrics.json").write_text(json.dumps(metrics))
    _, out, _ = demur("show", run)
    assert "[bold red]boo[/]" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_version_and_help(demur: Command) -> None:
    assert demur("--version")[1].startswith("demur ")
    status, out, _ = demur("optimize", "--help")
    assert status == 0
    for option in ("--basic-prompt", "--weight-refusal", "--preset", "--seed"):
        assert option in out
