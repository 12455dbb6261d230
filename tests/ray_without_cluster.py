"""What the package `ray` does for a study, in one process and at once, with machines that come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from demur.study.record import Cell, Outcome

GB = 10**9


class RayError(Exception):
    """Stands for an error of Ray."""


class RayTaskError(RayError):
    """Stands for an exception in a worker's own code."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"ray::Worker.do()\n{type(cause).__name__}: {cause}")
        self.cause = cause


@dataclass(eq=False)
class Host:
    """A machine of the cluster, and what is free of it."""

    cores: int
    gpus: int = 0
    memory: int = 64 * GB


@dataclass(eq=False)
class Actor:
    """A worker that was asked for."""

    ray: FakeRay
    cores: int
    gpus: int
    host: Host | None = None
    cells: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: Reference(self, name, given))


@dataclass(eq=False)
class Reference:
    """A result that is there once the actor has a machine."""

    actor: Actor
    call: str
    given: tuple[Any, ...]


class FakeRay:
    """Stands for the package `ray` in a process that has joined a cluster.

    Args:
        *hosts: its machines.
        do: what a worker does with a cell; it is done where nothing is returned.
        prepare: what a worker does before its first cell.
        gpu_memory: bytes of memory of a GPU.

    Attributes:
        hosts: the machines; a test may add some.
        actors: all workers that were asked for.
        killed: those that were ended.
        waits: how often something was waited for.
        on_wait: called each time.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(
        self,
        *hosts: Host,
        do: Callable[[Cell], Outcome | None] = lambda _: None,
        prepare: Callable[[], None] = lambda: None,
        gpu_memory: int = 80 * GB,
    ) -> None:
        self.hosts = list(hosts)
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []
        self._others: list[Actor] = []
        self.waits = 0
        self.on_wait: Callable[[], object] = lambda: None
        self._do, self._prepare, self._gpu_memory = do, prepare, gpu_memory

    def take(self, host: Host) -> Actor:
        """Take all of a machine for something else, which `kill` ends."""
        self._others.append(Actor(self, host.cores, host.gpus, host))
        return self._others[-1]

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "Alive": True,
                "Resources": {"CPU": one.cores, "GPU": one.gpus, "memory": one.memory},
            }
            for one in self.hosts
        ]

    def remote(self, *given: Any, **options: Any) -> Any:
        if not given:  # a function that tells a GPU's memory
            return lambda _: SimpleNamespace(remote=lambda: self._gpu_memory)
        return SimpleNamespace(options=self._with)

    def _with(self, *, num_cpus: int, num_gpus: int, **_: Any) -> Any:
        def remote(*_: Any) -> Actor:
            self.actors.append(Actor(self, num_cpus, num_gpus))
            return self.actors[-1]

        return SimpleNamespace(remote=remote)

    def wait(
        self, references: list[Any], *, num_returns: int = 1, timeout: float = 0.0
    ) -> tuple[list[Any], list[Any]]:
        self.waits += 1
        self.on_wait()
        assert self.waits < 1000, "the study comes to no end"
        self._place()
        ready = [one for one in references if not isinstance(one, Reference) or one.actor.host]
        return ready[:num_returns], []

    def get(self, reference: Any) -> Any:
        if not isinstance(reference, Reference):
            return reference
        if reference.call == "prepare":
            self._prepare()
            return ""
        cell: Cell = reference.given[0]
        reference.actor.cells.append(cell.folder)
        return self._do(cell) or Outcome(cell.folder, cell.content, "done", 1.0)

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)

    def _place(self) -> None:
        """Give each actor a machine that has room for it."""
        for actor in self.actors:
            if actor.host is None and actor not in self.killed:
                actor.host = next((one for one in self.hosts if self._has_room(one, actor)), None)

    def _has_room(self, host: Host, actor: Actor) -> bool:
        every = self.actors + self._others
        there = [one for one in every if one.host is host and one not in self.killed]
        cores = host.cores - sum(one.cores for one in there)
        gpus = host.gpus - sum(one.gpus for one in there)
        return actor.cores <= cores and actor.gpus <= gpus
