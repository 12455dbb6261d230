"""One command at a time works on a study at a storage URL, as far as that can be seen there.

A storage has no locks. A command that works there writes a file again every few seconds; one that
comes later waits until the file is gone, or stays as it is. Should two work there nevertheless,
they do cells twice and mix nothing up (`travel`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex

from demur.errors import DemurError
from demur.progress import Progress
from demur.study.storage import Storage
from demur.temporary import is_running

LEASE = "command.json"

BEAT = 15.0
"""Seconds between two writes of the file."""

SILENT = 75.0
"""Seconds without a change after which another command counts as ended."""

SETTLE = 1.0
"""Seconds after which a command looks whether another one began in the same moment."""

_WAIT = 1.0


@contextmanager
def working_alone(storage: Storage, progress: Progress) -> Iterator[None]:
    """Wait until no other command works at a storage, and keep others waiting.

    Args:
        storage: folder of a study.
        progress: receives a message where another command is waited for.

    Raises:
        StorageError: the storage cannot be written.
    """
    own = _Lease(storage)
    while True:
        own.wait_for_others(progress)
        own.write()
        time.sleep(SETTLE)
        if own.is_held:
            break
    try:
        with own.beating():
            yield
    finally:
        own.give_up()


class _Lease:
    """The file by which a command says that it works at a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._name = token_hex(8)
        self._beats = 0

    def wait_for_others(self, progress: Progress) -> None:
        """Wait while another command works there."""
        before, since, told = b"", time.monotonic(), False
        while (found := self._storage.read(LEASE)) and not _has_ended(found):
            if found != before:
                before, since = found, time.monotonic()
            elif time.monotonic() - since > SILENT:
                return
            if not told:
                progress.message(
                    f"Another command works on the study at {self._storage.url}: waiting until it "
                    f"has ended, or has been silent for {SILENT:.0f} seconds."
                )
                told = True
            time.sleep(_WAIT)

    def write(self) -> None:
        """Say that this command works there."""
        self._beats += 1
        content = {
            "command": self._name,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "beats": self._beats,
        }
        self._storage.write(LEASE, json.dumps(content).encode())

    @property
    def is_held(self) -> bool:
        """Whether no other command has written since."""
        return _read(self._storage.read(LEASE)).get("command") == self._name

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Write the file again and again, until the block ends."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                with suppress(DemurError):  # the next one may pass, and the work itself tells
                    if self.is_held:
                        self.write()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=BEAT)

    def give_up(self) -> None:
        """Let others begin."""
        with suppress(DemurError):
            if self.is_held:
                self._storage.remove(LEASE)


def _read(content: bytes | None) -> dict[str, object]:
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_ended(content: bytes) -> bool:
    """Whether a command that ran on this machine runs no more."""
    found = _read(content)
    process = found.get("process")
    if found.get("host") != socket.gethostname() or not isinstance(process, int) or process < 1:
        return False
    return not is_running(process)
