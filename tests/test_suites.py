"""Suites of queries, and the evaluation of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from demur import ChatModel, DemurError, evaluate
from demur.queries import SUITES, load_query_set, load_suite
from tests.command_line import demur, mistake
from tests.tiny import save_tiny_model


def test_the_standard_suite_is_balanced() -> None:
    harmful, borderline, ordinary = load_suite("standard")
    assert [one.label for one in (harmful, borderline, ordinary)] == [
        "harmful",
        "harmless",
        "harmless",
    ]
    assert [len(one) for one in (harmful, borderline, ordinary)] == [100, 100, 100]
    assert [one.name for one in (harmful, borderline, ordinary)] == [
        "test",
        "test:borderline",
        "test:ordinary",
    ]
    # Each harmful query stands beside its twin, and every area of harm is there.
    assert harmful.categories == borderline.categories
    everything = load_query_set("test", "harmful").categories
    assert harmful.categories is not None
    assert everything is not None
    assert len({*harmful.categories}) >= 0.75 * len({*everything})


def test_there_is_no_other_suite(tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="did you mean 'standard'"):
        load_suite("standrad")
    line = mistake(demur("evaluate", "no-such-model", "--suite", "x", "--output", tmp_path / "o"))
    assert f"choose {', '.join(SUITES)}" in line


def test_a_suite_has_three_rates(tmp_path: Path) -> None:
    model = ChatModel.load(save_tiny_model(tmp_path / "tiny"), dtype="float32")
    (tmp_path / "mine.txt").write_text("w1 w2\n")
    comparison = evaluate(
        model,
        prompts=["none"],
        suite="standard",
        harmless=str(tmp_path / "mine.txt"),
        tokens=2,
        judge="paper",
        output=tmp_path / "out",
    )
    wholes = [(one.set, one.label) for one in comparison.rates if one.category is None]
    assert wholes == [
        ("test", "harmful"),
        ("test:borderline", "harmless"),
        ("test:ordinary", "harmless"),
        ("mine.txt", "harmless"),
    ]
