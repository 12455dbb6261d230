"""The settings in `docs/settings.md` are settings that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from demur.optimization.settings import expanded, presets, settings_type
from demur.settings import build, options_in, read_toml

PAGE = (Path(__file__).parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_file_is_one_of_settings(tmp_path: Path) -> None:
    (text,) = re.findall(r"    # demur\.toml\n((?:(?:    .*)?\n)+)", PAGE)
    file = tmp_path / "demur.toml"
    file.write_text(re.sub(r"^    ", "", text, flags=re.MULTILINE).replace("model =", "#"))
    kind = settings_type()
    settings = build(kind, expanded(read_toml(file, kind)), presets()["standard"])
    assert settings.training.epochs == 5
    assert settings.sampling.temperature == 0.7


def test_the_call_in_python_names_settings() -> None:
    (call,) = re.findall(r"run = (optimize\(.*\))\n", PAGE)
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    values = {one.arg: ast.literal_eval(one.value) for one in node.keywords if one.arg}
    assert values
    build(settings_type(), values, presets()["quick"])


def test_the_line_of_the_help_is_as_it_is() -> None:
    (shown,) = re.findall(r"--epochs    .*\[default: (.*)\]", PAGE)
    (option,) = [one for one in options_in(settings_type()) if one.name == "epochs"]
    found = {name: str(one.training.epochs) for name, one in presets().items()}
    first = found["standard"]
    others = [f"{name} {value}" for name, value in found.items() if value != first]
    assert option.flag == "--epochs"
    assert shown == "; ".join([first, ", ".join(others)])
