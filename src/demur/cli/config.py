"""Files that `--config` names: TOML files, and the settings that earlier work wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel

from demur.errors import DemurError
from demur.plugins import is_plugin_spec
from demur.records import SETTINGS, format_of
from demur.settings import options_in, read_toml, values_of


def read_config(
    path: Path,
    settings: type[BaseModel],
    verb: str,
    recorded: Callable[[Path], BaseModel] | None,
    given: Mapping[str, object],
) -> dict[str, object]:
    """Values of settings from a file, by the settings' names.

    Args:
        path: TOML file, or a `settings.json` that the same command wrote, or its folder.
        settings: model of the command's settings.
        verb: name of the command.
        recorded: reads a `settings.json`; None where the command writes none.
        given: values from the command line.

    Raises:
        DemurError: the file cannot be read, has an unknown key, belongs to another command, or
            names code that the user has not named.
    """
    file = path / SETTINGS if path.is_dir() else path
    if file.suffix != ".json" and format_of(file) is None:
        return read_toml(file, settings)
    if recorded is None:
        raise DemurError(f"demur {verb} reads no {SETTINGS}: give a TOML file.")
    options = {option.name: option for option in options_in(settings)}
    chosen = recorded(file)
    values: dict[str, object] = dict(values_of(chosen))
    # The folder may be somebody else's, so that nothing in it makes code run.
    for name, value in values.items():
        own_code = is_plugin_spec(value) if isinstance(value, str) else False
        if name not in given and (own_code or (name == "trust_remote_code" and value)):
            raise DemurError(
                f"{str(file)!r} has code run through {options[name].flag}: give that option here "
                "as well, if you trust the code."
            )
    return values
