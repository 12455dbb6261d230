"""Which cells of a study the workers of a Ray cluster do, and how many workers there are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from demur.errors import DemurError, first_line
from demur.progress import Progress
from demur.study.claims import Claim, Machine, claim_of
from demur.study.grid import needs_of, run_of
from demur.study.parcel import Parcel
from demur.study.planning import StudyPlan
from demur.study.record import Cell, Outcome
from demur.study.settings import StudyModel
from demur.study.worker import Worker

RETRIES = 3
"""How often a cell is done again whose worker was lost."""

IDLE = 60.0
"""Seconds after which a worker without a cell gives back what it has claimed."""

LOOK = 15.0
"""Seconds after which the machines are counted again, where nothing ends meanwhile."""

ROOM = 60.0
"""Seconds without any worker after which is told that Ray has no room for one."""

_NOT_INSTALLED = re.compile(r"ModuleNotFoundError|ImportError|UnpicklingError|Can't get attribute")
"""What Ray's errors say where demur is missing on a machine, or there in another version."""

_ERROR = re.compile(r"[\w.]*(?:Error|Exception): .*")
"""The line of a traceback that says what went wrong."""


@dataclass(frozen=True, eq=False)
class RemoteWorker:
    """A worker on the cluster.

    Attributes:
        model: name of the model whose cells it does.
        claim: what it takes of a machine.
        actor: Ray's handle of it.
        placed: Ray's reference to a result that is there once the worker has a machine.
    """

    model: str
    claim: Claim
    actor: Any
    placed: Any


class Scheduler:
    """Gives the cells of a study to workers, which it starts and ends.

    Args:
        ray: the package `ray`, in a process that has joined a cluster.
        plan: the study.
        left: the cells to do, in the order of the study.
        progress: reports progress.
        parcel: what workers need that see no disk of this machine, or None.
    """

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
        self._machines: list[Machine] = []
        self._kinds: set[Machine] = set()
        self._claims: dict[str, Claim] = {}
        self._workers: list[RemoteWorker] = []
        self._idle: dict[RemoteWorker, float] = {}
        self._busy: dict[Any, tuple[RemoteWorker, Cell | None]] = {}
        self._without_worker: float | None = time.monotonic()  # None once that was told

    def outcomes(self) -> Iterator[Outcome]:
        """Do all cells; what comes of each is returned when it has ended.

        Raises:
            DemurError: no machine has room for a model, or a worker cannot begin or go on.
        """
        while self._open:
            self._count_machines()
            self._hand_out()
            self._let_go()
            self._start()
            self._tell_of_no_room()
            ended, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=LOOK)
            for reference in ended:
                outcome = self._ended(reference)
                if outcome is not None:
                    self._hand_out()  # while its files are fetched
                    yield outcome

    def end(self) -> None:
        """End all workers."""
        for worker in list(self._workers):
            self._drop(worker)

    def _count_machines(self) -> None:
        """See which machines there are; claims change when one joins that is like no other.

        A machine that is gone changes no claim, so that Ray is still asked for one like it.

        Raises:
            DemurError: no machine has room for a model.
        """
        self._machines = _machines(self._ray)
        if self._kinds.issuperset(self._machines):
            return
        self._kinds.update(self._machines)
        models = {cell.model for cell in self._waiting.values()}
        for model in self._plan.settings.models:
            if model.name in models:
                self._claims[model.name] = self._claim(model)
        for reference, (worker, cell) in list(self._busy.items()):
            if cell is None and not self._is_current(worker):
                del self._busy[reference]
                self._drop(worker)

    def _claim(self, model: StudyModel) -> Claim:
        try:
            return claim_of(model, list(self._kinds), lambda: self._gpu_memory)
        except DemurError:
            if model.name not in self._claims:
                raise
            return self._claims[model.name]  # its workers do without the machines that joined

    def _is_current(self, worker: RemoteWorker) -> bool:
        """Whether a worker has what its model would claim now."""
        return self._claims[worker.model] == worker.claim

    def _hand_out(self) -> None:
        for worker in filter(self._is_current, list(self._idle)):
            cell = next(self._ready(worker.model), None)
            if cell is None:
                continue
            del self._waiting[cell.folder], self._idle[worker]
            self._progress.message(self._plan.told(cell))
            reference = worker.actor.do.remote(cell, run_of(cell) in self._failed)
            self._busy[reference] = (worker, cell)

    def _let_go(self) -> None:
        """End workers that no cell waits for, and those that have waited for long themselves."""
        models = {cell.model for cell in self._waiting.values()}
        for worker, since in list(self._idle.items()):
            is_wanted = worker.model in models and self._is_current(worker)
            if not is_wanted or time.monotonic() - since > IDLE:
                self._drop(worker)

    def _start(self) -> None:
        """Ask for workers where cells could begin that no worker is there for."""
        for model in self._plan.settings.models:
            ready = sum(1 for _ in self._ready(model.name))
            if not ready:
                continue
            claim = self._claims[model.name]
            own = [one for one in self._workers if (one.model, one.claim) == (model.name, claim)]
            begun = sum(cell is None and worker in own for worker, cell in self._busy.values())
            most = claim.times(self._machines)
            for _ in range(min(ready - begun, most - len(own))):
                self._new(model.name, claim)

    def _new(self, model: str, claim: Claim) -> None:
        plan = self._plan
        actor = (
            self._ray.remote(Worker)
            .options(
                num_cpus=claim.cores,
                num_gpus=claim.gpus,
                max_restarts=-1,
                max_task_retries=RETRIES,
            )
            .remote(plan.settings.source, plan.path, Path.cwd(), self._parcel)
        )
        worker = RemoteWorker(model, claim, actor, actor.__ray_ready__.remote())
        self._workers.append(worker)
        self._busy[actor.prepare.remote()] = (worker, None)

    def _tell_of_no_room(self) -> None:
        """Say once which claim waits where no worker has got a machine for long."""
        if self._without_worker is None or not self._workers:
            return
        now = time.monotonic()
        placed, _ = self._ray.wait([one.placed for one in self._workers], timeout=0)
        if placed:
            self._without_worker = now
        elif now - self._without_worker > ROOM:
            self._tell_waiting_for(self._workers[0].claim, self._workers[0].model)
            self._without_worker = None

    def _tell_waiting_for(self, claim: Claim, model: str) -> None:
        self._progress.message(
            f"Waiting for room on the cluster: a worker of the model {model!r:.80} needs {claim} "
            f"of one machine, and has got none for {ROOM:.0f} seconds. `ray status` shows what is "
            "in use."
        )

    def _ended(self, reference: Any) -> Outcome | None:
        """What came of a cell; None where a worker is ready for its first one.

        Raises:
            DemurError: a worker cannot begin or go on.
        """
        worker, cell = self._busy.pop(reference)
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            is_alive = isinstance(error, self._ray.exceptions.RayTaskError)
            reason = self._reason(error)
            if cell is None:
                raise DemurError(f"A worker cannot begin: {reason}.") from error
            found = Outcome(cell.folder, cell.content, "failed", 0.0, reason)
        else:
            is_alive = True
        if is_alive:
            self._idle[worker] = time.monotonic()
        else:
            self._drop(worker)
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

    def _reason(self, error: Exception) -> str:
        """Why a worker could not do what it was asked for, in one line without a full stop."""
        text, cause = str(error), getattr(error, "cause", None)
        lines = [line.strip() for line in text.splitlines() if line and not line.startswith("\t")]
        named = [line for line in lines if _ERROR.fullmatch(line)]
        missing = [line for line in named if _NOT_INSTALLED.search(line)]
        if isinstance(cause, Exception) and not missing:
            reason = f"{type(cause).__name__}: {first_line(cause)}"
        else:
            reason = (missing or named or [" ".join(lines)])[-1]
        reason = f"{reason:.300}".rstrip(". ")
        if missing:
            return (
                f"{reason}: install demur with its extra ray on each machine of the cluster, in "
                "the same version"
            )
        if isinstance(error, self._ray.exceptions.RayTaskError):
            return reason  # Ray repeats no call that ended in an error of its own
        return f"its worker was lost {RETRIES + 1} times ({reason})"

    def _ready(self, model: str) -> Iterator[Cell]:
        """The cells of a model that can begin now."""
        for folder, cell in self._waiting.items():
            if cell.model == model and not self._needs[folder] & self._open:
                yield cell

    @cached_property
    def _gpu_memory(self) -> int | None:
        """Bytes of memory of one of the cluster's GPUs; None where PyTorch does not know.

        It is asked before the first worker claims a GPU, and never again.
        """
        reference = self._ray.remote(num_cpus=0, num_gpus=1)(_memory_of_gpu).remote()
        ended, _ = self._ray.wait([reference], num_returns=1, timeout=ROOM)
        if not ended:
            self._progress.message(
                "Waiting for a free GPU of the cluster, to see how much memory it has: `ray "
                "status` shows what is in use."
            )
        try:
            found: int | None = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise DemurError(f"A worker cannot begin: {self._reason(error)}.") from error
        return found

    def _drop(self, worker: RemoteWorker) -> None:
        self._workers.remove(worker)
        self._idle.pop(worker, None)
        self._ray.kill(worker.actor)


def _machines(ray: Any) -> list[Machine]:
    """The machines of the cluster that are there."""
    found = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return [
        Machine(int(one.get("CPU", 0)), int(one.get("GPU", 0)), int(one.get("memory", 0)))
        for one in found
    ]


def _memory_of_gpu() -> int | None:
    """Bytes of memory of this machine's first GPU; None where PyTorch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)
