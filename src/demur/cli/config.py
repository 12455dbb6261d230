"""Files that `--config` names: TOML files, and the settings that earlier work wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel

from demur.errors import DemurError
from demur.plugins import is_plugin_spec
from demur.records import SETTINGS, format_of
from demur.settings import options_in, read_toml

FILE = "demur.toml"
"""Name of the file of settings that `demur init` writes."""


@dataclass(frozen=True)
class Recorded:
    """What work recorded of its settings.

    Attributes:
        values: values by the settings' names.
        objects: names of the settings that were given as objects in Python, whose values are only
            descriptions.
    """

    values: Mapping[str, object]
    objects: tuple[str, ...] = ()


def settings_file(path: Path) -> Path:
    """The file that `--config` means: a file, or the settings in the folder of some work."""
    return path / SETTINGS if path.is_dir() else path


def is_recorded(file: Path) -> bool:
    """Whether a file holds settings that work recorded; else it is taken for TOML."""
    return file.suffix == ".json" or format_of(file) is not None


_ADDRESS = re.compile(r"endpoint:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""What asks a server: an address, or a judge behind one."""

_FILE = re.compile(r"\.(txt|csv|tsv|jsonl?|md|gguf|safetensors)$", re.IGNORECASE)
"""The ending of a file that a setting may name."""

ReadRecorded: TypeAlias = Callable[[Path], Recorded]
"""Reads what work recorded in a `settings.json`."""


def read_config(
    path: Path,
    settings: type[BaseModel],
    verb: str,
    recorded: ReadRecorded | None,
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
            names code or a server that the user has not named, or a file that is not here.
    """
    file = settings_file(path)
    if not is_recorded(file):
        return read_toml(file, settings)
    if recorded is None:
        raise DemurError(f"demur {verb} reads no {SETTINGS}: give a TOML file.")
    found = recorded(file)
    for option in options_in(settings):
        value = found.values.get(option.name)
        if option.name in given or option.name not in found.values:
            continue
        if option.name in found.objects:
            raise DemurError(
                f"{str(file)!r} belongs to work that was given {option.name!r} as an object in "
                f"Python: give {option.flag} here as well."
            )
        # The folder may be a stranger's: it makes no code run, and no server learns the user's
        # key or files.
        if _runs_code(value) or (option.name == "trust_remote_code" and value):
            raise DemurError(
                f"{str(file)!r} has code run through {option.flag}: give that option here as well, "
                "if you trust the code."
            )
        if _asks_a_server(value):
            raise DemurError(
                f"{str(file)!r} has a server asked through {option.flag}, which would receive your "
                "key, queries and texts: give that option here as well, if you trust the server."
            )
        missing = next((one for one in _texts(value) if _is_missing_file(one)), None)
        if missing is not None and not option.choices:
            raise DemurError(
                f"{str(file)!r} names {missing!r:.200}, which is not here, because its paths start "
                "at the folder where that work was started: run the command there, or give "
                f"{option.metavar if option.positional else option.flag} here as well."
            )
    return dict(found.values)


def _texts(value: object) -> list[str]:
    several = value if isinstance(value, tuple | list) else [value]
    return [one for one in several if isinstance(one, str)]


def _is_missing_file(value: str) -> bool:
    """Whether a text can only mean a file or folder, and that is not here.

    A name on the hub looks like a path as well, and so do names that demur knows.
    """
    path = value if _FILE.search(value) else value.rpartition(":")[0] or value
    if not _FILE.search(path) and not value.startswith(("./", "../")):
        return False
    return not any(_exists(one) for one in (value, path))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _runs_code(value: object) -> bool:
    return isinstance(value, str) and is_plugin_spec(value)


def _asks_a_server(value: object) -> bool:
    return isinstance(value, str) and bool(_ADDRESS.match(value.strip()))
