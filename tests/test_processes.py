"""Two processes that share one model do what a single process does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from demur import ChatModel, Comparison, DemurError, Run
from demur.chat.dividing import check_divisible, device_of_process
from demur.optimization.methods import method_names
from demur.processes import count, is_first, own_folder, place
from tests.command_line import demur, mistake
from tests.each_method import assert_same_training, trained
from tests.tiny import save_tiny_model
from tests.tiny_study import wait_until

OPTIONS = (
    *("--basic-prompt", "basic.txt", "--harmful", "harmful.txt", "--harmless", "harmless.txt"),
    *("--held-out-harmful", "test-harmful.txt", "--held-out-harmless", "test-harmless.txt"),
    *("--method", "likelihood", "--preset", "quick", "--dtype", "float32", "--device", "cpu"),
    *("--most-validation", "10", "--samples", "2", "--tokens", "4", "--third-turn", "0"),
)
TOGETHER = (*("-m", "torch.distributed.run"), *("--nproc-per-node", "2"), "--standalone")
SECONDS = 240


@pytest.fixture
def place_of_work(tmp_path: Path) -> Path:
    """A folder with a tiny model, a basic prompt and queries."""
    save_tiny_model(tmp_path / "tiny")
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    for name, word in (("harmful", "w7"), ("harmless", "w8")):
        queries = [f"w{10 + row % 40} {word} w{row} ?" for row in range(24)]
        (tmp_path / f"{name}.txt").write_text("\n".join(queries[:12]))
        (tmp_path / f"test-{name}.txt").write_text("\n".join(queries[12:]))
    (tmp_path / "temporary").mkdir()
    return tmp_path


def started(folder: Path, *arguments: str, together: bool = True) -> subprocess.Popen[str]:
    """A command of demur that has begun, in two processes or in one."""
    return begun(folder, *(TOGETHER if together else ()), "-m", "demur", *arguments)


def begun(folder: Path, *items: str) -> subprocess.Popen[str]:
    """A Python process that has begun."""
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, *items],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TMPDIR": str(folder / "temporary"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str, together: bool = True) -> str:
    """What a command printed that succeeded."""
    process = started(folder, *arguments, together=together)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, printed
    return printed


def rates(comparison: Comparison) -> Sequence[object]:
    return [(one.prompt, one.label, str(one.refused)) for one in comparison.rates]


def test_two_processes_train_the_prompt_that_one_trains(place_of_work: Path) -> None:
    run(place_of_work, "optimize", "tiny", *OPTIONS, "--output", "one", together=False)
    process = started(place_of_work, "optimize", "tiny", *OPTIONS, "--output", "two")
    first_epoch = place_of_work / "two" / "training" / "epoch-001.safetensors"
    wait_until(first_epoch.exists, process, SECONDS)
    process.terminate()  # as Ctrl-C, it reaches all of them
    process.communicate(timeout=SECONDS)
    printed = run(place_of_work, "optimize", "tiny", *OPTIONS, "--output", "two")
    assert "Going on with two" in printed, printed
    assert printed.count("See this again with:") == 1  # by the first process alone
    one, two = Run.load(place_of_work / "one"), Run.load(place_of_work / "two")
    assert two.settings.model.device == "cpu, 2 processes"
    assert one.safety_prompt.embeddings is not None
    assert two.safety_prompt.embeddings is not None
    torch.testing.assert_close(
        two.safety_prompt.embeddings, one.safety_prompt.embeddings, rtol=1e-4, atol=1e-5
    )
    assert rates(two.comparison) == rates(one.comparison)
    assert two.history[-1].loss == pytest.approx(one.history[-1].loss, rel=1e-4)
    assert not any((place_of_work / "temporary").glob("demur-*"))


def test_two_processes_train_each_method_as_one_does(place_of_work: Path) -> None:
    """All but `likelihood`, which is stopped and goes on in the test above."""
    methods = [one for one in method_names() if one != "likelihood"]
    process = begun(place_of_work, *TOGETHER, "-m", "tests.each_method", "tiny", "two", *methods)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, printed
    model = ChatModel.load(place_of_work / "tiny", dtype="float32", device="cpu")
    for method in methods:
        together = Run.load(place_of_work / "two" / method)
        assert together.settings.model.device == "cpu, 2 processes"
        assert_same_training(together, trained(model, method, place_of_work / "one" / method))


def test_two_processes_measure_what_one_measures(place_of_work: Path) -> None:
    options = (
        *("--harmful", "harmful.txt", "--harmless", "harmless.txt", "--prompt", "basic.txt"),
        *("--dtype", "float32", "--device", "cpu", "--tokens", "4"),
    )
    run(place_of_work, "evaluate", "tiny", *options, "--output", "one", together=False)
    printed = run(place_of_work, "evaluate", "tiny", *options, "--output", "two")
    assert printed.count("See this again with:") == 1
    one, two = (Comparison.load(place_of_work / name) for name in ("one", "two"))
    assert rates(two) == rates(one)
    assert not any((place_of_work / "temporary").glob("demur-*"))


def test_a_mistake_ends_all_processes(place_of_work: Path) -> None:
    process = started(place_of_work, "optimize", "tiny", "--harmful", "nowhere.txt")
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert [line for line in printed.splitlines() if "error:" in line] == [
        line for line in printed.splitlines() if line.startswith("error: ") and "nowhere" in line
    ]


@pytest.fixture
def second_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the second of three processes."""
    values = {"WORLD_SIZE": 3, "RANK": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 3}
    for name, value in {**values, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def first_of_three(second_of_three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the first of them."""
    monkeypatch.setenv("RANK", "0")


def test_a_process_knows_its_place(second_of_three: None) -> None:
    assert (count(), place(), is_first()) == (3, 1, False)


def test_a_process_without_others_works_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some machines have it, where nothing was started
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert (count(), place(), is_first()) == (1, 0, True)
    assert own_folder(tmp_path) == tmp_path


def test_a_size_that_is_no_number_is_refused(
    second_of_three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(DemurError, match="WORLD_SIZE is 'two', which is no number"):
        count()


@pytest.mark.parametrize("verb", ["chat", "export", "attack", "study"])
def test_commands_for_one_process_say_so(verb: str, first_of_three: None) -> None:
    assert "runs in one process, and 3 were started" in mistake(demur(verb))


@pytest.mark.parametrize("options", [("--device", "auto"), ("--quantization", "4bit")])
def test_a_model_is_divided_in_one_way_only(
    options: tuple[str, str], first_of_three: None, saved: Path
) -> None:
    found = mistake(demur("evaluate", saved, "--prompt", "long", *options))
    assert "Several processes share the model already" in found


def test_a_model_is_divided_by_a_number_that_divides_it(first_of_three: None, saved: Path) -> None:
    found = mistake(demur("evaluate", saved, "--prompt", "long", "--device", "cpu"))
    assert "its num_attention_heads is 2" in found


def test_an_architecture_without_a_plan_is_not_divided(
    first_of_three: None, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(save_tiny_model(tmp_path, "opt, absolute positions"))
    with pytest.raises(DemurError, match="no plan for its architecture \\(opt\\)"):
        check_divisible(config, "small")


def test_work_without_a_model_needs_no_processes(first_of_three: None, tmp_path: Path) -> None:
    responses = tmp_path / "responses.csv"
    responses.write_text("query,label,response\nw1 w2,harmful,I cannot help with that\n")
    found = mistake(demur("evaluate", "--responses", responses, "--output", tmp_path / "out"))
    assert "this work shares no model among them" in found
    assert not (tmp_path / "out").exists()


def test_each_process_has_a_device_of_its_own(first_of_three: None) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert device_of_process(None) == device_of_process("cpu") == torch.device("cpu")
    with pytest.raises(DemurError, match="compute on cpu here, not on 'cuda'"):
        device_of_process("cuda")
