"""Work that is cut off at its writes, and goes on from there to the very same files.

Two checks, both at the moments that matter (a file is synced, moved, replaced or deleted) and
never at a count of progress calls:

- `check_kills` runs the work once and copies the folder before and after every such operation: what
  a killed process or a power cut leaves, half-written appends and temporary files included. From
  each different copy the work must come to what the undisturbed run left, byte for byte.
- `check_interrupts` raises `KeyboardInterrupt` before and after every operation, so that the work's
  own cleaning up runs, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

Moment = Literal["before", "after"]
Callback = Callable[[int, Moment, int | None], None]
"""Takes the operation's number, the moment, and for a sync the file's descriptor."""
Work = Callable[[], object]

# `Path` has operations of its own besides those of `os`, which call each other in some versions of
# Python only. One inside another counts once.
_OPERATIONS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("fsync", "replace", "rename", "unlink", "remove", "rmdir")),
    *((Path, name) for name in ("replace", "rename", "unlink", "rmdir")),
)


class Interrupted(KeyboardInterrupt):
    """The user's Ctrl-C at a write."""


@contextmanager
def watching(callback: Callback) -> Iterator[None]:
    """Call back before and after every operation that makes a change to files last."""
    numbers = count()
    inside = False

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(operation)
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal inside
            if inside:
                return operation(*arguments, **options)
            number = next(numbers)
            file = arguments[0] if operation.__name__ == "fsync" else None
            inside = True
            try:
                callback(number, "before", file)
                result = operation(*arguments, **options)
                callback(number, "after", file)
            finally:
                inside = False
            return result

        return run

    patches = [
        patch.object(owner, name, watched(getattr(owner, name))) for owner, name in _OPERATIONS
    ]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()


def check_kills(work: Work, folder: Path, *, most: int | None = None) -> int:
    """The work goes on from every state that a kill can leave, to the same files.

    Args:
        work: fills `folder`, and goes on from what is there.
        folder: the work's folder; need not exist.
        most: number of states to try, evenly spread; all by default.

    Returns:
        Number of states tried.

    Raises:
        AssertionError: it came to other files, or wrote none at all.
    """
    states = States(folder)
    with watching(states.keep):
        work()
    assert states.kept, "the work wrote nothing: is it finished in this folder already?"
    whole = content(folder)
    tried = spread(states.kept, most)
    for state in tried:
        restore(state, folder)
        work()
        assert_same(content(folder), whole, f"after {state.name}")
    return len(tried)


def check_interrupts(work: Work, folder: Path, *, every: int = 1) -> int:
    """The work goes on from every interruption at a write, to the same files.

    Args:
        work: fills `folder`, and goes on from what is there.
        folder: the work's folder; need not exist.
        every: step from one interruption to the next; 1 for all.

    Returns:
        Number of interruptions.

    Raises:
        AssertionError: it came to other files, or hid the interruption.
    """
    work()
    whole = content(folder)
    for point in count(0, every):
        moment: Moment = "after" if point % 2 else "before"
        shutil.rmtree(folder)
        raised = False

        def interrupt(number: int, now: Moment, _: int | None, at: int = point) -> None:
            nonlocal raised
            if not raised and (number, now) == (at // 2, "after" if at % 2 else "before"):
                raised = True
                raise Interrupted

        try:
            with watching(interrupt):
                work()
        except Interrupted:
            pass
        else:
            assert not raised, f"the interruption {moment} operation {point // 2} was hidden"
            return point // every
        work()
        assert_same(content(folder), whole, f"interrupted {moment} operation {point // 2}")
    raise AssertionError


class States:
    """Copies of a folder as a kill would leave it, each of them once.

    Attributes:
        kept: the copies, in the order of the work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[Path] = []
        self._place = folder.with_name(f"{folder.name}-states")
        shutil.rmtree(self._place, ignore_errors=True)
        self._seen: set[bytes] = set()
        self._sizes: dict[Path, int] = {}

    def keep(self, number: int, moment: Moment, file: int | None) -> None:
        """Copy the folder, and where a file is being synced, also with half of what is new."""
        if not self.folder.exists():
            return
        self._copy(f"{number}-{moment}")
        path = None if file is None else self._path_of(file)
        if path is None:
            return
        old, new = self._sizes.get(path, 0), (self.folder / path).stat().st_size
        if moment == "before" and new - old > 1:
            self._copy(f"{number}-torn", path, (old + new) // 2)
        if moment == "after":
            self._sizes[path] = new

    def _copy(self, name: str, torn: Path | None = None, size: int = 0) -> None:
        target = self._place / name
        shutil.copytree(self.folder, target)
        if torn is not None:
            os.truncate(target / torn, size)
        digest = digest_of(target)
        if digest in self._seen:
            shutil.rmtree(target)
            return
        self._seen.add(digest)
        self.kept.append(target)

    def _path_of(self, file: int) -> Path | None:
        wanted = os.fstat(file)
        for path in self.folder.rglob("*"):
            if os.path.samestat(path.stat(), wanted):
                return path.relative_to(self.folder)
        return None


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its bytes, and every empty folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def digest_of(folder: Path) -> bytes:
    """A checksum of what is in a folder."""
    return hashlib.sha256(repr(content(folder)).encode()).digest()


def restore(state: Path, folder: Path) -> None:
    """Put a copy in the place of the folder."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(state, folder)


def spread(states: list[Path], most: int | None) -> list[Path]:
    """At most so many of the states, evenly spread, the first and the last among them."""
    if most is None or len(states) <= most:
        return states
    step = (len(states) - 1) / max(most - 1, 1)
    return [states[round(place * step)] for place in range(most)]


def assert_same(found: dict[str, bytes], expected: dict[str, bytes], when: str) -> None:
    """Fail with the names of the files that differ."""
    assert sorted(found) == sorted(expected), f"other files {when}"
    differing = [name for name, data in expected.items() if found[name] != data]
    assert not differing, f"other content {when}: {', '.join(differing)}"
