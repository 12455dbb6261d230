"""A study on a real Ray cluster of two machines that share no disk but a storage URL.

The machines are two nodes of one cluster on this machine, each with a cache of its own. The command
is given in a folder of its own, and workers get to it by no path.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demur import RayCluster, Study
from demur.progress import SilentProgress
from tests.stored_study import content, do_alone, judged, prepared, write_stored
from tests.tiny_study import wait_until

try:
    from ray import cluster_utils
except ImportError:
    pytest.skip("Ray is not installed: run `make cluster`", allow_module_level=True)

SECONDS = 180

# Where a file says so, a worker stores the beginning of a file and no more.
HOLDING = """

from demur.study.storage import Storage

_put = Storage.put


def put(self, name, file):
    if (LOG / "hold-put").exists() and "machine" in os.environ.get("DEMUR_CACHE", ""):
        self.write(name, file.read_bytes()[:3])
        note("held", os.getpid())
        while (LOG / "hold-put").exists():
            time.sleep(0.02)
    _put(self, name, file)


Storage.put = put
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which workers note what they do."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the cache of each machine."""
    return tmp_path_factory.mktemp("machines")


@pytest.fixture(scope="module")
def address(notes: Path, caches: Path) -> Iterator[str]:
    """A cluster of two nodes with a core and a cache each."""
    cluster = cluster_utils.Cluster()
    for number in (1, 2):
        cluster.add_node(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=80 << 20,
            env_vars={"DEMUR_CACHE": str(caches / f"machine-{number}"), "NOTES": str(notes)},
        )
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of six cells, which this process has done without a storage."""
    folder = tmp_path_factory.mktemp("alone")
    file = written(folder)
    do_alone(folder, file)
    return folder


@pytest.fixture
def place(alone: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the same study, of which nothing is done."""
    for one in notes.iterdir():
        one.unlink()
    file = written(tmp_path)
    file.write_text(file.read_text().replace(f"{tmp_path}/tiny", f"{alone}/tiny"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTES", str(notes))
    (tmp_path / "notes").rmdir()
    (tmp_path / "notes").symlink_to(notes)
    return tmp_path


def written(folder: Path) -> Path:
    file = write_stored(folder, seeds=2)
    with (folder / "noting.py").open("a") as code:
        code.write(HOLDING)
    return file


def start(place: Path, address: str, output: str = "out") -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    command = [sys.executable, "-m", "demur", "study", "small.toml", "--output", output]
    command += ["--ray-address", address, "--storage", f"file://{place}/there"]
    return subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def held(notes: Path) -> list[int]:
    file = notes / "held"
    return [int(one) for one in file.read_text().split()] if file.exists() else []


def release(place: Path, notes: Path) -> None:
    """Let both runs go on once they have begun; one worker alone cannot begin both."""
    deadline = time.monotonic() + SECONDS
    while len(prepared(place)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    for seed in (0, 1):
        (notes / f"hold-{seed}").unlink()


def test_two_machines_do_what_one_process_does(
    address: str, caches: Path, place: Path, notes: Path, alone: Path
) -> None:
    for seed in (0, 1):
        (notes / f"hold-{seed}").touch()
    study = Study.load("small.toml", "out", f"file://{place}/there")
    with ThreadPoolExecutor(1) as threads:
        threads.submit(release, place, notes)
        found = study.run(SilentProgress(), RayCluster(address))
    assert len(found.done) == 6
    assert content(place / "out") == content(alone / "out")
    assert len({pid for pid, _ in prepared(place)}) == 2, "two workers"
    assert len(list(caches.glob("machine-*/studies/*/study"))) == 2, "two folders"
    assert judged(place) == judged(alone), "what cells share is measured once"
    again = Study.load("small.toml", "other", f"file://{place}/there")
    assert again.plan().left == ()
    again.run(SilentProgress(), RayCluster(address))
    assert content(place / "other") == content(alone / "out")
    assert judged(place) == judged(alone)


def test_a_worker_that_is_killed_in_mid_cell(
    address: str, place: Path, notes: Path, alone: Path
) -> None:
    (notes / "hold-1").touch()
    process = start(place, address)
    wait_until(lambda: "1" in [seed for _, seed in prepared(place)], process, SECONDS)
    (pid,) = (pid for pid, seed in prepared(place) if seed == "1")
    os.kill(pid, signal.SIGKILL)
    (notes / "hold-1").unlink()
    shown = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, shown
    assert "6 of 6 cells are done" in shown
    assert sorted(seed for _, seed in prepared(place)) == ["0", "1", "1"]
    assert content(place / "out") == content(alone / "out")


def test_a_worker_that_is_killed_in_mid_transfer(
    address: str, place: Path, notes: Path, alone: Path
) -> None:
    (notes / "hold-put").touch()
    process = start(place, address)
    wait_until(lambda: bool(held(notes)), process, SECONDS)
    assert not list((place / "there/cells").rglob("*.json"))
    os.kill(held(notes)[0], signal.SIGKILL)
    (notes / "hold-put").unlink()
    shown = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, shown
    assert "6 of 6 cells are done" in shown
    assert content(place / "out") == content(alone / "out")


def test_a_command_that_is_killed_goes_on_elsewhere(
    address: str, place: Path, notes: Path, alone: Path
) -> None:
    (notes / "hold-1").touch()
    process = start(place, address)
    stored = place / "there/cells/runs/tiny/calm-one-seed-0.json"
    wait_until(
        lambda: stored.exists() and "1" in [one for _, one in prepared(place)], process, SECONDS
    )
    process.kill()
    process.communicate()
    (notes / "hold-1").unlink()
    process = start(place, address, "elsewhere")
    shown = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, shown
    assert "6 of 6 cells are done" in shown
    assert [seed for _, seed in prepared(place)].count("0") == 1
    found, wanted = content(place / "elsewhere"), content(alone / "out")
    assert found.keys() == wanted.keys()
    results = "runs/tiny/calm-one-seed-1/results.json"
    assert found[results] == wanted[results]


def test_a_file_that_workers_do_not_have_is_told(address: str, place: Path) -> None:
    text = (place / "small.toml").read_text()
    (place / "small.toml").write_text(text.replace('"noting.py:judge"', '"guard:/nowhere/x"'))
    process = start(place, address)
    shown = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2
    assert "/nowhere/x" in shown
    assert "(on " in shown
