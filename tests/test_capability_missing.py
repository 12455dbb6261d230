"""Capability checks where lm-eval is not installed: they say how to install it, and are shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demur import Condition, DemurError
from demur.capability import KIND, Capability, CapabilityRecord, CapabilitySettings
from demur.capability.results import CapabilityResults, MetricValues, TaskScores
from demur.chat.settings import LoadSettings
from demur.prompts import load_basic_prompt
from demur.records import ModelRecord, WorkFolder, current_versions
from tests.command_line import demur, mistake


def test_without_lm_eval_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("harness", "language_model"):
        monkeypatch.delitem(sys.modules, f"demur.capability.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("demur.chat.chosen.load_chosen", None)
    monkeypatch.chdir(tmp_path)
    message = mistake(demur("capability", "long"))
    assert "pip install 'demur[lm-eval]'" in message
    assert not list(tmp_path.iterdir())


def test_a_finished_check_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    none, long = Condition(), Condition(load_basic_prompt("long"))
    before, after = (
        TaskScores("facts [bold]", "1", ("a", "b"), (MetricValues("acc", "none", value, samples),))
        for value, samples in ((1.0, (1.0, 1.0)), (0.5, (1.0, 0.0)))
    )
    record = CapabilityRecord(
        ModelRecord("tiny", "sha256:0", "float32", "cpu", None, "template", True),
        (none.record("none"), long.record("long")),
        CapabilitySettings(prompt="long", tasks=("facts",)),
        LoadSettings(model="tiny"),
        "0.4.13",
    )
    WorkFolder.start(tmp_path / "check", record, KIND)
    with pytest.raises(DemurError, match="is not finished: run its command again"):
        Capability.load(tmp_path / "check")
    results = CapabilityResults(record.fingerprint, (before,), (after,), current_versions())
    Capability(tmp_path / "check", record, results).save()
    (change,) = Capability.load(tmp_path / "check").changes
    assert change.in_words.startswith(
        "facts [bold] (acc): 100.0 % before and 50.0 % after, -50.0 points ("
    )
    assert not change.more_than_chance
    shown = demur("show", tmp_path / "check")
    assert shown.status == 0
    assert "facts [bold]" in " ".join(shown.out.split())
    assert "has no report: see it with `demur show`" in mistake(demur("report", tmp_path / "check"))
    assert "is the folder of a capability check" in mistake(
        demur("evaluate", "--output", tmp_path / "check")
    )
