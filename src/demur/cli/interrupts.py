"""Ctrl-C and SIGTERM: the command says how to go on, and has ended two seconds later.

Python's own handler waits until the running operation is over, be it a product of large matrices or
a thread that still waits for a server. Everything that demur writes is written whole or grows by
appending, so a command that does not stop by itself is ended in the middle without a loss.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn

from demur import processes

INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses after Ctrl-C and after SIGTERM."""

GRACE = 1.2
"""Seconds that a command has to stop by itself."""

SIGNALS: dict[int, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
MESSAGE = "Interrupted: nothing that was finished is lost; run the same command again to go on."


class Interrupts:
    """Handles the signals while a command runs; used as a context manager, once in a process.

    Attributes:
        status: exit status that the signal asks for; None before there was one.
    """

    current: Interrupts | None = None
    """What handles the signals now."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._left: tuple[int, ...] = ()
        self._told = False
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._ends: tuple[int, int] | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self
        Interrupts.current = self
        for number in SIGNALS:
            signal.signal(number, self._handle)
        # The number of a signal is written here at once, whatever the main thread computes.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._ends = (reading, writing)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ends is None:
            return
        self._stop_waiting()
        signal.set_wakeup_fd(-1)
        # All is done; closing the packages takes a while, and changes no status.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.close(self._ends[1])  # the thread reads the end and closes its side
        self._ends = None
        Interrupts.current = None

    def end(self) -> NoReturn:
        """Say how to go on, and end the process."""
        self.tell()
        self.leave()

    def tell(self) -> None:
        """Say how to go on, once; of processes that share a model, the first one does."""
        with self._lock:
            if self._told or not processes.is_first():
                return
            self._told = True
        # Not through `sys.stderr`, whose lock the main thread may hold.
        with suppress(OSError):
            os.write(2, f"\n{MESSAGE}\n".encode())

    def leave(self) -> NoReturn:
        """End the process at once: closing everything can take seconds."""
        processes.remove_copies()
        os._exit(INTERRUPTED if self.status is None else self.status)

    @contextmanager
    def left_to_the_command(self, *numbers: int) -> Iterator[None]:
        """In here the command handles signals itself, for example to stop an answer only.

        Args:
            numbers: the signals; a `KeyboardInterrupt` is raised for each.
        """
        self._left = numbers
        try:
            yield
        finally:
            self._left = ()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._left:
            raise KeyboardInterrupt
        if self.status is not None:
            self.end()  # nothing is waited for the second time
        self.status = SIGNALS[number]
        raise KeyboardInterrupt

    def _unraisable(self, problem: sys.UnraisableHookArgs) -> None:
        """Where Python would lose the interruption, for example while it removes an object."""
        if isinstance(problem.exc_value, KeyboardInterrupt) and self.status is not None:
            self.end()
        sys.__unraisablehook__(problem)

    def _watch(self, reading: int) -> None:
        while numbers := os.read(reading, 64):
            known = [one for one in numbers if one in SIGNALS]
            known = [one for one in known if one not in self._left]
            if known and self._timer is None:
                self._timer = threading.Timer(GRACE, self._give_up, (SIGNALS[known[0]],))
                self._timer.daemon = True
                self._timer.start()
        os.close(reading)

    def _give_up(self, status: int) -> None:
        self.status = status
        self.end()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def own_handling(*numbers: int) -> Iterator[None]:
    """In here the command handles signals itself; see `Interrupts.left_to_the_command`.

    Args:
        numbers: the signals; Ctrl-C where none is named.
    """
    if Interrupts.current is None:
        yield
        return
    with Interrupts.current.left_to_the_command(*(numbers or (signal.SIGINT,))):
        yield
