"""A study on a Ray cluster: workers do its cells, and each keeps its model between them.

Ray places the workers where there is room, starts lost ones again, and repeats the cell that was
lost with one. What is here decides which cells may begin, and hands them to the workers.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from demur.errors import DemurError, first_line
from demur.progress import Progress
from demur.study.claims import Claim, Machine, claim_of
from demur.study.grid import needs_of, run_of
from demur.study.parcel import Parcel, packed
from demur.study.planning import StudyPlan
from demur.study.record import Cell, Outcome
from demur.study.settings import StudyModel
from demur.study.travel import CellStorage
from demur.study.worker import Worker

RETRIES = 3
"""How often a cell is done again whose worker was lost."""

IDLE = 60.0
"""Seconds after which a worker without a cell gives back what it has claimed."""

_SECONDS = 10.0

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
            work = _HandOut(self._ray, plan, left, progress, parcel)
            try:
                yield from work.outcomes()
            finally:
                work.end()

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


@dataclass(frozen=True, eq=False)
class _Hand:
    """A worker as this process knows it."""

    model: str
    actor: Any


class _HandOut:
    """Cells that are handed to workers."""

    def __init__(
        self,
        ray: Any,
        plan: StudyPlan,
        left: Sequence[Cell],
        progress: Progress,
        parcel: Parcel | None,
    ) -> None:
        self._ray, self._plan, self._progress, self._parcel = ray, plan, progress, parcel
        self._needs = needs_of(plan.record.cells)
        self._waiting = {cell.folder: cell for cell in left}
        self._open = set(self._waiting)  # waiting or being done
        self._failed: set[str] = set()
        self._machines = _machines(ray)
        self._claims: dict[str, Claim] = {}
        self._hands: list[_Hand] = []
        self._idle: dict[_Hand, float] = {}
        self._busy: dict[Any, tuple[_Hand, Cell | None]] = {}

    def outcomes(self) -> Iterator[Outcome]:
        """Do all cells; what comes of each is returned when it has ended."""
        while self._open:
            self._hand_out()
            self._let_go()
            self._start()
            ended, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=IDLE / 4)
            for reference in ended:
                outcome = self._ended(reference)
                if outcome is not None:
                    self._hand_out()  # while its files are fetched
                    yield outcome

    def end(self) -> None:
        """End all workers."""
        for hand in list(self._hands):
            self._drop(hand)

    def _hand_out(self) -> None:
        for hand in list(self._idle):
            cell = next(self._ready(hand.model), None)
            if cell is None:
                continue
            del self._waiting[cell.folder], self._idle[hand]
            self._progress.message(self._plan.told(cell))
            reference = hand.actor.do.remote(cell, run_of(cell) in self._failed)
            self._busy[reference] = (hand, cell)

    def _let_go(self) -> None:
        """End workers that no cell waits for, and those that have waited for long themselves."""
        models = {cell.model for cell in self._waiting.values()}
        for hand, since in list(self._idle.items()):
            if hand.model not in models or time.monotonic() - since > IDLE:
                self._drop(hand)

    def _start(self) -> None:
        """Ask for workers where cells could begin that no worker is there for."""
        for model in self._plan.settings.models:
            ready = sum(1 for _ in self._ready(model.name))
            if not ready:
                continue
            own = [hand for hand in self._hands if hand.model == model.name]
            begun = sum(cell is None and hand in own for hand, cell in self._busy.values())
            most = self._claim(model).times(self._machines)
            for _ in range(min(ready - begun, most - len(own))):
                self._new(model)

    def _new(self, model: StudyModel) -> None:
        claim, plan = self._claim(model), self._plan
        actor = self._ray.remote(Worker).options(
            num_cpus=claim.cores,
            num_gpus=claim.gpus,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        source = plan.settings.source
        hand = _Hand(model.name, actor.remote(source, plan.path, Path.cwd(), self._parcel))
        self._hands.append(hand)
        self._busy[hand.actor.prepare.remote()] = (hand, None)

    def _ended(self, reference: Any) -> Outcome | None:
        """What came of a cell; None where a worker is ready for its first one.

        Raises:
            DemurError: a worker cannot begin or go on.
        """
        hand, cell = self._busy.pop(reference)
        lost = False
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            reason, lost = first_line(getattr(error, "cause", None) or error), True
            if cell is None:
                raise DemurError(
                    f"A worker cannot begin ({reason:.300}): install demur with its extra ray on "
                    "each machine of the cluster, in the same version."
                ) from error
            told = f"its worker was lost {RETRIES + 1} times ({reason:.200})"
            found = Outcome(cell.folder, cell.content, "failed", 0.0, told)
        if lost:
            self._drop(hand)
        else:
            self._idle[hand] = time.monotonic()
        if isinstance(found, str) and found:
            raise DemurError(found)
        if cell is None:
            return None
        outcome: Outcome = found
        self._open.discard(cell.folder)
        if outcome.status == "failed":
            self._failed.add(cell.folder)
            self._progress.message(f"A cell failed, {cell.title}: {outcome.reason}.")
        return outcome

    def _ready(self, model: str) -> Iterator[Cell]:
        """The cells of a model that can begin now."""
        for folder, cell in self._waiting.items():
            if cell.model == model and not self._needs[folder] & self._open:
                yield cell

    def _claim(self, model: StudyModel) -> Claim:
        if model.name not in self._claims:
            self._claims[model.name] = claim_of(model, self._machines, self._gpu_memory)
        return self._claims[model.name]

    def _gpu_memory(self) -> int:
        """Bytes of memory of one of the cluster's GPUs."""
        return int(self._ray.get(self._ray.remote(num_gpus=1)(_memory_of_gpu).remote()))

    def _drop(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        self._idle.pop(hand, None)
        self._ray.kill(hand.actor)


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
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(str(address), error) from error


def _unreachable(address: str, error: Exception) -> DemurError:
    return DemurError(
        f"Cannot join the Ray cluster {address!r:.200} ({first_line(error):.200}): check "
        "--ray-address, and that Ray has the same version and token here and there."
    )


def _machines(ray: Any) -> list[Machine]:
    found = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return [
        Machine(int(one.get("CPU", 0)), int(one.get("GPU", 0)), int(one.get("memory", 0)))
        for one in found
    ]


def _memory_of_gpu() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
