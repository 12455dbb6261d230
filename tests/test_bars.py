"""Progress outside the command line: bars where a person looks, else nothing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from demur import SilentProgress
from demur.bars import BarProgress, default_progress


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert isinstance(default_progress(), SilentProgress)


def test_bars_appear_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(default_progress(), BarProgress)


def test_bars_appear_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=shell))
    assert isinstance(default_progress(), BarProgress)
    shell = type("TerminalInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=shell))
    assert isinstance(default_progress(), SilentProgress)


def test_a_bar_counts_and_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    progress = BarProgress()
    progress.plan(["Reading", "Training"])
    with progress.stage("Training: \x1b[31mred\nblue", 4, "steps") as stage:
        stage.note("loss\x07 1")
        for _ in range(4):
            stage.advance()
    progress.message("done\x1b[0m")
    shown = capsys.readouterr().err
    assert "2 of 2 Training: \N{REPLACEMENT CHARACTER}[31mred blue: 100%" in shown
    assert "4/4" in shown
    assert "done\N{REPLACEMENT CHARACTER}[0m" in shown
    assert "\x1b[31m" not in shown
    assert "\x07" not in shown
