"""Mistakes are found before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_WATCHED = """
import sys
from demur.cli.app import main
slow = {"torch", "transformers", "scipy", "lm_eval", "datasets"}
try:
    main()
except SystemExit as ended:
    print(ended.code, sorted(slow & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("attack no-run", "no-run is not the folder of a run"),
        ("attack --attack nonsense", "There is no attack 'nonsense'"),
        ("attack --prompt nothing", "There is no file 'nothing'"),
        ("attack --harmful nothing", "No query set is called 'nothing'"),
        ("capability none", "No prompt changes nothing"),
        ("capability nothing", "There is no file 'nothing'"),
        ("chat --prompt nothing", "There is no file 'nothing'"),
        ("chat nothing", "'nothing' is neither a catalog model"),
        ("evaluate nothing", "'nothing' is neither a catalog model"),
        ("evaluate --prompt nothing", "There is no file 'nothing'"),
        ("evaluate --require harmful=90", "is not of the form"),
        ("optimize nothing", "'nothing' is neither a catalog model"),
        ("optimize --basic-prompt nothing", "There is no file 'nothing'"),
    ],
)
def test_a_mistake_imports_nothing_slow(line: str, told: str, tmp_path: Path) -> None:
    if line.startswith("capability") and find_spec("lm_eval") is None:
        told = "run `pip install 'demur[lm-eval]'`"
    command = [sys.executable, "-c", _WATCHED, *line.split()]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert told in " ".join(ended.stderr.split())
    assert ended.stdout.splitlines()[-1] == "2 []"
