"""Work that a stranger's file decides about, done in a process of its own with limits.

A chat template is a program: it can run for ever, or build gigabytes of text in one step that
nothing inside the process can interrupt.
"""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from demur.errors import DemurError

MOST_SECONDS = 2
"""Longest time that the work may compute."""

MOST_WAITING = 30.0
"""Longest time in seconds that is waited for it, on a machine that has more to do."""

MOST_MEMORY = 1 << 29
"""Most bytes that the work may need."""

MOST_BYTES = 1 << 24
"""Largest size of the text in UTF-8."""

_DONE, _MEMORY, _FAILED = b"d", b"m", b"f"


class OutOfBounds(DemurError):
    """The work took too long, or needed too much memory.

    Args:
        what: the subject of the message.
        how: what it did.
    """

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} {how} on a short conversation: give another one.")


def bounded_text(work: Callable[[], str], what: str) -> str:
    """The text that `work` returns, or an error where it goes out of bounds.

    On systems that cannot fork (Windows) the work is done without bounds.

    Args:
        work: function that returns a text. What it changes is not seen outside.
        what: subject of messages, for example "The chat template".

    Raises:
        OutOfBounds: the work computes longer than `MOST_SECONDS`, or needs more than `MOST_MEMORY`.
        RuntimeError: the work raises an exception.
    """
    if not hasattr(os, "fork"):
        return work()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child runs nothing that needs another thread
        child = os.fork()
    if child == 0:
        _run(work, writing)
    os.close(writing)
    try:
        said = _read(reading, what)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not said and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise OutOfBounds(what, f"does not end within {MOST_SECONDS} s")
    kind, text = said[:1], said[1:].decode("utf-8", "replace")
    if kind == _DONE:
        return text
    if kind == _MEMORY:
        raise OutOfBounds(what, f"needs more than {MOST_MEMORY >> 20} MB of memory")
    raise RuntimeError(text or "it ended without a result")


def _run(work: Callable[[], str], writing: int) -> None:
    """Do the work in the child, which ends here."""
    try:
        _limit()
        said = _DONE + work().encode("utf-8", "replace")
    except MemoryError:
        said = _MEMORY
    except BaseException as error:
        said = _FAILED + str(error).encode("utf-8", "replace")[:10_000]
    try:
        with os.fdopen(writing, "wb", closefd=False) as stream:
            stream.write(said)
    finally:
        os._exit(0)


def _limit() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 1))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MOST_MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _read(reading: int, what: str) -> bytes:
    said = bytearray()
    deadline = time.monotonic() + MOST_WAITING
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            raise OutOfBounds(what, f"does not end within {MOST_WAITING:.0f} s")
        piece = os.read(reading, 1 << 16)
        if not piece:
            return bytes(said)
        said += piece
        if len(said) > MOST_BYTES:
            raise OutOfBounds(what, f"writes more than {MOST_BYTES >> 20} MB")
