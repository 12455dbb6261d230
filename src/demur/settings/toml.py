"""Values of settings from a TOML file."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from demur.errors import DemurError
from demur.files import read_bytes, utf8_text
from demur.limits import MOST_SETTINGS_BYTES
from demur.settings.options import NONE, Option, options_in
from demur.settings.values import mistake, unknown_setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_MOST_DEEP = 8  # settings have fewer levels
_MOST_PARTS = 100


def read_toml(path: str | Path, model: type[BaseModel]) -> dict[str, object]:
    """Values of settings from a TOML file, by the settings' names.

    Args:
        path: the file. A key may stand in the table of its group or at the top.
        model: type of the settings.

    Raises:
        DemurError: the file cannot be read, or has a key that is no setting.
    """
    return values_in(load_toml(path), model, str(path))


def values_in(
    table: Mapping[str, Any], model: type[BaseModel], where: str = ""
) -> dict[str, object]:
    """Values of settings in a table of a TOML file, by the settings' names.

    Args:
        table: the table. A key may stand in the table of its group or at the top.
        model: type of the settings.
        where: the file, for messages; may be empty.

    Raises:
        DemurError: a key is no setting, or is there twice.
    """
    options = options_in(model)
    values: dict[str, object] = {}
    for key, value in _leaves(table, ()):
        option = next((one for one in options if _is_key(key, one)), None)
        if option is None:
            raise unknown_setting(".".join(key), [one.key for one in options], where)
        if option.name in values:
            place = f"{where!r} has" if where else "There is"
            raise DemurError(f"{place} {option.name!r} twice: leave one out.")
        # A number in quotes is one on the command line only.
        if option.kind in (int, float) and any(_is_text(one, option) for one in _several(value)):
            raise mistake(option, repr(value), f"must be {option.wanted}, without quotes", where)
        values[option.name] = value
    return values


def _several(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else [value]


def _is_text(value: object, option: Option) -> bool:
    return isinstance(value, str) and not (option.optional and value == NONE)


def read_toml_text(path: str | Path, key: str) -> str | None:
    """One text at the top of a TOML file, whatever else the file holds; None where there is none.

    Raises:
        DemurError: the file cannot be read.
    """
    found = load_toml(path).get(key)
    return found if isinstance(found, str) else None


def load_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        DemurError: the file cannot be read.
    """
    try:
        content = read_bytes(Path(path).expanduser(), MOST_SETTINGS_BYTES)
        text = utf8_text(content, repr(str(path)))
        # A key of very many parts takes the parser hours.
        if any(
            re.split("[=#]", line, maxsplit=1)[0].count(".") > _MOST_PARTS
            for line in text.splitlines()
        ):
            raise ValueError(f"a key of more than {_MOST_PARTS} parts")
        document: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        quotes = ", in which a text stands in quotes" if "Invalid value" in reason else ""
        raise DemurError(
            f"{str(path)!r} cannot be read as TOML ({reason}): correct the "
            f"file{quotes}, or its path."
        ) from None
    return document


def _leaves(table: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and len(path) < _MOST_DEEP:
            found += _leaves(value, (*path, key))
        else:
            found.append(((*path, key), value))
    return found


def _is_key(key: tuple[str, ...], option: Option) -> bool:
    full = (*option.groups, option.name)
    return key == full[len(full) - len(key) :] if len(key) <= len(full) else False
