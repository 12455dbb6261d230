"""The folder of a run, an evaluation or a diagnosis, and the settings that it belongs to."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from demur import processes
from demur.errors import DemurError, did_you_mean, is_text
from demur.progress import Progress
from demur.records.codec import (
    damaged,
    format_of,
    read_record,
    stored_content,
    to_plain,
    write_record,
)
from demur.records.fingerprint import fingerprint
from demur.records.store import MeasurementStore
from demur.temporary import is_temporary, remove_leftovers

Settings = TypeVar("Settings")
Results = TypeVar("Results")

SETTINGS = "settings.json"
RESULTS = "results.json"
KINDS = ("run", "wording run", "evaluation", "diagnosis", "attack", "capability check", "study")
_MOST_SHOWN = 40
_SECONDS_BETWEEN = 0.2
_FCNTL: Any = import_module("fcntl") if os.name == "posix" else None
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Turn a path that the system refuses into a `DemurError`."""
    try:
        yield
    except (OSError, ValueError) as error:  # a value error for a null character
        reason = getattr(error, "strerror", None) or error
        raise DemurError(f"Cannot use {str(path)!r:.300} ({reason}): give another path.") from error


class WorkFolder(Generic[Settings]):
    """A folder of work that can stop at any moment and go on.

    Attributes:
        path: the folder.
        settings: what the work is: model, conditions, queries and every setting.
        measurements: measurements stored in the folder.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.measurements = MeasurementStore(path)

    @classmethod
    def start(cls, path: Path, settings: Settings, kind: str) -> WorkFolder[Settings]:
        """Begin work in a folder, or go on with the same work that lies there.

        Where only the names for people differ, the new ones are written.

        Args:
            path: a free place, an empty folder, or a folder of work with the same settings.
            settings: a record. Where it has a method `identity`, what that returns must be the
                same for work to go on; otherwise the whole record.
            kind: what the work is: `run`, `evaluation` or `diagnosis`.

        Raises:
            DemurError: the folder holds something else, or work with other settings.
        """
        folder = cls.check(path, settings, kind)
        file = path / SETTINGS
        if not file.exists() or read_record(file, type(settings), kind, in_work=True) != settings:
            write_record(file, settings, kind)
        for place in (path, *(one for one in path.iterdir() if one.is_dir())):
            remove_leftovers(place)
        return folder

    @classmethod
    @contextmanager
    def alone(
        cls, path: Path, settings: Settings, kind: str, progress: Progress
    ) -> Iterator[WorkFolder[Settings]]:
        """Do what `start` does, and keep other processes from working in the folder.

        One that works there already is waited for. Of processes that share a model the first one
        gets the folder, and each other one a copy of it.

        Args:
            path: as for `start`.
            settings: as for `start`.
            kind: as for `start`.
            progress: receives a message where another process is waited for.

        Raises:
            DemurError: as for `start`, or this process does not see the folder of the first one.
        """
        processes.require_connected()
        if not processes.is_first():
            yield cls.start(processes.own_folder(path), settings, kind)
            return
        while True:
            folder = cls.start(path, settings, kind)
            with _locked(path, progress) as is_here:
                if is_here:
                    processes.own_folder(path)
                    yield folder
                    return

    @classmethod
    def check(cls, path: Path, settings: Settings, kind: str) -> WorkFolder[Settings]:
        """Make sure that such work can begin or go on in a folder; nothing is written.

        Raises:
            DemurError: as for `start`.
        """
        other = kind_of(path)
        if path.exists() and not path.is_dir():
            raise DemurError(f"{path} is a file: choose a folder with --output.")
        if other is None and (path / SETTINGS).exists():
            raise damaged(path / SETTINGS)
        if other is not None:
            if other != kind:
                raise DemurError(
                    f"{path} is the folder of {_named(other)}: choose another --output."
                )
            found = read_record(path / SETTINGS, type(settings), kind, in_work=True)
            _require_same(path, found, settings, kind)
        elif path.exists() and any(_not_ours(path)) and not _is_work(path):
            raise DemurError(f"{path} holds something else: choose another --output.")
        link = next((one for one in path.glob("*") if one.is_symlink()), None)
        if link is not None:
            raise DemurError(
                f"{link} is a link, which may lead out of the folder: delete it, or choose another "
                "--output."
            )
        return cls(path, settings)

    @classmethod
    def holds_other(cls, path: Path, settings: Settings, kind: str) -> bool:
        """Whether a folder belongs to work of the same kind with other settings.

        Raises:
            DemurError: its settings are damaged.
        """
        if kind_of(path) != kind:
            return False
        found = read_record(path / SETTINGS, type(settings), kind, in_work=True)
        return bool(_differing(found, settings))

    @classmethod
    def open(cls, path: Path, settings_type: type[Settings], kind: str) -> WorkFolder[Settings]:
        """Open a folder of work.

        Raises:
            DemurError: it is not such a folder, or its settings are damaged.
        """
        found = kind_of(path, finished=True)
        if found != kind:
            raise not_the_folder(path, _named(kind), found)
        return cls(path, read_record(path / SETTINGS, settings_type, kind, in_work=True))

    def results(self, results_type: type[Results], kind: str) -> Results | None:
        """What `results.json` holds, which marks the work as finished; None where it is missing.

        Raises:
            DemurError: the file is damaged.
        """
        file = self.path / RESULTS
        if not file.exists():
            return None
        return read_record(file, results_type, f"{kind} results", in_work=True)

    def stored_fingerprint(self, kind: str) -> str:
        """Fingerprint of the settings as they are stored.

        Settings that demur has got since then are not among them.
        """
        return fingerprint(f"{kind} settings", settings=stored_content(self.path / SETTINGS))


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[bool]:
    """Hold the lock of a folder; what is locked is the folder itself, so no file is left behind.

    Yields:
        Whether the folder is still in its place; another process may have removed it meanwhile.
    """
    if _FCNTL is None:
        yield True
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        told = False
        while not _lock(descriptor):
            if not told:
                progress.message(f"Another process works in {path}: waiting until it has ended.")
                told = True
            time.sleep(_SECONDS_BETWEEN)
        try:
            is_here = os.path.samestat(os.fstat(descriptor), path.stat())
        except OSError:
            is_here = False
        yield is_here
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock is held now, or the disk has no locks."""
    try:
        _FCNTL.flock(descriptor, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # network disks may have none
        return True
    return True


def not_the_folder(path: Path, wanted: str, found: str | None = None) -> DemurError:
    """That a path is not the folder that is wanted, with the reason and a name that is near.

    Args:
        path: any path.
        wanted: what it should hold, with its article.
        found: what it holds, as `kind_of` says.
    """
    near = ""
    if found is not None:
        why = f"it is that of {_named(found)}"
    elif not path.exists():
        why = "there is no such folder"
        if path.parent.is_dir():
            near = did_you_mean(path.name, (one.name for one in path.parent.iterdir()))
    elif not path.is_dir():
        why = "it is a file"
    else:
        has = "is none of demur's" if (path / SETTINGS).exists() else "is missing"
        why = f"its {SETTINGS} {has}"
    return DemurError(f"{path} is not the folder of {wanted} ({why}): check the path{near}.")


def kind_of(path: Path, *, finished: bool = False) -> str | None:
    """What the folder `path` holds: `run`, `evaluation`, `diagnosis`, or None for anything else.

    Args:
        path: any path.
        finished: whether it must be known what the work is: a folder of work without its settings
            is an error then. Otherwise it counts as none, because work may begin there again.

    Raises:
        DemurError: it is a folder of work whose settings are damaged.
    """
    file = path / SETTINGS
    with _usable(path):
        if "\0" in str(path):  # most questions about such a path are answered with no
            raise ValueError("it holds a null character")
        if not is_text(str(path)):  # some packages that write there cannot use it
            raise ValueError("it is no UTF-8")
        is_folder, exists = file.is_dir(), file.exists()
    if is_folder:
        raise damaged(file)
    if exists:
        format = format_of(file)
        if format not in KINDS and (format is not None or _is_work(path)):
            raise damaged(file)
        return format
    if finished and _is_work(path):
        raise DemurError(f"{file} is missing: run the command that made this folder again.")
    return None


def _is_work(path: Path) -> bool:
    """Whether a folder without good settings is one of work nevertheless."""
    results = [f"{kind} results" for kind in KINDS]
    return MeasurementStore(path).is_begun or format_of(path / RESULTS) in results


def folders_of_work(places: list[Path]) -> list[Path]:
    """Each of `places` and each folder directly in it that holds work, in a fixed order."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            candidates = [place, *sorted(place.iterdir())]
            found += [one for one in candidates if (one / SETTINGS).is_file()]
    return found


def _not_ours(path: Path) -> list[Path]:
    # What an interrupted first write leaves behind does not count.
    return [one for one in path.iterdir() if not is_temporary(one.name)]


def _require_same(path: Path, old: object, new: object, kind: str) -> None:
    differing = _differing(old, new)
    if not differing:
        return
    key = min(differing)
    more = f" and {len(differing) - 1} other settings" if len(differing) > 1 else ""
    values = differing[key]
    # A fingerprint tells a person nothing.
    shown = [None if _FINGERPRINT.search(str(value)) else _short(value) for value in values]
    told = "" if None in shown else f" ({shown[0]} there, {shown[1]} now)"
    raise DemurError(
        f"{path} belongs to {_named(kind)} with another {_in_words(key)}{more}{told}: "
        "choose another --output or delete that folder."
    )


def _differing(old: object, new: object) -> dict[str, tuple[Any, Any]]:
    """By its key, the two values of each setting that is not the same."""
    before, now = _flat(to_plain(_identity(old))), _flat(to_plain(_identity(new)))
    return {
        key: (before.get(key), now.get(key))
        for key in {*before, *now}
        if before.get(key) != now.get(key)
    }


def _in_words(key: str) -> str:
    """A key of nested settings; a group that its setting names again is left out."""
    groups = key.split(".")
    told = [
        group
        for group, inner in zip(groups, [*groups[1:], ""], strict=True)
        if not inner.startswith(f"{group}_")
    ]
    return ".".join(told).replace("_", " ")


def _named(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def _identity(settings: object) -> object:
    """What must be the same for work to go on."""
    identity = getattr(settings, "identity", None)
    return identity() if callable(identity) else settings


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        return {
            inner: value
            for key, part in data.items()
            for inner, value in _flat(part, f"{prefix}{key}.").items()
        }
    return {prefix.removesuffix("."): data}


def _short(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def telling_names(folders: Sequence[Path]) -> list[str]:
    """What folders are called beside each other, no two alike.

    Args:
        folders: the folders, in any number and order.

    Returns:
        Of each as many of its last parts as tell it from the others; a folder that is there twice
        gets a number.

    Example:
        `runs/june/out` and `runs/july/out` are `june/out` and `july/out`.
    """
    paths = [folder.resolve().parts for folder in folders]
    names: list[str] = []
    for place, own in enumerate(paths):
        others = [other for other in paths if other != own]
        lengths = range(1, len(own) + 1)
        told = (one for one in lengths if all(other[-one:] != own[-one:] for other in others))
        name = Path(*own[-next(told, len(own)) :]).as_posix()
        before = paths[:place].count(own)
        names.append(f"{name} ({before + 1})" if before else name)
    return names
