"""Without Inspect AI, demur's tasks say how to install it."""

from __future__ import annotations

import sys

import pytest

from demur import DemurError


def test_without_inspect_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("demur.inspect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(DemurError, match=r"pip install 'demur\[inspect\]'"):
        import demur.inspect  # noqa: F401
