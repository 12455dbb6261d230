"""Without lm-eval, a capability check says how to install it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
