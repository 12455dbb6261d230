"""Writing files whole or not at all, with errors that a user can fix; where downloads are kept."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from demur.errors import DemurError
from demur.limits import MOST_RECORD_BYTES
from demur.temporary import remove_leftovers, temporary

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DATA = frozenset(
    (".json", ".jsonl", ".journal", ".f32", ".safetensors", ".gguf", ".csv", ".tsv", ".parquet")
)
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def cache_directory() -> Path:
    """Where demur keeps downloads and unpacked models.

    `DEMUR_CACHE` if it is set, else the user's cache folder of the operating system. The folder
    need not exist.
    """
    chosen = os.environ.get("DEMUR_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("demur")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into a `DemurError` that says how to fix it."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DemurError(
                f"No space is left to write {path}: free some and run the same command again."
            ) from error
        raise DemurError(
            f"Cannot write {path} ({error.strerror or error}): choose a place that can be written."
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content at once: a reader sees the old one or the new one.

    What killed processes left of the same file is removed.

    Raises:
        DemurError: the disk is full, the place cannot be written, or there is something else than a
            regular file; the old content stays.
    """
    with writing(path):
        require_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        with temporary(path) as new:
            with new.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(path)


def require_replaceable(path: Path) -> None:
    """Check that a place is free or a regular file, which alone may be replaced.

    Links are refused as well: `/dev/stdout` is one, and in a stranger's folder one may lead
    anywhere.

    Raises:
        DemurError: there is something else.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # there is nothing, or writing says what is wrong
        return
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe"}
    what = kinds.get(stat.S_IFMT(mode), "a device or socket")
    raise DemurError(f"{path} is {what} and no regular file: give another path.")


def require_no_data(path: Path) -> None:
    """Check that a page for people does not take the place of data, such as `results.json`.

    Raises:
        DemurError: there is a file of data, or something else than a regular file.
    """
    require_replaceable(path)
    try:
        is_data = path.suffix.lower() in _DATA and path.stat().st_size > 0
    except OSError:  # there is nothing, or writing says what is wrong
        return
    if is_data:
        raise DemurError(f"{path} is there and holds data: give another path.")


def append_bytes(path: Path, data: bytes, *, at: int) -> None:
    """Write to the end of a file and wait until the disk has it.

    Args:
        path: an existing file.
        data: bytes to add.
        at: length in bytes that the file should have before; what lies behind is dropped.

    Raises:
        DemurError: the disk is full or the file cannot be written. What lay before `at` stays.
    """
    require_replaceable(path)
    with writing(path), path.open("r+b") as stream:
        stream.truncate(at)
        stream.seek(at)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears in `path` when it is complete, or not at all.

    Args:
        path: a free place or an empty folder.

    Yields:
        An empty folder beside it to write into; what is in there when the block ends is moved.

    Raises:
        DemurError: the disk is full or the place cannot be written.
    """
    target = path.resolve()
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, target.name)
        with temporary(target, is_folder=True) as new:
            yield new
            if target.exists():
                target.rmdir()
            new.rename(target)


def safe_name(text: str) -> str:
    """`text` as part of a file's name on every system; may be empty."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def distinct_names() -> Callable[[str], str]:
    """Names of files, none of them twice, not even where case does not count."""
    taken: set[str] = set()

    def name_of(text: str) -> str:
        wanted = name = safe_name(text) or "responses"
        number = 2
        while name.lower() in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name.lower())
        return name

    return name_of


SPACE_MARGIN = 64 << 20
"""Bytes that stay free beside what is written."""


def megabytes(needed: int) -> int:
    """A number of bytes that is needed in megabytes, rounded up."""
    return -(-needed // 10**6)


def require_cache_space(folder: Path, needed: int, what: str) -> None:
    """Check before a large write into the cache that it fits.

    Args:
        folder: exists, on the disk that is written to.
        needed: bytes.
        what: for people, the subject of the message.

    Raises:
        DemurError: there is too little space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPACE_MARGIN:
        raise DemurError(
            f"{what} needs {megabytes(needed + SPACE_MARGIN)} MB in {folder} and "
            f"{free // 10**6} MB are free; free some space or point DEMUR_CACHE at another disk."
        )


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON; see `write_bytes`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file that demur wrote.

    Raises:
        DemurError: it is missing, damaged, no regular file, or above `MOST_RECORD_BYTES`.
    """
    try:
        return json.loads(read_bytes(path, MOST_RECORD_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DemurError(
            f"{path} is damaged: delete it and run the command that made it again."
        ) from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, if it is a regular one: others may never end, or never begin.

    Raises:
        DemurError: there is none, it is a folder, a device or a pipe, or it cannot be read.
    """
    name = repr(str(path))
    try:
        _require_regular(path.stat().st_mode, name)
        # Should a pipe take its place in between, opening it does not wait either.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(path, flags), "rb")
        try:
            _require_regular(os.fstat(stream.fileno()).st_mode, name)
        except BaseException:
            stream.close()
            raise
        return stream
    except ValueError as error:  # a name that no file can have
        raise DemurError(f"There is no file {name:.300}: check the path.") from error
    except OSError as error:
        if error.errno in _NO_FILE:
            raise DemurError(f"There is no file {name:.300}: check the path.") from error
        raise DemurError(
            f"Cannot read {name:.300} ({error.strerror or error}): give a file that can be read."
        ) from error


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        most: largest size in bytes.

    Raises:
        DemurError: as for `open_regular`, or it is larger.
    """
    try:
        with open_regular(path) as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise DemurError(
            f"Cannot read {str(path)!r} ({error.strerror or error}): give a file that can be read."
        ) from error
    if len(content) > most:
        raise DemurError(
            f"{str(path)!r} is above {most / 1e6:.0f} MB, too large for what it should hold: give "
            "a smaller file."
        )
    return content


def utf8_text(content: bytes, shown: str) -> str:
    """Text of a file.

    Args:
        content: the file's bytes.
        shown: the file, for the message.

    Raises:
        DemurError: it is no UTF-8; the message says what it is instead, where that can be seen.
    """
    if content[:2] == b"\x1f\x8b":
        raise DemurError(f"{shown} is packed with gzip: unpack it.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DemurError(f"{shown} is UTF-16 or UTF-32: save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DemurError(f"{shown} is not UTF-8 text: save it as UTF-8.") from None


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise DemurError(f"{name:.300} is a folder: name a file in it.")
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
    raise DemurError(
        f"{name:.300} is {kind} and no regular file: save its content to a file and give that."
    )
