"""Workers that share no disk with the command: what travels to them and back, without Ray."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from demur import Comparison, DemurError, RayCluster, Study
from demur.optimization.recorded import RunRecord
from demur.progress import Progress, SilentProgress
from demur.records import read_record, write_record
from demur.study import lease
from demur.study.grid import run_of
from demur.study.parcel import packed
from demur.study.planning import StudyPlan
from demur.study.record import Cell, Outcome
from demur.study.storage import Storage
from demur.study.travel import CellStorage
from demur.study.work import do_study
from demur.study.worker import Worker
from tests.stored_study import content, do_alone, judged, write_stored


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no other command where none is."""
    monkeypatch.setattr(lease, "SETTLE", 0.0)


class Machines:
    """Does cells in turn with workers that have a cache and nothing else, each its own.

    Args:
        folder: where their caches are.
        lost: number of the transfer in which a worker is lost, from 1; None for none.
    """

    def __init__(self, folder: Path, lost: int | None = None) -> None:
        self.caches = [folder / "first", folder / "second"]
        self.lost = lost
        self.done: list[str] = []

    def outcomes(
        self, plan: StudyPlan, left: Sequence[Cell], progress: Progress
    ) -> Iterator[Outcome]:
        assert plan.storage is not None
        token = plan.storage.begin(plan.record.name).token
        parcel = packed(plan.settings.source, plan.storage, token, plan.path)
        here = Path.cwd()

        def worker(number: int) -> Worker:
            return Worker(plan.settings.source, plan.path, Path("/nowhere"), parcel)

        workers = {number: worker(number) for number in (0, 1)}
        for number, cell in enumerate(left):
            found = self._do(workers[number % 2], number % 2, cell)
            if found is None:  # Ray starts another worker, perhaps on another machine
                workers[1] = worker(1)
                found = self._do(workers[1], 1, cell)
            os.chdir(here)
            if isinstance(found, str):
                raise DemurError(found)
            assert found is not None
            yield found

    def _do(self, worker: Worker, number: int, cell: Cell) -> Outcome | str | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEMUR_CACHE", str(self.caches[number]))
            if self.lost is not None:
                patch.setattr(Storage, "put", self._losing(Storage.put))
            try:
                if wrong := worker.prepare():
                    return wrong
                self.done.append(cell.folder)
                return worker.do(cell, False)
            except KeyboardInterrupt:
                return None

    def _losing(self, put: Any) -> Any:
        def losing(storage: Storage, name: str, file: Path) -> None:
            assert self.lost is not None
            self.lost -= 1
            put(storage, name, file)
            if not self.lost:
                raise KeyboardInterrupt

        return losing


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of five cells, which this process has done without a storage."""
    folder = tmp_path_factory.mktemp("alone")
    file = write_stored(folder, methods=2)
    do_alone(folder, file)
    return folder


@pytest.fixture
def place(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the same study, of which nothing is done; the command is given in it."""
    folder = tmp_path / "place"
    folder.mkdir()
    write_stored(folder, methods=2)
    text = (folder / "small.toml").read_text()
    (folder / "small.toml").write_text(text.replace(f"{folder}/tiny", f"{alone}/tiny"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NOTES", str(folder / "notes"))
    return folder


@pytest.mark.parametrize("lost", [None, 4, 30])
def test_machines_without_a_common_disk_do_what_one_process_does(
    alone: Path, place: Path, tmp_path: Path, lost: int | None
) -> None:
    machines = Machines(tmp_path, lost)
    Study.load("small.toml", "out", f"file://{tmp_path}/there").run(SilentProgress(), machines)
    assert content(place / "out") == content(alone / "out")
    assert (place / "out/evaluations/tiny/calm-two-seed-0/report.html").is_file()
    assert len(machines.done) == 5 + (lost is not None)
    if lost is None:
        assert judged(place) == judged(alone), "what cells share is measured once"


def test_a_worker_on_the_same_machine_measures_nothing_again(
    alone: Path, place: Path, tmp_path: Path
) -> None:
    machines = Machines(tmp_path, 4)
    machines.caches[1] = machines.caches[0]
    Study.load("small.toml", "out", f"file://{tmp_path}/there").run(SilentProgress(), machines)
    assert len(machines.done) == 6
    assert judged(place) == judged(alone)
    assert content(place / "out") == content(alone / "out")


def test_a_storage_that_was_emptied_begins_anew(place: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    Study.load("small.toml", "out", f"file://{there}").run(SilentProgress(), Machines(tmp_path))
    once = judged(place)
    shutil.rmtree(there)
    Study.load("small.toml", "new", f"file://{there}").run(SilentProgress(), Machines(tmp_path))
    assert judged(place) == 2 * once


def test_the_files_that_a_study_names_travel(place: Path, tmp_path: Path) -> None:
    (place / "helper.py").write_text("WORDS = 3\n")
    text = (place / "noting.py").read_text()
    (place / "noting.py").write_text(f"import helper\n{text}")
    (place / "prompts").mkdir()
    (place / "calm.txt").rename(place / "prompts/calm.txt")
    (place / "long").mkdir()  # only has the name of something built in
    study = (place / "small.toml").read_text().replace('"calm.txt"', '"./prompts/calm.txt", "long"')
    (place / "small.toml").write_text(study)
    plan = Study.load("small.toml", "out").plan()
    store = CellStorage(f"memory://{tmp_path.name}")
    parcel = packed(plan.settings.source, store, "0" * 16, plan.path)
    assert [one.name for one in parcel.files] == [
        "brief.txt",
        "harmful.txt",
        "harmless.txt",
        "helper.py",
        "noting.py",
        "prompts/calm.txt",
        "test-harmful.txt",
        "test-harmless.txt",
    ]


@pytest.mark.parametrize("spec", ["mine", "mine/safety_prompt/safety_prompt.safetensors"])
def test_a_trained_prompt_travels(alone: Path, place: Path, tmp_path: Path, spec: str) -> None:
    shutil.copytree(alone / "out/runs/tiny/calm-one-seed-0", place / "mine")
    study = (place / "small.toml").read_text().replace('"brief.txt"', f'"{spec}"')
    (place / "small.toml").write_text(study)
    plan = Study.load("small.toml", "out").plan()
    store = CellStorage(f"memory://{tmp_path.name}")
    names = {one.name for one in packed(plan.settings.source, store, "0", plan.path).files}
    settings = {"mine/settings.json"} if spec == "mine" else set()  # its application's text
    assert {one for one in names if one.startswith("mine")} == settings | {
        "mine/safety_prompt/safety_prompt.json",
        "mine/safety_prompt/safety_prompt.safetensors",
    }


def test_a_trained_prompt_is_measured_on_another_machine(
    alone: Path, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone / "out/runs/tiny/calm-one-seed-0", place / "mine")
    settings = place / "mine/settings.json"
    run = read_record(settings, RunRecord, "run")
    behind = replace(run.basic_prompt, system_prompt="w5 .")
    write_record(settings, replace(run, basic_prompt=behind), "run")
    text = (place / "small.toml").read_text().partition("[training]")[0]
    (place / "small.toml").write_text(text.replace('"brief.txt"', '"mine"'))
    study = Study.load("small.toml", "out", f"file://{tmp_path}/there")
    (cell,) = study.run(SilentProgress(), Machines(tmp_path)).done
    found = Comparison.load(place / "out" / cell.folder).settings
    assert found is not None
    assert [one.name for one in found.conditions] == ["none", "calm.txt", "mine"]
    assert found.conditions[2].trained


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"brief.txt"', '"../brief.txt"', "lies outside the folder in which the command is given"),
        ('"{alone}/tiny"', '"tiny"', "models do not travel through the storage"),
        ('judge = "noting.py:judge"', 'judge = "guard:tiny"', "models do not travel"),
    ],
)
def test_what_cannot_travel_is_told(
    alone: Path, place: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "brief.txt").write_text("w6 .")
    text = (place / "small.toml").read_text()
    old = old.format(alone=alone)
    assert old in text
    (place / "small.toml").write_text(text.replace(old, new, 1))
    plan = Study.load("small.toml", "out").plan()
    store = CellStorage(f"memory://{tmp_path.name}")
    with pytest.raises(DemurError, match=message):
        packed(plan.settings.source, store, "0", plan.path)


def test_another_file_on_a_machine_is_noticed(place: Path, tmp_path: Path) -> None:
    brief = tmp_path / "brief.txt"
    brief.write_text("w6 .")
    text = (place / "small.toml").read_text().replace('"brief.txt"', f'"{brief}"')
    (place / "small.toml").write_text(text)
    plan = Study.load("small.toml", "out", f"file://{tmp_path}/there").plan()
    brief.write_text("w6 w7 .")  # what the workers' machine has there
    with pytest.raises(DemurError, match="is another cell here than where the command runs"):
        do_study(plan, SilentProgress(), Machines(tmp_path))


def test_a_storage_that_a_worker_cannot_write_ends_the_study(
    alone: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = LocalFileSystem.put_file, 0

    def failing(self: LocalFileSystem, local: str, remote: str, **more: Any) -> None:
        nonlocal count
        if "studies" in local:
            count += 1
            if count > 20:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(self, local, remote, **more)

    study = Study.load("small.toml", "out", f"file://{tmp_path}/there")
    machines = Machines(tmp_path)
    machines.caches[1] = machines.caches[0]
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", failing)
        with pytest.raises(DemurError, match=r"Cannot write to .*No space left on device.*\(on "):
            study.run(SilentProgress(), machines)
    assert len(machines.done) < 5
    os.chdir(place)
    study.run(SilentProgress(), machines)
    assert content(place / "out") == content(alone / "out")
    assert judged(place) == judged(alone)


def test_what_a_worker_told_is_what_counts(place: Path, tmp_path: Path) -> None:
    class Lying(Machines):
        def outcomes(self, *given: Any) -> Iterator[Outcome]:
            for outcome in super().outcomes(*given):
                other = replace(outcome.files[0], sha256="0" * 64)
                yield replace(outcome, files=(other,))

    study = Study.load("small.toml", "out", f"file://{tmp_path}/there")
    with pytest.raises(DemurError, match="is not there as it should be"):
        study.run(SilentProgress(), Lying(tmp_path))


def test_a_storage_that_no_worker_sees_is_refused(place: Path, tmp_path: Path) -> None:
    try:
        runner = RayCluster()
    except DemurError:
        pytest.skip("Ray is not installed")
    plan = Study.load("small.toml", "out", f"memory://{tmp_path.name}").plan()
    with pytest.raises(DemurError, match="is the memory of one process, which no worker sees"):
        list(runner.outcomes(plan, plan.left, SilentProgress()))


def test_a_worker_drops_what_is_left_of_other_settings(place: Path, tmp_path: Path) -> None:
    """A cell that was begun with other settings does not stand in the way of the same worker."""
    there = tmp_path / "there"
    Study.load("small.toml", "out", f"file://{there}").run(SilentProgress(), Machines(tmp_path))
    text = (place / "small.toml").read_text()
    (place / "small.toml").write_text(text.replace("learning_rate = 0.05", "learning_rate = 0.04"))
    for kind in ("runs", "evaluations"):
        (there / "cells" / kind / "tiny/calm-two-seed-0.json").unlink()
        shutil.rmtree(place / "out" / kind / "tiny/calm-two-seed-0")
    machines = Machines(tmp_path)
    found = Study.load("small.toml", "out", f"file://{there}").run(SilentProgress(), machines)
    assert len(found.done) == 5
    assert sorted(machines.done) == sorted(
        [run := "runs/tiny/calm-two-seed-0", run.replace("runs/", "evaluations/")]
    )
    assert run_of(found.done[-1]) == run
