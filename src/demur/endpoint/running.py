"""Running asynchronous work so that an interruption ends it at once.

The work has an event loop in a thread of its own. The caller waits for what the work reports, and
is never blocked for long, so that Ctrl-C reaches it. All requests under way are then cut off.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

Event = TypeVar("Event")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 1.5


class Report(Generic[Event]):
    """Carries what the work reports to the thread that waits for it."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def send(self, event: Event) -> None:
        """Report something; called by the work."""
        self._events.put(event)

    def end(self) -> None:
        """Say that no more will come."""
        self._events.put(None)

    def receive(self, hear: Callable[[Event], None]) -> None:
        """Pass on what is reported, until the end."""
        while True:
            try:
                event = self._events.get(timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Empty:
                continue
            if event is None:
                return
            hear(event)


def run(
    work: Callable[[Callable[[Event], None]], Coroutine[Any, Any, Result]],
    hear: Callable[[Event], None],
) -> Result:
    """Run asynchronous work and wait for it.

    Args:
        work: takes a function that reports an event, and does the work.
        hear: takes each event, in the thread of the caller.

    Returns:
        What the work returns.

    Raises:
        BaseException: what the work or `hear` raises, or an interruption of the caller, after which
            the work is cancelled.
    """
    report: Report[Event] = Report()
    outcome: Future[Result] = Future()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(report.send))

    def in_thread() -> None:
        asyncio.set_event_loop(loop)
        # A name that is being looked up cannot be cancelled, and must not be waited for.
        loop.set_default_executor(_Detached())
        try:
            outcome.set_result(loop.run_until_complete(task))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            _close(loop)
            report.end()

    thread = threading.Thread(target=in_thread, name="demur-endpoint", daemon=True)
    thread.start()
    try:
        report.receive(hear)
    except BaseException:
        with suppress(RuntimeError):  # the loop has just ended by itself
            loop.call_soon_threadsafe(task.cancel)
        thread.join(_SECONDS_TO_END)
        raise
    return outcome.result()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in a loop, and close it."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


class _Detached(ThreadPoolExecutor):
    """Runs each function in a thread that nothing waits for, not even the end of the program."""

    def submit(
        self, function: Callable[..., Result], /, *arguments: Any, **options: Any
    ) -> Future[Result]:
        """Run a function in a thread of its own."""
        future: Future[Result] = Future()

        def run_it() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*arguments, **options))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run_it, daemon=True).start()
        return future
