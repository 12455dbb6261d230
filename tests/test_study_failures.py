"""Cells of a study that fail by a bug: the traceback, the next attempt, the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel
from demur.chat import chosen
from tests.command_line import demur, done
from tests.tiny_study import FILE, write_study

BUGGY = """
from pathlib import Path

from demur.optimization.methods.dro import DirectedRepresentation


class Buggy(DirectedRepresentation):
    name = "buggy"

    def prepare(self, context):
        if not Path(__file__).with_name("fixed").exists():
            return {}["no\\x1bplace"]
        return super().prepare(context)


def judge(queries, responses):
    known = None
    return [known[one] for one in responses]
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's file, with all that it names."""
    return write_study(tmp_path_factory.mktemp("study"))


def test_the_traceback_of_a_bug_is_kept(written: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BUGGY)
    text = FILE.format(folder=written.parent).partition("[methods.dro]")[0]
    text = text.replace("seeds = [0, 1]", "")
    file, folder = tmp_path / "own.toml", tmp_path / "out"
    file.write_text(f'{text}\n[methods.own]\nmethod = "{tmp_path}/own.py:Buggy"\n')
    result = demur("study", file, "--output", folder)
    assert result.status == 1
    place = folder / "runs/tiny/calm-own-seed-0/error.txt"
    assert "failed  run: tiny, calm, own, seed 0: KeyError" in result.out
    assert f"(traceback in {place})" in result.out
    told = place.read_text()
    assert "Traceback (most recent call last)" in told
    assert "in prepare" in told
    assert "\x1b" not in told
    (tmp_path / "fixed").touch()
    done(demur("study", file, "--output", folder))
    assert not place.exists()


def test_the_traceback_of_a_judge_is_kept(written: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BUGGY)
    text = FILE.format(folder=written.parent).partition("[training]")[0]
    text = text.replace("seeds = [0, 1]", "")
    file, folder = tmp_path / "own.toml", tmp_path / "out"
    file.write_text(text.replace('judge = "paper"', f'judge = "{tmp_path}/own.py:judge"'))
    result = demur("study", file, "--output", folder)
    assert result.status == 1
    place = folder / "evaluations/tiny/untrained-seed-0/error.txt"
    assert f"(traceback in {place})" in result.out
    assert "in judge" in place.read_text()
    assert "TypeError" in place.read_text()


def test_a_model_whose_loading_breaks_is_tried_once(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def broken(*_: Any, **__: Any) -> ChatModel:
        tried.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(chosen, "load_chosen", broken)
    file, folder = tmp_path / "file.toml", tmp_path / "out"
    file.write_text(FILE.format(folder=written.parent).partition("[training]")[0])
    result = demur("study", file, "--output", folder)
    assert result.status == 1
    assert len(tried) == 1
    assert result.out.count("RuntimeError: out of memory") == 2
    assert (folder / "evaluations/tiny/untrained-seed-0/error.txt").is_file()
