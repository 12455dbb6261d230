"""The one codec: typed records to JSON and back, checked when they are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from demur.errors import DemurError
from demur.files import write_bytes

Record = TypeVar("Record")

VERSION = 2
"""Version of demur's file formats. Files of another version are refused."""

_MOST_BYTES = 256 << 20
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def to_plain(record: object) -> Any:
    """A record as plain JSON data: dictionaries, lists, texts, numbers, booleans and None."""
    return _adapter(type(record)).dump_python(record, mode="json")


def from_plain(kind: type[Record], data: Any) -> Record:
    """Read what `to_plain` returned.

    Args:
        kind: type of the record.
        data: plain JSON data.

    Raises:
        ValueError: the data does not describe such a record.
    """
    return _validated(kind, canonical(data))


def to_line(record: object) -> bytes:
    """A record as one line of JSON in UTF-8, with its line break."""
    return _adapter(type(record)).dump_json(record) + b"\n"


def from_line(kind: type[Record], line: bytes) -> Record:
    """Read what `to_line` returned.

    Raises:
        ValueError: the line does not hold such a record.
    """
    return _validated(kind, line)


def canonical(data: Any) -> bytes:
    """Plain data as JSON with sorted keys and no white space: equal data gives equal bytes.

    Raises:
        ValueError: a number is infinite or not a number.
    """
    text = json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def record_bytes(record: object, format: str) -> bytes:
    """The content of the file that `write_record` writes.

    Args:
        record: a dataclass or pydantic model.
        format: what the file holds, for example `run`.

    Raises:
        DemurError: a text in it cannot be written as UTF-8.
    """
    content = to_plain(record)
    document = {
        "format": f"demur {format}",
        "version": VERSION,
        "sha256": hashlib.sha256(canonical(content)).hexdigest(),
        "content": content,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError as error:
        part = text[max(0, error.start - 20) : error.end]
        raise DemurError(
            f"The {format} has a text that is no UTF-8 ({part!r}): rename the file that it comes "
            "from, or leave that character out."
        ) from error


def write_record(path: Path, record: object, format: str) -> None:
    """Write a record to a JSON file, whole or not at all.

    The file holds the format's name, a SHA-256 over the content, and the content.

    Args:
        path: file to write; an older one is replaced.
        record: a dataclass or pydantic model.
        format: what the file holds, for example `run`; checked when the file is read.

    Raises:
        DemurError: the file cannot be written.
    """
    write_bytes(path, record_bytes(record, format))


def read_record(path: Path, kind: type[Record], format: str, *, in_work: bool = False) -> Record:
    """Read a file that `write_record` wrote.

    Args:
        path: the file.
        kind: type of the record.
        format: what the file must hold.
        in_work: whether the file belongs to a folder of work, where anything else in its place is
            damage; otherwise the user may have named the wrong file.

    Raises:
        DemurError: the file is missing, damaged, of another format or of another version of demur.
    """
    document = _read_document(path)
    parts = document.keys() & {"format", "version", "sha256", "content"}
    if {"sha256", "content"} & parts and len(parts) < 4:
        raise damaged(path)
    if document.get("format") != f"demur {format}":
        if in_work:
            raise damaged(path)
        raise DemurError(f"{path} holds no {format} of demur: check the path.")
    if document.get("version") != VERSION:
        raise DemurError(
            f"{path} was written by another version of demur: use that version, or run the command "
            "again in a new folder."
        )
    try:
        return _checked(kind, document)
    except (KeyError, ValueError, RecursionError) as error:
        raise damaged(path) from error


def record_from(data: bytes, kind: type[Record], format: str) -> Record:
    """Read what `record_bytes` returned.

    Args:
        data: the bytes of a file.
        kind: type of the record.
        format: what the file must hold.

    Raises:
        ValueError: they are cut or changed, or hold something else, or are those of another version
            of demur.
    """
    try:
        document = json.loads(data, object_pairs_hook=_each_once)
        if document["format"] != f"demur {format}" or document["version"] != VERSION:
            raise ValueError("it holds something else")
        return _checked(kind, document)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no record") from error


def _checked(kind: type[Record], document: Any) -> Record:
    """The record in a document whose checksum is right."""
    content = canonical(document["content"])
    if hashlib.sha256(content).hexdigest() != document["sha256"]:
        raise ValueError("the checksum differs")
    return _validated(kind, content)


def stored_content(path: Path) -> Any:
    """The content of a file that `read_record` has read, as plain data.

    What has a default there and is not stored, because demur got it later, is not added.

    Raises:
        DemurError: the file is missing or damaged.
    """
    return _read_document(path).get("content")


def format_of(path: Path) -> str | None:
    """The format that a file of `write_record` says it has; None for any other file."""
    try:
        document = _read_document(path)
    except DemurError:
        return None
    format = document.get("format")
    return format.removeprefix("demur ") if isinstance(format, str) else None


def damaged(path: Path) -> DemurError:
    """The error for a stored file that does not hold what was written."""
    return DemurError(f"{path} is damaged: delete it and run the command that made it again.")


def unreadable(path: Path, error: OSError) -> DemurError:
    """The error for a file that the system does not let demur read."""
    reason = error.strerror or error
    fix = "check the path" if isinstance(error, FileNotFoundError) else "make it readable"
    return DemurError(f"Cannot read {path} ({reason}): {fix}.")


def _read_document(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DemurError(f"{path} is a device or a pipe and no regular file: check the path.")
        if path.stat().st_size > _MOST_BYTES:
            raise DemurError(f"{path} is larger than any file that demur writes: check the path.")
        document = json.loads(path.read_bytes(), object_pairs_hook=_each_once)
    except OSError as error:
        if path.is_dir():
            raise damaged(path) from error
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(document, dict):
        raise damaged(path)
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: a key is there twice, so a line was repeated.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _validated(kind: type[Record], data: bytes) -> Record:
    """A record from JSON.

    Raises:
        ValueError: the data does not describe such a record.
    """
    try:
        record: Record = _adapter(kind).validate_json(data, strict=True)
    except DemurError as error:  # a part of it refuses its values
        raise ValueError(str(error)) from error
    return record


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
