"""A study on a Ray cluster: workers do its cells, and each keeps its model between them.

Ray places the workers where there is room, starts lost ones again, and repeats the cell that was
lost with one. `scheduler` decides which cells may begin, and gives them to the workers.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from demur.errors import DemurError, first_line
from demur.progress import Progress
from demur.study.parcel import Parcel, packed
from demur.study.planning import StudyPlan
from demur.study.record import Cell, Outcome
from demur.study.scheduler import Scheduler
from demur.study.travel import CellStorage

_CONNECT = 10.0
"""Seconds in which a cluster must answer."""

_STORE = 80 << 20
"""Bytes of Ray's object store on this machine; the results are files."""


class RayCluster:
    """Does the cells of a study on a Ray cluster, many at once.

    All machines must see the study's folder and the files that it names under the same paths.
    Where they do not, give the study a storage, through which both travel. In a process that has
    joined a cluster already, that one is used.

    Args:
        address: address of a running cluster, for example `10.0.0.1:6379` or `auto`; None for one
            of this machine alone, which begins and ends with the study.

    Raises:
        DemurError: Ray is not installed.

    Example:
        >>> study = Study.load("study.toml")  # doctest: +SKIP
        >>> study.run(runner=RayCluster("auto"))  # doctest: +SKIP
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it sends them to its makers
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise DemurError(
                "A study on a cluster needs the package ray: run `pip install 'demur[ray]'`."
            ) from None

    def outcomes(
        self, plan: StudyPlan, left: Sequence[Cell], progress: Progress
    ) -> Iterator[Outcome]:
        """Do cells; see `Runner`.

        Raises:
            DemurError: the cluster cannot be joined, or its machines or the storage cannot do the
                study.
        """
        parcel = None if plan.storage is None else _packed(plan, plan.storage)
        with self._joined():
            scheduler = Scheduler(self._ray, plan, left, progress, parcel)
            try:
                yield from scheduler.outcomes()
            finally:
                scheduler.end()

    @contextmanager
    def _joined(self) -> Iterator[None]:
        ray = self._ray
        if ray.is_initialized():
            yield
            return
        _require_reachable(self.address)
        own = {
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "_node_ip_address": "127.0.0.1",  # no port is open to others
        }
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=self.address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if self.address else own),
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _unreachable(self.address or "of this machine", error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray has put its own there
        try:
            yield
        finally:
            ray.shutdown()


def _packed(plan: StudyPlan, storage: CellStorage) -> Parcel:
    """What workers need that see no disk of this machine."""
    storage.storage.require_shared()
    token = storage.begin(plan.record.name).token
    return packed(plan.settings.source, storage, token, plan.path)


def _require_reachable(address: str | None) -> None:
    """Find out within seconds what Ray finds out within minutes: that nothing is at an address.

    Raises:
        DemurError: no connection is possible.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:  # none, or `auto`
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(str(address), error) from error


def _unreachable(address: str, error: Exception) -> DemurError:
    return DemurError(
        f"Cannot join the Ray cluster {address!r:.200} ({first_line(error):.200}): check "
        "--ray-address, and that Ray has the same version and token here and there."
    )
