"""Temporary files and folders beside what they will become, and what killed processes left of them.

A process holds a lock on what it is writing, by which others tell it from what is left of a process
that was killed. The number of a process says less: another one may have it by now, or have it on
another machine.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any

_NAME = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_DAY = 86400
_FCNTL: Any = import_module("fcntl") if os.name == "posix" else None


@contextmanager
def temporary(
    path: Path, *, is_folder: bool = False, stays: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """A file or folder beside `path`, on the same disk, whose content is then moved there.

    Args:
        path: where the content will be; its folder exists.
        is_folder: whether it is a folder.
        stays: says at the end whether it must stay. Otherwise what is still there is removed.

    Yields:
        The new, empty file or folder.
    """
    new, descriptor = path, None
    try:
        while descriptor is None:
            new = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}.part")
            if is_folder:
                new.mkdir()
            else:
                new.open("xb").close()
            descriptor = _hold(new)
        yield new
    finally:
        if new != path and not stays():
            _remove(new)
        if descriptor:
            os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a name is one that temporary files and folders have."""
    return _NAME.fullmatch(name) is not None


def leftovers(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Temporary files and folders that processes which were killed left behind.

    What a process that still runs is writing is not among them.

    Args:
        folder: an existing folder.
        name: name of the file or folder that they were written for; None for any in `folder`.
    """
    for path in list(folder.iterdir()):
        parts = _NAME.fullmatch(path.name)
        if parts is None or name not in (None, parts["name"]):
            continue
        with _unused(path, int(parts["process"])) as is_left:
            if is_left:
                yield path


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what `leftovers` finds."""
    for path in leftovers(folder, name):
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):  # mostly it was moved to its place
            path.unlink()


def _hold(path: Path) -> int | None:
    """Lock what was just made.

    Returns:
        The descriptor that holds the lock; 0 where there are no locks; None where another process
        took it for a leftover, in the moment before, and removes it.
    """
    descriptor = _open(path)
    if descriptor == 0:
        return 0
    try:
        _FCNTL.flock(descriptor, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # network disks may have no locks
        os.close(descriptor)
        return 0
    os.close(descriptor)
    return None


@contextmanager
def _unused(path: Path, process: int) -> Iterator[bool]:
    """Whether nothing writes to a temporary file or folder; in here nothing begins to."""
    descriptor = _open(path)
    if descriptor == 0:
        yield not _may_run(path, process)
        return
    try:
        try:
            _FCNTL.flock(descriptor, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
            is_left = True
        except BlockingIOError:
            is_left = False
        except OSError:
            is_left = not _may_run(path, process)
        yield is_left
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """A descriptor to lock; 0 where there is none, or no locks."""
    if _FCNTL is None:
        return 0
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return 0


def _may_run(path: Path, process: int) -> bool:
    """Whether the process that made something may still run, where locks say nothing."""
    with suppress(OSError):
        if time.time() - path.lstat().st_mtime > _DAY:
            return False  # its number belongs to another process by now
    return is_running(process)


def is_running(process: int) -> bool:
    """Whether a process of this machine may still run; True where that cannot be told.

    Args:
        process: its number, 1 or more.
    """
    if os.name != "posix":  # there, asking for a process would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
