"""`examples/quickstart.ipynb` runs, and its outputs are those of a real run."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from demur import Comparison, Run
from tests.tiny import save_tiny_model

NOTEBOOK: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")
)
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    small = 'preset="quick", epochs=1, most_anchors=10'
    for cell in CODE * 2:  # a notebook is run again, from the top
        code = cell.replace('"qwen2.5-coder-0.5b"', repr(str(model)))
        code = code.replace('preset="quick"', small)
        body = ast.parse(code).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            for name in ("_repr_html_", "_repr_png_"):
                if hasattr(shown, name):
                    assert getattr(shown, name)()
    assert isinstance(names["run"], Run)
    assert isinstance(names["after"], Comparison)
    assert (tmp_path / "quickstart/model/config.json").exists()


def test_the_outputs_are_there() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {kind for cell in cells for one in cell["outputs"] for kind in one.get("data", ())}
    assert {"text/html", "image/png"} <= kinds
    outputs = json.dumps([cell["outputs"] for cell in cells])
    assert "Traceback" not in outputs
    assert "/home/" not in outputs
