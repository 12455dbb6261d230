"""What workers of a cluster claim, which cells wait for which, and a cluster without Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demur import DemurError
from demur.chat.sizes import memory_of
from demur.study.claims import Claim, Machine, claim_of
from demur.study.grid import needs_of
from demur.study.record import UNTRAINED, Cell
from demur.study.settings import ModelSettings, StudyModel
from tests.command_line import demur, mistake

GB = 10**9
HOST = Machine(cores=16, gpus=0, memory=64 * GB)
GPUS = Machine(cores=16, gpus=4, memory=256 * GB)


def model_of(folder: Path, size: int, **load: str) -> StudyModel:
    """A model whose weights have a size; the file takes no room on the disk."""
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return StudyModel("it", ModelSettings.model_validate({"model": str(folder), **load}))


def never() -> int:
    raise AssertionError("the GPU's memory does not matter here")


def test_a_worker_claims_cores_by_the_memory_of_its_model(tmp_path: Path) -> None:
    assert claim_of(model_of(tmp_path, 1 * GB), [HOST], never) == Claim(1)
    # 15 GB of bfloat16 are 30 GB of float32; a core stands for 4 GB.
    assert claim_of(model_of(tmp_path, 15 * GB), [HOST], never) == Claim(10)
    assert claim_of(model_of(tmp_path, 15 * GB, dtype="bfloat16"), [HOST], never) == Claim(5)
    assert claim_of(model_of(tmp_path, 900 * GB), [HOST], never) == Claim(16)


def test_a_worker_claims_a_gpu_or_as_many_as_hold_a_model_that_is_spread(tmp_path: Path) -> None:
    small = model_of(tmp_path, 15 * GB)
    assert claim_of(small, [HOST, GPUS], lambda: 80 * GB) == Claim(1, 1)
    assert claim_of(small, [HOST, GPUS], lambda: 16 * GB) == Claim(1, 1)
    assert claim_of(small, [HOST, GPUS], lambda: None) == Claim(1, 1)
    for device in ("best", "cuda"):
        with pytest.raises(DemurError, match=r"take about 15 GB, .* has 12 GB: set device ="):
            claim_of(model_of(tmp_path, 15 * GB, device=device), [GPUS], lambda: 12 * GB)
    assert claim_of(model_of(tmp_path, 15 * GB, device="cpu"), [HOST, GPUS], never).gpus == 0
    large = model_of(tmp_path, 140 * GB, device="auto")
    assert claim_of(large, [HOST, GPUS], lambda: 80 * GB) == Claim(1, 3)
    with pytest.raises(DemurError, match=r"needs about 8 GPUs, and no machine .* more than 4"):
        claim_of(large, [HOST, GPUS], lambda: 24 * GB)
    packed = model_of(tmp_path, 140 * GB, device="auto", quantization="4bit")
    assert claim_of(packed, [GPUS], lambda: 80 * GB) == Claim(1, 1)


def test_a_model_behind_a_server_claims_one_core() -> None:
    settings = {"server": {"endpoint": "http://localhost:1/v1"}}
    served = StudyModel("it", ModelSettings.model_validate(settings))
    assert claim_of(served, [GPUS], never) == Claim(1)


def test_a_cluster_has_room_for_so_many_workers() -> None:
    assert Claim(1).times([HOST, HOST]) == 32
    assert Claim(10).times([HOST, HOST]) == 2
    assert Claim(1, 3).times([HOST, GPUS]) == 1
    assert Claim(1, 1).times([HOST, GPUS, GPUS]) == 8
    assert Claim(1).times([]) == 1


def test_a_claim_is_told_in_words() -> None:
    assert (str(Claim(1)), str(Claim(4))) == ("1 core", "4 cores")
    assert (str(Claim(1, 1)), str(Claim(1, 2))) == ("1 GPU and 1 core", "2 GPUs and 1 core")


def test_the_memory_of_a_packed_file_is_that_of_its_weights(tmp_path: Path) -> None:
    settings = ModelSettings.model_validate({"model": "qwen2.5-coder-0.5b", "dtype": "float32"})
    found = memory_of(settings, on_gpu=False)
    assert found is not None
    assert 2 * GB < found < 6 * GB  # 0.49 billion weights in 4 bits
    missing = ModelSettings.model_validate({"model": str(tmp_path / "missing")})
    assert memory_of(missing, on_gpu=False) is None


def cell(kind: str, prompt: str | None, method: str, seed: int = 0, model: str = "m") -> Cell:
    where = "runs" if kind == "run" else "evaluations"
    folder = f"{where}/{model}/{prompt}-{method}-{seed}"
    return Cell("run" if kind == "run" else "evaluation", model, prompt, method, seed, folder, "")


def test_cells_wait_for_those_that_measure_what_they_share() -> None:
    untrained = cell("evaluation", None, UNTRAINED)
    runs = [cell("run", prompt, method) for prompt in "ab" for method in "xyz"]
    measured = [cell("evaluation", one.prompt, one.method) for one in runs]
    other = cell("run", "a", "x", seed=1)
    needs = needs_of([untrained, *runs, *measured, other])
    assert needs[untrained.folder] == needs[runs[0].folder] == needs[other.folder] == set()
    assert needs[runs[2].folder] == {runs[0].folder}
    assert needs[runs[3].folder] == {runs[0].folder}
    assert needs[runs[5].folder] == {runs[0].folder, runs[3].folder}
    for run, one in zip(runs, measured, strict=True):
        assert needs[one.folder] == {untrained.folder, run.folder}


def test_without_ray_the_extra_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for option in (["--ray"], ["--ray-address", "auto"]):
        said = mistake(demur("study", "missing.toml", *option))
        assert "run `pip install 'demur[ray]'`" in said


@pytest.mark.parametrize("option", ["--plan", "--report"])
def test_a_plan_needs_no_cluster(option: str) -> None:
    said = mistake(demur("study", "missing.toml", option, "--ray"))
    assert "leave the options of the cluster out" in said
