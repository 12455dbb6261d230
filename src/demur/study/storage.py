"""A folder at a URL that `fsspec` knows, through which the files of a study travel.

`fsspec` brings the local disk (`file://`) and finds what else is installed: `s3fs` for `s3://`,
`gcsfs` for `gs://`, `adlfs` for `az://` and so on. Keys come from where these packages look for
them, and never from the URL.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from demur.errors import DemurError, did_you_mean, first_line, is_text
from demur.files import DISK_FULL

Item = TypeVar("Item")
Result = TypeVar("Result")

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>.+)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|SIGNATURE|CONNECTION_STRING")
_QUESTION = re.compile(r"\?[^\s'\"<>)]*")
_USER = re.compile(r"://[^\s/@'\"]*:[^\s'\"]*@")
_LEAST_SECRET = 6
_MOST_BYTES = 64 << 20
_AT_ONCE = 16
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "tos")
"""Storages without folders, in which a missing bucket is a mistake and is not to be made."""

_ON_DISK = ("file", "local")
_RENAMING = (*_ON_DISK, "sftp", "ssh")
"""Storages in which a file under another name takes the place of an older one at once."""

_EXAMPLE = "for example s3://BUCKET/FOLDER or file:///FOLDER"


class StorageError(DemurError):
    """The storage cannot be used; nothing of the study can be finished without it."""


class Storage:
    """A folder at a URL. No request is made before something is read or written.

    Args:
        url: address of the folder, for example `s3://bucket/studies/mine`. It must hold no
            password.

    Attributes:
        url: the address, without a slash at its end.
        protocol: how the address begins, for example `s3`.

    Raises:
        DemurError: it is no such address, or `fsspec` or a package for it is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        self._lock = threading.RLock()
        self.protocol = self.url.partition("://")[0].lower()
        self._require_known()

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none.

        Raises:
            StorageError: it cannot be read, or is larger than any that demur writes there.
        """
        with self._using("read from"):
            try:
                size = self._size(name)
                if size is None:
                    return None
                if size > _MOST_BYTES:
                    raise ValueError(f"{name} is too large")
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, over an older one.

        Raises:
            StorageError: it cannot be written.
        """
        with self._using("write to"):
            self._place_at(name, lambda path: self._files.pipe_file(path, data))

    def put(self, name: str, file: Path) -> None:
        """Copy a file of this machine there, and check that it has arrived as a whole.

        Raises:
            StorageError: it cannot be written.
        """
        with self._using("write to"):
            self._place_at(name, lambda path: self._files.put_file(str(file), path))
            self._files.invalidate_cache()
            if self._size(name) != file.stat().st_size:
                raise OSError("a file arrived in another size")

    def get(self, name: str, file: Path) -> bool:
        """Copy a file from there to this machine, over an older one; whether it was there.

        Raises:
            StorageError: it cannot be read.
        """
        with self._using("read from"):
            try:
                self._files.get_file(self._path(name), str(file))
            except FileNotFoundError:
                if not file.parent.is_dir():
                    raise
                return False
            except OSError as error:
                if error.errno in DISK_FULL:
                    raise DemurError(
                        f"No space is left to write {file}: free some and run the same command "
                        "again."
                    ) from error
                raise
        return file.is_file()

    def size(self, name: str) -> int | None:
        """The length of a file in bytes; None where there is none.

        Raises:
            StorageError: it cannot be asked.
        """
        with self._using("read from"):
            return self._size(name)

    def names(self, folder: str) -> list[str]:
        """The names of all files in a folder and below it, without the folder's own.

        Raises:
            StorageError: they cannot be listed.
        """
        with self._using("list"):
            start = f"{self._path(folder)}/"
            self._files.invalidate_cache()
            try:
                found = self._files.find(start)
            except FileNotFoundError:
                return []
        return sorted(one.removeprefix(start) for one in found if one.startswith(start))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is at the URL.

        Raises:
            StorageError: it cannot be asked.
        """
        with self._using("list"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return True
        return all(one.rstrip("/") == self._root for one in found)

    def remove(self, name: str) -> None:
        """Remove a file, where it is there and that is allowed."""
        with suppress(DemurError), self._using("write to"):
            self._files.rm_file(self._path(name))

    def try_out(self) -> None:
        """Write, read and remove a file, so that missing rights are found before anything slow.

        Files are removed when something there is damaged and when a command ends.

        Raises:
            StorageError: one of these cannot be done.
        """
        name, data = f"tried/{token_hex(8)}", token_hex(8).encode()
        self.write(name, data)
        if self.read(name) != data:
            raise StorageError(
                f"What was written to {self.url} is not there when it is read: give an address of "
                "another storage."
            )
        with self._using("remove files from"):
            self._files.rm_file(self._path(name))

    def require_shared(self) -> None:
        """Check that several processes see the same files.

        Raises:
            DemurError: the storage is the memory of one process.
        """
        if self.protocol == "memory":
            raise DemurError(
                f"{self.url} is the memory of one process, which no worker sees: give a storage "
                f"that all machines reach, {_EXAMPLE}."
            )

    def _place_at(self, name: str, write: Callable[[str], object]) -> None:
        """Write a file, so that others see it as a whole where that can be had."""
        path = self._path(name)
        new = f"{path}.{token_hex(4)}.part" if self.protocol in _RENAMING else path
        try:
            write(new)
        except FileNotFoundError:
            if self.protocol in _BUCKETS:
                raise
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            write(new)
        if new != path:
            self._files.mv(new, path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _size(self, name: str) -> int | None:
        self._files.invalidate_cache()
        try:
            found = self._files.info(self._path(name))
        except FileNotFoundError:
            return None
        return None if found.get("type") == "directory" else int(found.get("size") or 0)

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Do something with every item, many at once where the storage can do that.

        Args:
            work: reads or writes here.
            items: what is passed to it.

        Returns:
            What each came to, in their order.
        """
        if not self._many_at_once:
            return [work(one) for one in items]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(work, items))

    @cached_property
    def _many_at_once(self) -> bool:
        """Whether the file system is made for several requests at once; others know one only."""
        with self._using("use"):
            return bool(getattr(self._files, "async_impl", False))

    @cached_property
    def _files(self) -> Any:
        """The file system of the URL."""
        options = {"auto_mkdir": True} if self.protocol in _ON_DISK else {}
        with self._using("use"):
            return import_module("fsspec").filesystem(self.protocol, **self._place, **options)

    @cached_property
    def _place(self) -> dict[str, Any]:
        """What the URL says about the file system, for example a host."""
        core = import_module("fsspec")
        found: dict[str, Any] = core.get_filesystem_class(self.protocol)._get_kwargs_from_urls(
            self.url
        )
        return found

    @cached_property
    def _root(self) -> str:
        return str(self._files._strip_protocol(self.url)).rstrip("/")

    def _require_known(self) -> None:
        core = import_module("fsspec")
        try:
            core.get_filesystem_class(self.protocol)
        except ImportError as error:
            raise DemurError(
                f"The storage {self.protocol}:// needs a package that is not installed "
                f"({first_line(error):.200}): install it on each machine."
            ) from error
        except ValueError:
            near = did_you_mean(self.protocol, core.available_protocols())
            raise DemurError(
                f"There is no storage {self.protocol:.40}:// that fsspec knows{near}: give an "
                f"address, {_EXAMPLE}."
            ) from None

    @contextmanager
    def _using(self, what: str) -> Iterator[None]:
        """Turn whatever a file system raises into a `StorageError`.

        One that is made for a single request at a time has no other one meanwhile.
        """
        is_free = self.__dict__.get("_many_at_once", False)
        try:
            with nullcontext() if is_free else self._lock:
                yield
        except DemurError:
            raise
        except Exception as error:  # each file system has errors of its own
            reason = without_secrets(getattr(error, "strerror", None) or first_line(error))
            raise StorageError(
                f"Cannot {what} {self.url} ({reason:.200}): check the address, the rights and the "
                "space there, and run the same command again."
            ) from error


def checked_url(url: str) -> str:
    """A storage URL that can be shown and recorded.

    Args:
        url: what the user gave.

    Returns:
        The URL without a slash at its end.

    Raises:
        DemurError: it is no such URL, or holds a password or a signature, which the message leaves
            out.
    """
    found = _URL.fullmatch(url)
    if found is None or not is_text(url) or not url.isprintable():
        raise DemurError(f"{without_secrets(url)!r:.200} is no storage URL: write one, {_EXAMPLE}.")
    rest = found["rest"]
    if ":" in rest.rpartition("@")[0]:
        raise DemurError(
            f"A storage URL must hold no password ({found['protocol']}://***@"
            f"{without_secrets(rest.rpartition('@')[2])}): leave it out and set it as the package "
            "for that storage reads it, mostly in environment variables."
        )
    if "?" in rest or "#" in rest:
        shown = re.split(r"[?#]", rest, maxsplit=1)[0]
        raise DemurError(
            f"A storage URL must end before '?' and '#' ({found['protocol']}://{shown:.200}): "
            "leave out what follows, and set keys as the package for that storage reads them."
        )
    if "::" in url:
        raise DemurError(f"{url!r:.200} is a chain of URLs: give one, {_EXAMPLE}.")
    if ".." in rest.split("/"):
        raise DemurError(f"{url!r:.200} has a '..': give the address of the folder itself.")
    protocol = found["protocol"].lower()
    if protocol in _ON_DISK and not rest.startswith("/"):
        raise DemurError(f"{url!r:.200} is no absolute path: write {protocol}:///FOLDER.")
    if not rest.strip("/"):
        raise DemurError(f"{url!r:.200} names no folder: write one, {_EXAMPLE}.")
    return f"{protocol}://{rest.rstrip('/')}"


def without_secrets(text: str) -> str:
    """A text of others without passwords, signatures and the values of secret variables."""
    text = _QUESTION.sub("?***", _USER.sub("://***@", text))
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET.search(name.upper()):
            text = text.replace(value, "***")
    return text
