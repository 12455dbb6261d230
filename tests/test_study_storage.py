"""A study whose finished cells are stored at a URL: going on from there, and what may go wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from demur import ChatModel, FinishedStudy, Study
from demur.chat import chosen
from demur.records import ListedFile, record_bytes, record_from
from demur.study import lease
from demur.study.stored import StoredCell, StoredFile
from tests.command_line import Result, demur, done, mistake
from tests.stored_study import content, pages, write_stored

UNTRAINED = "evaluations/tiny/untrained-seed-0"
RUN = "runs/tiny/calm-one-seed-0"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Wait for no other command where none is."""
    monkeypatch.setenv("NOTES", str(place / "notes"))
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    monkeypatch.setattr(lease, "_WAIT", 0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of three cells, which was done to a storage in it."""
    folder = tmp_path_factory.mktemp("stored")
    file = write_stored(folder)
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "SETTLE", 0.0)
        patch.setenv("NOTES", str(folder / "notes"))
        url = f"file://{folder}/there"
        assert "3 of 3" in done(demur("study", file, "--output", "out", "--storage", url))
    return folder


@pytest.fixture
def there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the storage; the command is given where the study's files are."""
    monkeypatch.chdir(place)
    return shutil.copytree(place / "there", tmp_path / "there")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def command(place: Path, output: Path, there: Path | str) -> Result:
    """Do the study."""
    url = f"file://{there}" if isinstance(there, Path) else there
    return demur("study", place / "small.toml", "--output", output, "--storage", url)


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> ChatModel:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(chosen, "load_chosen", refuse)


def told(result: Result) -> str:
    """The one line of a mistake that is found while cells are done."""
    assert result.status == 2
    assert "Traceback" not in result.err
    (line,) = (one for one in result.err.splitlines() if one.startswith("error: "))
    return line


def manifest(there: Path, cell: str = RUN) -> Path:
    return there / "cells" / f"{cell}.json"


def test_the_folder_is_that_of_a_study_without_a_storage(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = place / "out"
    moved = tmp_path / "out"
    before.rename(moved)  # so that the same path is recorded
    try:
        done(demur("study", "small.toml", "--output", "out"))
        assert content(before) == content(moved)
        assert pages(before) == pages(moved)
    finally:
        shutil.rmtree(before, ignore_errors=True)
        moved.rename(before)


def test_another_machine_goes_on_from_the_url(
    place: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model(monkeypatch)
    plan = Study.load(place / "small.toml", tmp_path / "out", f"file://{there}").plan()
    assert plan.left == ()
    assert plan.cost.responses == 0
    assert not (tmp_path / "out").exists()
    shown = demur("study", "small.toml", "--plan", "--storage", f"file://{there}")
    assert "3 cells" in done(shown)
    assert "3 of 3 cells are done" in done(command(place, tmp_path / "out", there))
    assert content(tmp_path / "out") == content(place / "out")
    assert pages(tmp_path / "out") == pages(place / "out")
    finished, first = FinishedStudy.load(tmp_path / "out"), FinishedStudy.load(place / "out")
    assert finished.outcomes == first.outcomes
    assert finished.table.tests == first.table.tests
    assert not (there / lease.LEASE).exists()


def test_cells_that_are_here_are_stored(place: Path, there: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "out")
    new = tmp_path / "new"
    assert "3 of 3" in done(command(place, tmp_path / "out", new))
    assert {one.name for one in new.rglob("*")} == {one.name for one in there.rglob("*")}


def test_equal_files_are_stored_once(there: Path) -> None:
    cells = [json.loads(one.read_bytes())["content"] for one in there.rglob("calm-*.json")]
    cells.append(json.loads(manifest(there, UNTRAINED).read_bytes())["content"])
    names = [file["sha256"] for cell in cells for file in cell["files"]]
    assert len(cells) == 3
    assert {one.name for one in (there / "files").iterdir()} == {*names}
    assert len({*names}) < len(names)


def test_the_memory_of_a_process_is_a_storage(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    shutil.copytree(place / "out", tmp_path / "out")
    url = f"memory://{tmp_path.name}"
    done(command(place, tmp_path / "out", url))
    no_model(monkeypatch)
    done(command(place, tmp_path / "other", url))
    assert content(tmp_path / "other") == content(place / "out")
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.parametrize("puts", [0, 3])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        KeyboardInterrupt(),
    ],
    ids=["full", "forbidden", "interrupted"],
)
def test_an_interrupted_transfer_is_no_cell_and_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, puts: int
) -> None:
    monkeypatch.chdir(place)
    output, there = shutil.copytree(place / "out", tmp_path / "out"), tmp_path / "there"
    real, count = LocalFileSystem.put_file, 0

    def failing(self: LocalFileSystem, local: str, remote: str, **more: Any) -> None:
        nonlocal count
        count += 1
        if count > puts:
            Path(remote).parent.mkdir(parents=True, exist_ok=True)
            Path(remote).write_bytes(Path(local).read_bytes()[:7])
            raise error
        real(self, local, remote, **more)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", failing)
        if not isinstance(error, OSError):
            assert command(place, output, there).status == 130
        else:
            said = told(command(place, output, there))
            assert f"Cannot write to file://{there} ({error.strerror})" in said
            assert "run the same command again" in said
    assert not list(there.glob("cells/**/*.json"))
    no_model(monkeypatch)
    with monkeypatch.context() as patch:
        elsewhere = Study.load(place / "small.toml", tmp_path / "other", f"file://{there}")
        assert len(elsewhere.plan().left) == 3
    done(command(place, output, there))
    done(command(place, tmp_path / "other", there))
    assert content(tmp_path / "other") == content(place / "out")


def test_a_cell_without_all_its_files_is_done_again(
    place: Path, there: Path, tmp_path: Path
) -> None:
    file = manifest(there, UNTRAINED)
    stored = record_from(file.read_bytes(), StoredCell, "stored cell")
    fewer = tuple(one for one in stored.files if not one.name.endswith(".f32"))
    assert len(fewer) < len(stored.files)
    file.write_bytes(record_bytes(replace(stored, files=fewer), "stored cell"))
    result = command(place, tmp_path / "out", there)
    assert "3 of 3" in done(result)
    assert "is not whole, or not what the study measures now: it is done again" in result.err
    assert content(tmp_path / "out") == content(place / "out")
    again = record_from(file.read_bytes(), StoredCell, "stored cell")
    assert again.files == stored.files


def test_a_finished_cell_that_cannot_be_read_stays_and_is_told(
    place: Path, there: Path, tmp_path: Path
) -> None:
    stored = record_from(manifest(there).read_bytes(), StoredCell, "stored cell")
    wanted = next(one for one in stored.files if one.name == "settings.json")
    text = (there / "files" / wanted.sha256).read_text().replace('"version": 2', '"version": 99')
    newer = StoredFile(wanted.name, hashlib.sha256(text.encode()).hexdigest(), len(text.encode()))
    (there / "files" / newer.sha256).write_text(text)
    files = tuple(newer if one == wanted else one for one in stored.files)
    content = record_bytes(replace(stored, files=files), "stored cell")
    manifest(there).write_bytes(content)
    result = command(place, tmp_path / "out", there)
    assert result.status == 1
    assert "2 of 3 cells are done" in result.out
    ((cell, why),) = FinishedStudy.load(tmp_path / "out").failures
    assert cell.folder == RUN
    assert f"It is finished at file://{there} and cannot be read: " in why
    assert "was written by another version of demur: use that version" in why
    assert manifest(there).read_bytes() == content


@pytest.mark.parametrize("length", [0, 1, 300])
def test_a_cell_that_was_not_stored_to_its_end_is_none(
    place: Path, there: Path, tmp_path: Path, length: int
) -> None:
    file = manifest(there)
    file.write_bytes(file.read_bytes()[:length])
    plan = Study.load(place / "small.toml", tmp_path / "out", f"file://{there}").plan()
    assert [cell.folder for cell in plan.left] == [RUN]


@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_file_that_was_changed_at_the_storage_is_never_taken(
    place: Path, there: Path, tmp_path: Path, how: str
) -> None:
    stored = record_from(manifest(there).read_bytes(), StoredCell, "stored cell")
    wanted = next(one for one in stored.files if one.name.endswith("safety_prompt.safetensors"))
    file = there / "files" / wanted.sha256
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-5] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
    result = command(place, tmp_path / "out", there)
    assert "was missing or changed there" in result.err
    assert "3 of 3 cells are done" in done(result)
    assert file.read_bytes() == data
    assert content(tmp_path / "out").keys() == content(place / "out").keys()


@pytest.mark.parametrize(
    "name",
    [
        "../../../x.json",
        "/tmp/x.json",
        "a/../../x.json",
        "training/../x.json",
        "a\\..\\x.json",
        "weights.pt",
        "x.pkl",
        ".x.json",
        "a/b/c/d.json",
        "a//x.json",
        "x\0.json",
        "con :x.json",
    ],
)
def test_a_name_from_a_storage_stays_in_the_folder(
    place: Path, there: Path, tmp_path: Path, name: str
) -> None:
    stored = record_from(manifest(there).read_bytes(), StoredCell, "stored cell")
    extra = replace(stored.files[0], name=name)
    forged = replace(stored, files=(*stored.files, extra))
    manifest(there).write_bytes(record_bytes(forged, "stored cell"))
    plan = Study.load(place / "small.toml", tmp_path / "out", f"file://{there}").plan()
    assert RUN in [cell.folder for cell in plan.left]


@pytest.mark.parametrize(
    "what", ["another cell", "no results", "twice", "no digest", "far results", "no time"]
)
def test_a_forged_cell_is_none(place: Path, there: Path, tmp_path: Path, what: str) -> None:
    stored = record_from(manifest(there).read_bytes(), StoredCell, "stored cell")
    first = stored.files[0]
    forged = {
        "another cell": replace(stored, outcome=replace(stored.outcome, folder="runs/a/b")),
        "no results": replace(
            stored, files=tuple(one for one in stored.files if one.name != "results.json")
        ),
        "twice": replace(stored, files=(*stored.files, replace(first, name=first.name.title()))),
        "no digest": replace(
            stored, files=(*stored.files, StoredFile("x.json", "../../../etc/passwd", 3))
        ),
        "far results": replace(
            stored,
            outcome=replace(
                stored.outcome,
                files=(*stored.outcome.files, ListedFile("../../../etc/passwd", "0" * 64)),
            ),
        ),
        "no time": replace(stored, finished=1e300),
    }[what]
    manifest(there).write_bytes(record_bytes(forged, "stored cell"))
    plan = Study.load(place / "small.toml", tmp_path / "out", f"file://{there}").plan()
    assert RUN in [cell.folder for cell in plan.left]


def test_a_link_in_the_folder_is_not_followed(place: Path, there: Path, tmp_path: Path) -> None:
    outside, output = tmp_path / "outside", tmp_path / "out"
    (outside / "tiny").mkdir(parents=True)
    output.mkdir()
    (output / "runs").symlink_to(outside)
    assert "link" in mistake(command(place, output, there))
    assert not any((outside / "tiny").iterdir())


def test_results_that_differ_here_and_there_are_told(
    place: Path, there: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(place / "out", tmp_path / "out")
    stored = record_from(manifest(there, UNTRAINED).read_bytes(), StoredCell, "stored cell")
    other = "0" * 64
    files = tuple(
        replace(one, sha256=other) if one.name == "results.json" else one for one in stored.files
    )
    results = tuple(replace(one, sha256=other) for one in stored.outcome.files)
    forged = replace(stored, files=files, outcome=replace(stored.outcome, files=results))
    manifest(there, UNTRAINED).write_bytes(record_bytes(forged, "stored cell"))
    said = told(command(place, output, there))
    assert f"{output}/{UNTRAINED} has other results than file://{there}" in said


def test_another_study_and_other_things_are_refused(
    place: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model(monkeypatch)
    text, output = (place / "small.toml").read_text(), tmp_path / "out"
    (place / "other.toml").write_text(text)
    url = f"file://{there}"
    said = mistake(demur("study", "other.toml", "--output", output, "--storage", url))
    assert f"{url} holds the study 'small', and this one is 'other'" in said
    (place / "other.toml").write_text(f'name = "small"\n{text.replace("epochs = 2", "epochs = 3")}')
    said = mistake(demur("study", "other.toml", "--output", output, "--storage", url))
    assert f"{url} has the cell {RUN} with other settings" in said
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.png").write_bytes(b"mine")
    said = mistake(command(place, output, tmp_path / "full"))
    assert "holds something else than a study" in said
    (there / "study.json").write_bytes(b"{}")
    assert "study.json is damaged" in mistake(command(place, output, there))
    assert not output.exists()


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ("rm_file", ["Cannot remove files from file://{there} (Permission denied): check"]),
        (
            "_open",
            ["Cannot write to file://", "(Permission denied): check the address, the rights"],
        ),
    ],
)
def test_a_storage_without_a_right_is_told_before_a_model_is_loaded(
    refused: str,
    expected: list[str],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    no_model(monkeypatch)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(LocalFileSystem, refused, refuse)
    said = told(command(place, tmp_path / "out", tmp_path / "there"))
    for part in expected:
        assert part.format(there=tmp_path / "there") in said
