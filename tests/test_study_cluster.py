"""A study on a real Ray cluster: two workers, a lost worker, a killed command, mistakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from demur import Comparison, FinishedStudy, RayCluster, Study
from tests.command_line import demur, done, mistake
from tests.tiny_study import FILE, wait_until, write_study

try:
    import ray
except ImportError:
    pytest.skip("Ray is not installed: run `make cluster`", allow_module_level=True)

# A method that notes who prepares which run, and waits where a file says so, and a judge that notes
# how many responses it judges.
NOTING = """
import os
import time
from pathlib import Path

from demur.errors import DemurError
from demur.optimization.methods.dro import DirectedRepresentation

FOLDER = Path(__file__).parent


def note(name, line):
    with (FOLDER / name).open("a") as log:
        log.write(f"{line}\\n")


class Noting(DirectedRepresentation):
    name = "noting"

    def prepare(self, context):
        note("log", f"{os.getpid()} {id(context.model)} {context.seed}")
        while (FOLDER / f"hold-{context.seed}").exists():
            time.sleep(0.02)
        if (FOLDER / f"fail-{context.seed}").exists():
            raise DemurError("The method has no idea: give it one.")
        return super().prepare(context)


def judge(queries, responses):
    note("judged", len(responses))
    return [len(response) % 2 == 0 for response in responses]
"""
# A worker whose code has a fault.
FAULTY = """

from demur.study.cells import CellWork


def outcome(self, cell, *, run_failed):
    raise OSError(28, "No space left on device")


CellWork.outcome = outcome
"""
ONE = """
[methods.one]
method = "{folder}/noting.py:Noting"
"""
TWO = """
[methods.two]
method = "{folder}/noting.py:Noting"
learning_rate = 0.05
"""
GRID = FILE[: FILE.index("[methods.dro]")].replace(
    '[judges]\njudge = "paper"', '[judges]\njudge = "{folder}/noting.py:judge"'
)
SECONDS = 120


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster with room for two workers, which this process has joined."""
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


def write(folder: Path, text: str) -> Path:
    """The file of a study of two seeds, in whose folder is noted what is done."""
    (folder / "noting.py").write_text(NOTING)
    return write_study(folder, text=text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a study with one method: six cells."""
    return write(tmp_path, GRID + ONE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with two methods that one process has done: ten cells."""
    file = write(tmp_path_factory.mktemp("alone"), GRID + ONE + TWO)
    done(demur("study", file, "--output", file.parent / "out"))
    return file.parent / "out"


def prepared(file: Path) -> list[tuple[str, str, str]]:
    """Process, model and seed of each run that was begun, in their order."""
    log = file.parent / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(pid, model, seed) for pid, model, seed in (line.split() for line in lines)]


def seeds_of(file: Path) -> Counter[str]:
    """How many runs were begun with each seed."""
    return Counter(seed for _, _, seed in prepared(file))


def judged(folder: Path) -> int:
    """How many responses the judge of a study has judged."""
    return sum(map(int, (folder / "judged").read_text().split()))


def start(file: Path, address: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    command = [sys.executable, "-m", "demur", "study", str(file), "--output"]
    command += [str(file.parent / "out"), "--ray-address", address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def same(found: Path, expected: Path, cells: int) -> None:
    """Check that every cell has the results that one process had."""
    study = FinishedStudy.load(found)
    assert len(study.done) == cells
    for cell in study.done:
        if cell.kind == "run":
            ours, theirs = (one / cell.folder / "results.json" for one in (found, expected))
            assert ours.read_bytes() == theirs.read_bytes(), cell
        else:
            mine, other = (Comparison.load(one / cell.folder) for one in (found, expected))
            assert (mine.rates, mine.costs) == (other.rates, other.costs), cell


def test_two_workers_do_what_one_process_does(address: str, tmp_path: Path, alone: Path) -> None:
    file, folder = write(tmp_path, GRID + ONE + TWO), tmp_path / "out"
    Study.load(file, folder).run(runner=RayCluster(address))
    same(folder, alone, 10)
    begun = prepared(file)
    assert seeds_of(file) == {"0": 2, "1": 2}
    assert len({pid for pid, _, _ in begun}) == 2, "two workers"
    assert len({(pid, model) for pid, model, _ in begun}) == 2, "each worker keeps its model"
    assert judged(tmp_path) == judged(alone.parent), "what cells share is measured once"
    assert "10 of 10 cells are done" in done(demur("study", file, "--output", folder, "--ray"))
    assert prepared(file) == begun


def test_a_lost_workers_cell_is_done_again(address: str, file: Path, alone: Path) -> None:
    hold = file.parent / "hold-1"
    hold.touch()
    process = start(file, address)
    wait_until(lambda: bool(seeds_of(file)["1"]), process, SECONDS)
    (held,) = (pid for pid, _, seed in prepared(file) if seed == "1")
    os.kill(int(held), signal.SIGKILL)
    hold.unlink()
    shown, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told
    assert "(raylet)" in told, "Ray tells of the worker it begins again"
    assert "(raylet)" not in shown
    assert "6 of 6 cells are done" in shown
    assert seeds_of(file) == {"0": 1, "1": 2}
    same(file.parent / "out", alone, 6)


def test_a_killed_command_goes_on(address: str, file: Path, alone: Path) -> None:
    hold = file.parent / "hold-1"
    hold.touch()
    process = start(file, address)
    first = file.parent / "out/runs/tiny/calm-one-seed-0/results.json"
    wait_until(lambda: first.exists() and bool(seeds_of(file)["1"]), process, SECONDS)
    process.kill()
    process.communicate()
    before = first.stat().st_mtime_ns
    hold.unlink()
    shown = done(demur("study", file, "--output", file.parent / "out", "--ray"))
    assert "6 of 6 cells are done" in shown
    assert first.stat().st_mtime_ns == before
    assert seeds_of(file)["0"] == 1
    same(file.parent / "out", alone, 6)


def test_a_cell_that_fails_stops_no_other(address: str, file: Path) -> None:
    fail = file.parent / "fail-1"
    fail.touch()
    folder = file.parent / "out"
    result = demur("study", file, "--output", folder, "--ray")
    assert result.status == 1
    assert "4 of 6 cells are done" in result.out
    assert [(cell.kind, cell.seed, why) for cell, why in FinishedStudy.load(folder).failures] == [
        ("run", 1, "The method has no idea: give it one"),
        ("evaluation", 1, "There is no prompt to evaluate, because its run failed"),
    ]
    fail.unlink()
    assert "6 of 6 cells are done" in done(demur("study", file, "--output", folder, "--ray"))


def test_a_judge_that_the_workers_cannot_load_ends_the_study(address: str, tmp_path: Path) -> None:
    text = GRID.replace("{folder}/noting.py:judge", "guard:{folder}/none") + ONE
    said = mistake(demur("study", write(tmp_path, text), "--output", tmp_path / "out", "--ray"))
    assert f"{tmp_path}/none" in said
    assert "(on " in said


def test_a_fault_of_a_worker_is_told_and_is_no_lost_worker(address: str, file: Path) -> None:
    with (file.parent / "noting.py").open("a") as code:
        code.write(FAULTY)
    shown, told = start(file, address).communicate(timeout=SECONDS)
    assert "OSError: [Errno 28] No space left on device" in told
    assert "lost" not in told
    assert "Traceback" not in shown + told


def test_a_cluster_of_this_machine_begins_and_ends_with_the_study(tmp_path: Path) -> None:
    file = write(tmp_path, GRID.replace("seeds = [0, 1]", "seeds = [0]") + ONE)
    command = [sys.executable, "-m", "demur", "study", str(file), "--output"]
    command += [str(tmp_path / "out"), "--ray"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=3 * SECONDS
    )
    assert ended.returncode == 0, ended.stderr
    assert "3 of 3 cells are done" in ended.stdout
    assert [pid for pid, _, _ in prepared(file)] != [str(os.getpid())]
    table = done(demur("study", file, "--output", tmp_path / "out", "--report"))
    assert ended.stdout == table, "standard output has the study's table and nothing else"


def test_a_cluster_that_is_not_there_is_told_in_one_line(file: Path) -> None:
    command = [sys.executable, "-m", "demur", "study", str(file), "--output"]
    command += [str(file.parent / "out"), "--ray-address", "127.0.0.1:1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ended.returncode == 2
    assert "Cannot join the Ray cluster '127.0.0.1:1'" in ended.stderr
    assert "Traceback" not in ended.stderr
