"""Which workers a study has on a cluster that grows, is full or fails; Ray is a stand-in here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demur import DemurError, RayCluster, Study
from demur.progress import SilentProgress
from demur.study import scheduler
from demur.study.planning import StudyPlan
from demur.study.record import Cell, Outcome
from tests.ray_without_cluster import GB, FakeRay, Host, RayError, RayTaskError
from tests.telling import Telling
from tests.tiny_study import FILE, write_study

LOST = """The actor died unexpectedly before finishing this task.
\tclass_name: Worker
\tpid: 17
The actor is dead because its worker process has died: killed for its memory."""
CREATION = "The actor died because of an error raised in its creation task, ray::Worker()\n"


@pytest.fixture
def plan(tmp_path: Path) -> StudyPlan:
    """The plan of a study of ten cells, whose model has weights of 15 GB."""
    file = write_study(tmp_path, text=FILE.replace("float32", "auto"), model=False)
    (tmp_path / "tiny").mkdir()
    with (tmp_path / "tiny/model.safetensors").open("wb") as weights:
        weights.truncate(15 * GB)
    return Study.load(file, tmp_path / "out").plan(SilentProgress())


def outcomes(plan: StudyPlan, ray: FakeRay) -> tuple[dict[str, Outcome], list[str]]:
    """What comes of the study's cells, and what is told meanwhile."""
    progress = Telling()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", ray)
        found = list(RayCluster("auto").outcomes(plan, plan.left, progress))
    assert len(found) == len({one.folder for one in found}) == len(plan.left) == 10
    assert {*ray.actors} <= {*ray.killed}, "all workers are ended"
    return {one.folder: one for one in found}, progress.messages


def mistake(plan: StudyPlan, ray: FakeRay) -> str:
    """What ends the study."""
    with pytest.raises(DemurError) as caught:
        outcomes(plan, ray)
    return str(caught.value)


def test_a_machine_that_joins_later_gets_workers(plan: StudyPlan) -> None:
    ray = FakeRay(Host(8), do=lambda _: ray.hosts.append(Host(8)) if len(ray.hosts) < 3 else None)
    found, _ = outcomes(plan, ray)
    assert {one.status for one in found.values()} == {"done"}
    assert {one.cores for one in ray.actors} == {5}
    assert {one.host for one in ray.actors if one.cells} == {*ray.hosts}


def test_gpus_that_join_later_change_what_workers_claim(plan: StudyPlan) -> None:
    def join(_: Cell) -> None:
        if len(ray.hosts) == 1:
            ray.hosts.append(Host(4, gpus=2))

    ray = FakeRay(Host(4), do=join)
    found, _ = outcomes(plan, ray)
    assert {one.status for one in found.values()} == {"done"}
    first, *others = (one for one in ray.actors if one.cells)
    assert (first.cores, first.gpus) == (3, 0)
    assert len(first.cells) <= 2, "it ends what it has begun"
    assert [(one.cores, one.gpus) for one in others] == [(1, 1)] * 2
    assert sum(len(one.cells) for one in others) >= 8


def test_a_worker_without_room_takes_the_gpu_that_joins(plan: StudyPlan) -> None:
    ray = FakeRay(Host(4))
    ray.take(ray.hosts[0])
    ray.on_wait = lambda: ray.hosts.append(Host(2, gpus=1)) if ray.waits == 3 else None
    outcomes(plan, ray)
    assert {one.gpus for one in ray.actors if one.cells} == {1}


def test_gpus_that_are_gone_are_still_asked_for(plan: StudyPlan) -> None:
    def leave(_: Cell) -> None:
        ray.hosts[:] = [Host(4)]
        ray.on_wait = lambda: ray.hosts.append(gpus) if ray.waits == 50 else None

    gpus = Host(4, gpus=1)
    ray = FakeRay(Host(4), gpus, do=leave)
    outcomes(plan, ray)
    assert {one.gpus for one in ray.actors} == {1}


def test_a_full_cluster_is_told_once_with_what_waits(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "ROOM", 0.0)
    ray = FakeRay(Host(4, gpus=1))
    busy = ray.take(ray.hosts[0])
    ray.on_wait = lambda: ray.kill(busy) if ray.waits == 20 else None
    found, told = outcomes(plan, ray)
    assert {one.status for one in found.values()} == {"done"}
    (line,) = (one for one in told if "room" in one)
    assert "a worker of the model 'tiny' needs 1 GPU and 1 core of one machine" in line


def test_nothing_is_told_where_there_is_room(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "ROOM", 0.0)
    _, told = outcomes(plan, FakeRay(Host(4)))
    assert not [one for one in told if "room" in one]


def test_an_error_in_a_worker_is_no_lost_worker(plan: StudyPlan) -> None:
    def fail(cell: Cell) -> None:
        if cell.kind == "run" and cell.seed == 0:
            raise RayTaskError(ZeroDivisionError("division by zero"))

    ray = FakeRay(Host(4), do=fail)
    found, told = outcomes(plan, ray)
    assert len(ray.actors) == 1, "the worker keeps its model"
    reasons = {one.reason for one in found.values() if one.status == "failed"}
    assert reasons == {"ZeroDivisionError: division by zero"}
    assert any("A cell failed" in one and "division by zero." in one for one in told)


def test_a_worker_that_is_lost_again_and_again_fails_its_cell(plan: StudyPlan) -> None:
    def lose(cell: Cell) -> None:
        if cell.kind == "run" and cell.seed == 0:
            raise RayError(LOST)

    found, _ = outcomes(plan, FakeRay(Host(4), do=lose))
    reasons = {one.reason for one in found.values() if one.status == "failed"}
    assert reasons == {
        "its worker was lost 4 times (The actor died unexpectedly before finishing this task. The "
        "actor is dead because its worker process has died: killed for its memory)"
    }


def test_a_worker_that_cannot_begin_says_why(plan: StudyPlan) -> None:
    def prepare(error: RayError) -> FakeRay:
        def fail() -> None:
            raise error

        return FakeRay(Host(4), prepare=fail)

    said = mistake(plan, prepare(RayTaskError(KeyError("x"))))
    assert said == "A worker cannot begin: KeyError: 'x'."
    said = mistake(plan, prepare(RayError(LOST)))
    assert said.startswith("A worker cannot begin: its worker was lost 4 times (The actor died")
    assert "install" not in said
    said = mistake(plan, prepare(RayError(f"{CREATION}ModuleNotFoundError: No module 'demur'\n")))
    assert said == (
        "A worker cannot begin: ModuleNotFoundError: No module 'demur': install demur with its "
        "extra ray on each machine of the cluster, in the same version."
    )


def test_a_model_larger_than_a_gpu_is_refused_before_a_worker_begins(plan: StudyPlan) -> None:
    ray = FakeRay(Host(8, gpus=4), gpu_memory=8 * GB)
    said = mistake(plan, ray)
    assert "'tiny' take about 15 GB, and a GPU of the cluster has 8 GB" in said
    assert 'set device = "auto"' in said
    assert not ray.actors
