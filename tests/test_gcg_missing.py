"""Without nanogcg the attack `gcg` says how to install it, before anything slow."""

from __future__ import annotations

import sys

import pytest

from tests.command_line import demur, mistake


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanogcg", None)
    said = mistake(demur("attack", "--model", "no-such-model", "--attack", "gcg"))
    assert "run `pip install 'demur[gcg]'`" in said
