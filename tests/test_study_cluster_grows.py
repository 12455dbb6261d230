"""A study on a real Ray cluster that a machine joins while cells are done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stored_study import prepared, write_stored
from tests.tiny_study import wait_until

try:
    from ray import cluster_utils
except ImportError:
    pytest.skip("Ray is not installed: run `make cluster`", allow_module_level=True)

SECONDS = 180
ROOM = {"include_dashboard": False, "object_store_memory": 80 << 20}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[cluster_utils.Cluster]:
    """A cluster of one machine with one core."""
    found = cluster_utils.Cluster()
    found.add_node(num_cpus=1, env_vars={"NOTES": str(tmp_path / "notes")}, **ROOM)
    yield found
    found.shutdown()


def test_a_machine_with_a_gpu_that_joins_later_gets_a_worker(
    cluster: cluster_utils.Cluster, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    file = write_stored(tmp_path, seeds=2)
    for seed in (0, 1):
        (notes / f"hold-{seed}").touch()
    command = [sys.executable, "-m", "demur", "study", str(file), "--output", "out"]
    command += ["--ray-address", cluster.address]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "NOTES": str(notes)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: len(prepared(tmp_path)) == 1, process, SECONDS)
    cluster.add_node(num_cpus=1, num_gpus=1, env_vars={"NOTES": str(notes)}, **ROOM)
    wait_until(lambda: len(prepared(tmp_path)) == 2, process, SECONDS)
    for seed in (0, 1):
        (notes / f"hold-{seed}").unlink()
    shown = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, shown
    assert "6 of 6 cells are done" in shown
    assert len({pid for pid, _ in prepared(tmp_path)}) == 2, "two workers"
    assert sorted(seed for _, seed in prepared(tmp_path)) == ["0", "1"]
