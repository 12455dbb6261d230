"""Where demur writes: never over anything but a file, never outside, one process at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, Comparison, DemurError, Diagnosis, Run, evaluate, write_report
from demur.files import append_bytes, write_bytes
from demur.optimization import OptimizeSettings
from demur.optimization.recorded import RunRecord
from demur.optimization.run import KIND
from demur.progress import SilentProgress
from demur.records import SETTINGS, WorkFolder, read_record, write_record
from tests.command_line import demur, done, mistake
from tests.interruption import content
from tests.report_folders import finished_evaluation, finished_run
from tests.tiny import save_tiny_model

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and locks are those of POSIX")
LONG = "a" * 300
SMALL = ["--preset", "quick", "--samples", "2", "--tokens", "2", "--dtype", "float32"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(tiny: Path) -> ChatModel:
    return ChatModel.load(tiny, dtype="float32")


def link_to_a_file(path: Path) -> None:
    path.with_name("target").write_text("mine")
    path.symlink_to("target")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@posix
@pytest.mark.parametrize("make", [os.mkfifo, link_to_a_file, link_to_nothing, Path.mkdir])
def test_only_a_regular_file_is_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    path = tmp_path / "report.html"
    make(path)
    before = path.lstat()
    for write in (
        lambda: write_bytes(path, b"new"),
        lambda: append_bytes(path, b"new", at=0),
        lambda: write_report([run], path),
    ):
        with pytest.raises(DemurError, match=r"is a (link|pipe|folder)"):
            write()
    line = mistake(demur("report", run, "--output", path))
    assert str(path) in line
    after = path.lstat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "nothing").exists()
    if make is link_to_a_file:
        assert (tmp_path / "target").read_text() == "mine"


@posix
def test_a_device_is_not_replaced() -> None:
    before = os.lstat(os.devnull)
    with pytest.raises(DemurError, match="is a device or socket and no regular file"):
        write_bytes(Path(os.devnull), b"new")
    assert os.lstat(os.devnull) == before


@posix
@pytest.mark.parametrize("place", ["measurements", "training", "safety_prompt", "results.json"])
def test_a_link_in_a_folder_of_work_leads_nowhere(
    place: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be a stranger's."""
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text("w1 w2")
    command = ["optimize", tiny, "--basic-prompt", "basic.txt", "--method", "dro", *SMALL]
    command += ["--epochs", "1", "--judge", "paper"]
    done(demur(*command, "--output", "run"))
    Path("outside").mkdir()
    found = Path("run") / place
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    found.symlink_to(Path("outside").resolve())
    line = mistake(demur(*command, "--output", "run"))
    assert f"run/{place} is a link" in line
    assert not list(Path("outside").iterdir())


def test_names_in_a_strangers_settings_stay_in_the_output_folder(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names lead to things that are there, so the work is done; its folder is below here."""
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    shutil.copytree(tiny, tmp_path / "x")
    (tmp_path / "y").write_text("w1 w2 w3")
    Path("basic.txt").write_text("w1 w2")
    command = ["optimize", tiny, "--basic-prompt", "basic.txt", "--method", "dro", *SMALL]
    done(demur(*command, "--epochs", "1", "--judge", "paper", "--output", "stranger"))
    record = read_record(Path("stranger") / SETTINGS, RunRecord, KIND)
    forged = replace(
        record,
        model=replace(record.model, name="../../x"),
        load=record.load.model_copy(update={"model": "../../x"}),
        basic_prompt=replace(record.basic_prompt, name="../../y"),
        settings=record.settings.model_copy(update={"basic_prompt": "../../y"}),
    )
    write_record(Path("stranger") / SETTINGS, forged, KIND)
    before = content(tmp_path)
    done(demur("optimize", "--config", "stranger"))
    new = {name for name in content(tmp_path) if name not in before}
    assert new
    assert {Path(name).parts[:3] for name in new} == {("a", "b", "demur-runs")}
    assert {Path(name).parts[3] for name in new} == {"x-y-dro-quick"}


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "/", "\0", "a/../../b", "-", "~", "x" * 300]
)
def test_every_name_of_a_model_gives_a_folder_below(name: str, model: ChatModel) -> None:
    from demur.optimization.naming import RUNS
    from demur.optimization.pipeline import default_output
    from demur.optimization.plan import plan_of

    plan = plan_of(OptimizeSettings.from_preset("quick", basic_prompt="long"))

    class Named:
        def __getattr__(self, attribute: str) -> Any:
            return name if attribute == "name" else getattr(model, attribute)

    path = default_output(Named(), plan)  # type: ignore[arg-type]
    assert path.parent == RUNS
    assert path.name not in ("", ".", "..")
    assert len(path.name) < 200


@posix
def test_the_second_of_two_processes_waits_and_says_so(tmp_path: Path) -> None:
    order: list[str] = []
    holding = threading.Event()

    class Telling(SilentProgress):
        def message(self, text: str) -> None:
            order.append(text)

    def first() -> None:
        with WorkFolder.alone(tmp_path / "work", {"a": 1}, "run", Telling()):
            holding.set()
            while not order:
                time.sleep(0.01)
            time.sleep(0.3)
            order.append("the first ends")

    thread = threading.Thread(target=first)
    thread.start()
    holding.wait(10)
    with WorkFolder.alone(tmp_path / "work", {"a": 1}, "run", Telling()):
        order.append("the second works")
    thread.join()
    told = f"Another process works in {tmp_path / 'work'}: waiting until it has ended."
    assert order == [told, "the first ends", "the second works"]


@posix
def test_a_folder_that_the_first_removes_is_begun_anew_by_the_second(tmp_path: Path) -> None:
    path = tmp_path / "work"
    waiting = threading.Event()

    class Telling(SilentProgress):
        def message(self, text: str) -> None:
            waiting.set()

    def first() -> None:
        with WorkFolder.alone(path, {"a": 1}, "run", SilentProgress()):
            holding.set()
            waiting.wait(10)
            shutil.rmtree(path)

    holding = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    holding.wait(10)
    with WorkFolder.alone(path, {"a": 1}, "run", Telling()) as folder:
        assert (path / SETTINGS).is_file()
        assert folder.settings == {"a": 1}
    thread.join()


@posix
def test_two_commands_in_one_folder_come_to_one_result(tmp_path: Path, tiny: Path) -> None:
    command = [sys.executable, "-m", "demur", "evaluate", str(tiny), "--tokens", "4", *SMALL[-2:]]
    command += ["--samples", "20", "--prompt", "none", "--output"]
    both = [
        subprocess.Popen(
            [*command, "both"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], errors
    subprocess.run([*command, "alone"], cwd=tmp_path, check=True, capture_output=True)
    for name in ("both", "alone"):
        (tmp_path / name / "report.html").unlink()
    assert content(tmp_path / "both") == content(tmp_path / "alone")


def test_what_a_killed_write_left_goes_with_the_next_write(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".report.html.{gone.pid}-0123abcd.part"
    other = tmp_path / f".other.html.{gone.pid}-0123abcd.part"
    left.touch()
    other.touch()
    write_bytes(tmp_path / "report.html", b"new")
    assert sorted(one.name for one in tmp_path.iterdir()) == [other.name, "report.html"]


def test_a_path_that_the_system_refuses_is_one_line(tmp_path: Path, model: ChatModel) -> None:
    run = finished_run(tmp_path / "run")
    for name in (LONG, "a\0b"):
        for use in (
            lambda name=name: Run.load(name),
            lambda name=name: Comparison.load(name),
            lambda name=name: Diagnosis.load(name),
            lambda name=name: write_report([name]),
            lambda name=name: evaluate(model, output=name),
        ):
            with pytest.raises(DemurError, match=r"Cannot use .*: give another path"):
                use()
    evaluated = finished_evaluation(tmp_path / "evaluated")
    for arguments in (
        ["show", LONG],
        ["report", LONG],
        ["report", run, "--output", LONG],
        ["report", run, evaluated, "--output", tmp_path / LONG],
        ["export", run, LONG],
        ["diagnose", "--run", LONG],
        ["push", LONG, "a/b"],
        ["push", run, "a/b", "--dry-run", LONG],
        ["evaluate", "--config", LONG],
        ["optimize", "--output", LONG],
        ["benchmarks", "--benchmark-dir", LONG],
        ["chat", "--prompt", LONG],
    ):
        assert LONG[:40] in mistake(demur(*arguments))


@pytest.mark.parametrize("found", [None, KeyError("Version")])
def test_an_installation_left_half_has_no_version(
    found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> object:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("demur.records.versions.version", version)
    assert done(demur("--version")) == "demur unknown\n"


def test_a_report_that_cannot_be_written_hides_no_results(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is written at the very end."""
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("query,label,response\nw1?,harmful,I cannot\nw2?,harmless,w3\n")
    Path("basic.txt").write_text("w1 w2")
    commands: dict[str, list[object]] = {
        "files": ["evaluate", "--responses", "r.csv"],
        "evaluation": ["evaluate", tiny, "--prompt", "none", *SMALL[2:]],
        "diagnosis": ["diagnose", tiny, *SMALL, "--most-anchors", "12"],
        "run": [
            *("optimize", tiny, "--basic-prompt", "basic.txt", "--method", "dro", *SMALL),
            *("--epochs", "1", "--judge", "paper"),
        ],
    }
    for folder, command in commands.items():
        shown = done(demur(*command, "--output", folder))
        report = Path(folder) / "report.html"
        report.unlink()
        report.mkdir()
        again = demur(*command, "--output", folder)
        assert again.status == 2
        assert f"error: {report} is a folder: delete it, or give" in again.err
        for line in again.out.splitlines():
            assert line in shown
        assert "refuse" in again.out.lower()


NOT_UTF_8 = os.fsdecode(b"a\xff")


@posix
def test_a_name_that_is_no_utf_8_is_one_line(tmp_path: Path, model: ChatModel) -> None:
    for arguments in (
        ["optimize", "--output", NOT_UTF_8],
        ["evaluate", "--responses", f"{NOT_UTF_8}.csv"],
        ["diagnose", "--prompt", NOT_UTF_8],
        ["show", NOT_UTF_8],
        ["export", "run", NOT_UTF_8],
        ["chat", NOT_UTF_8],
        [NOT_UTF_8],
    ):
        line = mistake(demur(*arguments))
        assert "is no UTF-8: rename that file or folder" in line
        line.encode()
    with pytest.raises(DemurError, match="is no UTF-8"):
        evaluate(model, output=tmp_path / NOT_UTF_8)
    with pytest.raises(DemurError, match="is no UTF-8"):
        write_record(tmp_path / SETTINGS, {"name": NOT_UTF_8}, "run")
    assert not list(tmp_path.iterdir())


def test_demur_need_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the path alone it has no version: a run is finished and shown nevertheless."""
    from importlib import metadata

    import demur as package

    def version(name: str) -> str:
        if name == "demur":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("demur.records.versions.version", version)
    assert done(demur("--version")) == "demur unknown\n"
    assert package.__version__ == "unknown"
    (tmp_path / "r.csv").write_text("query,label,response\nw1?,harmful,no\nw2?,harmless,yes\n")
    done(demur("evaluate", "--responses", tmp_path / "r.csv", "--output", tmp_path / "out"))
    assert Comparison.load(tmp_path / "out").versions.demur == "unknown"
    module = subprocess.run(
        [sys.executable, "-m", "demur", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout.startswith("demur ")
