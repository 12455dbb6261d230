"""Settings that somebody else's folder names: no server hears of the user's key or texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from demur import DemurError
from demur.cli.config import Recorded, read_config
from demur.cli.evaluate import EvaluateOptions
from demur.settings import options_in

SETTINGS = EvaluateOptions
ADDRESS = "http://127.0.0.1:8765/v1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("endpoint", ADDRESS),
        ("endpoint", f" {ADDRESS}"),
        ("base_url", "HTTPS://elsewhere.example/v1"),
        ("judge", "endpoint:gpt"),
        ("harm_judge", "endpoint:gpt"),
        ("preference_judge", "endpoint:gpt"),
    ],
)
def test_a_server_that_only_a_file_of_settings_names_is_never_asked(
    tmp_path: Path, name: str, value: str
) -> None:
    file = tmp_path / "settings.json"
    file.touch()
    (option,) = [one for one in options_in(SETTINGS) if one.name == name]

    def recorded(_: Path) -> Recorded:
        return Recorded({name: value})

    with pytest.raises(DemurError, match=f"has a server asked through {option.flag}, which"):
        read_config(file, SETTINGS, "evaluate", recorded, {})
    assert read_config(file, SETTINGS, "evaluate", recorded, {name: value}) == {name: value}


def test_a_toml_file_is_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "demur.toml"
    file.write_text(f'[server]\nendpoint = "{ADDRESS}"\n')
    found = read_config(file, SETTINGS, "evaluate", None, {})
    assert found["endpoint"] == ADDRESS
