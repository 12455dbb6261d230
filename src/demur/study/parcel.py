"""The files that a study names, as they travel to machines that do not have them.

Files with relative paths travel: prompts, queries, system texts, tools, and Python files of methods
and judges with the modules that they import from their folder. What has an absolute path must be on
each machine, and so must models, guards and classifiers, whose files are large.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.plugins import is_plugin_spec
from demur.plugins.loading import load_file, split_spec
from demur.prompts.storage import JSON_FILE, TENSOR_FILE, find_prompt
from demur.reading.spec import FileSpec, exists
from demur.records import SETTINGS
from demur.study.source import StudySource
from demur.study.stored import StoredFile, describe_file
from demur.study.travel import CellStorage

_NO_FILES = ("gate", "name", "sampling", "seeds")
_MODELS = ("load", "models")
_LOADED = re.compile(r"(?:guard|classifier):(?P<place>[^=]*)")
_OF_BENCHMARKS = "benchmark_dir"


@dataclass(frozen=True)
class Parcel:
    """What a worker on another machine needs that sees no disk of the command's.

    Attributes:
        url: address of the study's folder at the storage.
        token: tells the storage from one that was there before.
        home: folder of the study where the command runs, as it is recorded.
        files: the files that the study names.
    """

    url: str
    token: str
    home: Path
    files: tuple[StoredFile, ...]


def packed(source: StudySource, storage: CellStorage, token: str, home: Path) -> Parcel:
    """Store the files that a study names, and say which they are.

    Args:
        source: what the study's settings are made from.
        storage: where to.
        token: tells the storage from one that was there before.
        home: folder of the study.

    Raises:
        DemurError: a file cannot travel or be read, or the storage cannot be written.
    """
    files: dict[str, StoredFile] = {}
    for path in _named_files(source.given):
        name = Path(os.path.normpath(path)).as_posix()
        if name not in files:
            files[name] = describe_file(path, name)
            storage.send(path, files[name])
    return Parcel(storage.url, token, home, tuple(files[name] for name in sorted(files)))


def unpack(parcel: Parcel, storage: CellStorage, place: Path) -> None:
    """Put the files that a study names below a folder of this machine.

    Args:
        parcel: what `packed` returned.
        storage: where they are stored.
        place: the folder.

    Raises:
        DemurError: the storage cannot be read, or a file was changed there.
    """
    place.mkdir(parents=True, exist_ok=True)
    inside = place.resolve()
    for file in parcel.files:
        path = place / file.name
        if not path.resolve().is_relative_to(inside):
            raise DemurError(f"{file.name!r:.200} leads out of its folder: give another name.")
        if path.is_file() and describe_file(path, file.name) == file:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}.part")
        storage.receive(new, file)
        new.replace(path)


def _named_files(given: Mapping[str, Any]) -> Iterator[Path]:
    """The files with relative paths that the tables of a study name.

    Raises:
        DemurError: one lies outside the current folder, or is a model.
    """
    for key, table in given.items():
        if key in _MODELS:
            for text in _models_in(table, key):
                _require_absolute(text, text)
        elif key not in _NO_FILES:
            for inner, text in _texts(table, key):
                yield from _files_of(inner, text)


def _files_of(key: str, text: str) -> Iterator[Path]:
    loaded = _LOADED.match(text)
    if loaded is not None:
        _require_absolute(loaded["place"], text)
        return
    path = _path_of(text)
    if path is None or not _is_here(path):
        return
    if path.is_dir():
        yield from _files_below(key, path)
        return
    if path.name in (JSON_FILE, TENSOR_FILE):
        yield from _files_below(key, path.parent)
        return
    _require_below(path)
    yield path
    if is_plugin_spec(text):
        folder = path.parent.resolve()
        for one in load_file(path).neighbours:
            yield path.parent / one.file.relative_to(folder)


def _files_below(key: str, folder: Path) -> Iterator[Path]:
    """The files that are read of a folder: of benchmarks, or of a safety prompt and its run."""
    found, settings = folder, folder / SETTINGS
    if key != _OF_BENCHMARKS:
        found = find_prompt(folder)
        if not (found / JSON_FILE).is_file():
            return  # a folder that only has the name of something built in
        if settings.is_file():  # it says what text the prompt was trained behind
            yield settings
    _require_below(found)
    yield from (one for one in sorted(found.iterdir()) if one.is_file())


def _path_of(text: str) -> Path | None:
    """The path in a spec; None where it names none."""
    try:
        if is_plugin_spec(text) and not exists(Path(text)):
            return split_spec(text)[0]
        spec = FileSpec.parse(text)
    except DemurError:  # an address, for example
        return None
    return None if spec.data_set is not None else spec.path


def _is_here(path: Path) -> bool:
    """Whether a relative path leads to something."""
    try:
        return not path.is_absolute() and exists(path) and (path.is_file() or path.is_dir())
    except (OSError, ValueError):
        return False


def _require_below(path: Path) -> None:
    if os.path.normpath(path).startswith(".."):
        raise DemurError(
            f"The file {str(path)!r:.200} lies outside the folder in which the command is given, "
            "and cannot travel to other machines: give the command in a folder above it, or write "
            "an absolute path and put the file there on each machine."
        )


def _require_absolute(place: str, spec: str) -> None:
    """Check that a model is none of this machine's alone."""
    if place and _is_here(Path(place)):
        raise DemurError(
            f"The model {spec!r:.200} is a relative path, and models do not travel through the "
            "storage: write an absolute path and put it there on each machine, or a name on the "
            "hub."
        )


def _models_in(table: Any, key: str) -> Iterator[str]:
    """What the models of a study are loaded by."""
    if isinstance(table, str):
        yield table
    elif isinstance(table, list):
        yield from (one for one in table if isinstance(one, str))
    elif isinstance(table, dict) and key == "models":
        for name, own in table.items():
            spec = own.get("model", name) if isinstance(own, dict) else own
            if isinstance(spec, str) and not (isinstance(own, dict) and "endpoint" in own):
                yield spec


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text in the tables of a study with the key that it stands behind."""
    if isinstance(value, dict):
        for inner, one in value.items():
            yield from _texts(one, str(inner))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, key)
    elif isinstance(value, str):
        yield key, value
