"""Typed records: one codec, identity by content, and files that are checked when they are read."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from demur.errors import DemurError
from demur.files import append_bytes, new_folder
from demur.prompts import Condition, SafetyPrompt, distinct_names
from demur.records import (
    ConditionRecord,
    Interval,
    JudgedResponse,
    MeasurementHeader,
    MeasurementKey,
    MeasurementStore,
    Queries,
    Rate,
    StoredMeasurement,
    WorkFolder,
    fingerprint,
    kind_of,
    read_record,
    read_tensors,
    write_record,
    write_tensors,
)
from demur.temporary import remove_leftovers, temporary

QUERIES = Queries(
    "own",
    tuple(f"How do I fold paper number {place}?\u2028" for place in range(6)),
    ("harmful", "harmless") * 3,
    (None, "crafts") * 3,
)
CONDITION = Condition(SafetyPrompt("long", "Be careful.")).record()
KEY = MeasurementKey(CONDITION.fingerprint, QUERIES.fingerprint, "model", "protocol")
HEADER = MeasurementHeader(KEY, CONDITION, QUERIES.name, per_query=2, width=3)


@dataclass(frozen=True)
class Settings:
    """Settings of some work."""

    epochs: int
    rate: Rate
    names: tuple[str, ...] = ()


SETTINGS = Settings(3, Rate(1.5, 4, Interval(0.1, 0.7)), ("long", "ümlaut \u2028"))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", SETTINGS, "thing")
    assert read_record(tmp_path / "a.json", Settings, "thing") == SETTINGS


def test_every_changed_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_record(file, SETTINGS, "thing")
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        with suppress(DemurError):  # white space between the parts may change
            assert read_record(file, Settings, "thing") == SETTINGS


def test_a_line_that_is_there_twice_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_record(file, SETTINGS, "thing")
    lines = file.read_bytes().splitlines(keepends=True)
    for place in range(len(lines)):
        file.write_bytes(b"".join([*lines[: place + 1], *lines[place:]]))
        with pytest.raises(DemurError, match="is damaged: delete it and run"):
            read_record(file, Settings, "thing")


@pytest.mark.parametrize("length", [0, 1, 40, -2])
def test_a_record_cut_short_is_noticed(tmp_path: Path, length: int) -> None:
    file = tmp_path / "a.json"
    write_record(file, SETTINGS, "thing")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DemurError, match="damaged: delete"):
        read_record(file, Settings, "thing")


def test_other_records_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_record(file, SETTINGS, "thing")
    with pytest.raises(DemurError, match="holds no run of demur: check the path"):
        read_record(file, Settings, "run")
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "version": 1}))
    with pytest.raises(DemurError, match="another version"):
        read_record(file, Settings, "thing")
    with pytest.raises(DemurError, match="Cannot read"):
        read_record(tmp_path / "missing.json", Settings, "thing")
    file.write_text("[" * 100_000)
    with pytest.raises(DemurError, match="damaged"):
        read_record(file, Settings, "thing")


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path / "a.json", Interval(0, 1, float("nan")), "interval")
    assert not list(tmp_path.iterdir())


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(4, 5), "b": torch.arange(3), "none": torch.zeros(0, 2)}
    write_tensors(tmp_path / "t.safetensors", tensors, {"epochs": [1, 2.5]})
    stored = read_tensors(tmp_path / "t.safetensors")
    assert stored is not None
    assert stored.notes == {"epochs": [1, 2.5]}
    assert set(stored.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(stored.tensors[name], tensor)
    assert read_tensors(tmp_path / "missing.safetensors") is None


def test_every_changed_byte_of_a_tensor_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    tensors = {"a": torch.randn(3, 2), "b": torch.ones(2)}
    write_tensors(file, tensors, {"loss": 0.5})
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 64):
            changed = bytearray(whole)
            changed[place] ^= bit
            file.write_bytes(bytes(changed))
            with suppress(DemurError):
                stored = read_tensors(file)
                assert stored is not None
                assert stored.notes == {"loss": 0.5}
                assert all(torch.equal(stored.tensors[name], tensors[name]) for name in tensors)


def _row(place: int, sample: int) -> JudgedResponse:
    return JudgedResponse(
        prompt="long",
        condition=CONDITION.fingerprint,
        set=QUERIES.name,
        label=QUERIES.labels[place],
        category=QUERIES.categories[place],
        query=QUERIES.texts[place],
        response=f"Answer {sample} to {place}.\x85\n",
        refused=(place + sample) % 2 == 0,
        end="stop",
    )


def _states(first: int, last: int) -> torch.Tensor:
    return torch.arange(first * 3, last * 3).float().reshape(-1, 3) / 7


def _append(stored: StoredMeasurement, first: int, last: int) -> None:
    rows = [_row(place, sample) for place in range(first, last) for sample in range(2)]
    stored.append(rows, last - first, _states(first, last))


def _go_on(folder: Path) -> StoredMeasurement:
    """Measure two queries at a time, from where the folder stands, until all are measured."""
    stored = MeasurementStore(folder).stored(KEY)
    if not stored.read():
        stored.begin(HEADER)
    while stored.items < len(QUERIES):
        _append(stored, stored.items, stored.items + 2)
    stored.finish()
    return stored


def _files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in (folder / "measurements").iterdir()}


def test_a_measurement_is_read_as_it_was_measured(tmp_path: Path) -> None:
    _go_on(tmp_path)
    for found in (
        MeasurementStore(tmp_path).require(KEY),
        MeasurementStore(tmp_path).find(KEY, QUERIES),
    ):
        assert found is not None
        assert found.queries == QUERIES
        assert found.condition == CONDITION
        assert found.responses == tuple(
            (_row(place, 0), _row(place, 1)) for place in range(len(QUERIES))
        )
        assert torch.equal(found.states, _states(0, 6))
        assert found.refusal_rates() == [0.5] * 6


def test_a_measurement_grows_by_appending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def count(path: Path, data: bytes, *, at: int) -> None:
        nonlocal written
        written += len(data)
        append_bytes(path, data, at=at)

    monkeypatch.setattr("demur.records.journal.append_bytes", count)
    _go_on(tmp_path)
    assert written <= sum(map(len, _files(tmp_path).values()))


def test_an_interrupted_append_is_dropped(tmp_path: Path) -> None:
    """Whatever part of an append reached the disk, the measurement ends as an undisturbed one."""
    undisturbed = tmp_path / "undisturbed"
    _go_on(undisturbed)
    whole = _files(undisturbed)
    for torn in (
        {},
        {".jsonl": 10},
        {".jsonl": 400, ".f32": 5},
        {".jsonl": 400, ".f32": 400, ".journal": 30},
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        stored = MeasurementStore(folder).stored(KEY)
        stored.begin(HEADER)
        _append(stored, 0, 2)
        before = _files(folder)
        _append(stored, 2, 4)
        for name, content in _files(folder).items():
            kept = len(before[name]) + torn.get(Path(name).suffix, 0)
            (folder / "measurements" / name).write_bytes(content[:kept])
        assert MeasurementStore(folder).stored(KEY).read()
        _go_on(folder)
        assert _files(folder) == whole


def _damage() -> dict[str, Callable[[bytes], bytes]]:
    def middle(content: bytes) -> int:
        return len(content) // 2

    return {
        "a changed bit": lambda one: (
            one[: middle(one)] + bytes([one[middle(one)] ^ 1]) + one[middle(one) + 1 :]
        ),
        "zeroes": lambda one: (
            one[: middle(one)] + b"\0" * (len(one) - middle(one) - 5) + one[len(one) - 5 :]
        ),
        "a dropped line": lambda one: b"\n".join(one.split(b"\n")[:1] + one.split(b"\n")[2:]),
        "a dropped row": lambda one: one[:12] + one[24:],
        "cut short": lambda one: one[: middle(one)],
        "empty": lambda _: b"",
        "something appended": lambda one: one + b"{}\n",
    }


@pytest.mark.parametrize("kind", list(_damage()))
@pytest.mark.parametrize("suffix", [".jsonl", ".f32", ".journal"])
def test_damage_is_named_and_the_message_leads_back(tmp_path: Path, suffix: str, kind: str) -> None:
    """Damage is never used; deleting what the message names gives the undisturbed files."""
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "damaged"
    _go_on(undisturbed)
    _go_on(folder)
    (file,) = (folder / "measurements").glob(f"*{suffix}")
    damaged = _damage()[kind](file.read_bytes())
    if damaged == file.read_bytes():
        return  # representations have no lines
    file.write_bytes(damaged)
    try:
        found = MeasurementStore(folder).require(KEY)
    except DemurError as error:
        text = str(error)
    else:
        pytest.fail(f"damage was used: {found}")
    assert file.stem in text
    if "delete " in text:
        named = Path(text.split("delete ")[1].split(" and run", maxsplit=1)[0])
        named.unlink()
    _go_on(folder)
    assert _files(folder) == _files(undisturbed)


def test_random_damage_is_never_used(tmp_path: Path) -> None:
    _go_on(tmp_path)
    whole, chance = _files(tmp_path), random.Random(0)
    expected = MeasurementStore(tmp_path).require(KEY)
    for _ in range(300):
        name = chance.choice(sorted(whole))
        content = bytearray(whole[name])
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "measurements" / name).write_bytes(bytes(content))
        with suppress(DemurError):
            found = MeasurementStore(tmp_path).require(KEY)
            assert found.responses == expected.responses
            assert torch.equal(found.states, expected.states)
        (tmp_path / "measurements" / name).write_bytes(whole[name])


@pytest.mark.parametrize("suffix", ["jsonl", "f32", "journal"])
@pytest.mark.parametrize("queries", [0, 2, 6])
def test_a_folder_in_the_place_of_a_file_is_named(
    tmp_path: Path, suffix: str, queries: int
) -> None:
    _go_on(tmp_path / "whole")
    stored = MeasurementStore(tmp_path).stored(KEY)
    stored.begin(HEADER)
    if queries:
        _append(stored, 0, queries)
    file = next((tmp_path / "measurements").glob(f"*.{suffix}"))
    file.unlink()
    file.mkdir()
    named = rf"damaged \(it is a folder\): delete \S+{suffix} and run"
    with pytest.raises(DemurError, match=named):
        MeasurementStore(tmp_path).stored(KEY).read()
    with pytest.raises(DemurError, match=named):
        stored.begin(HEADER)
    file.rmdir()  # what the message says
    _go_on(tmp_path)
    assert _files(tmp_path) == _files(tmp_path / "whole")


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_on(tmp_path)
    for error in (PermissionError(13, "Permission denied"), OSError(5, "Input/output error")):

        def fail(*_: object, error: OSError = error, **__: object) -> bytes:
            raise error

        stored = MeasurementStore(tmp_path).stored(KEY)
        with monkeypatch.context() as patches:
            patches.setattr(Path, "read_bytes", fail)
            with pytest.raises(DemurError) as caught:
                stored.read()
        assert f"({error.strerror}): make it readable." in str(caught.value)


def test_a_measurement_is_found_by_what_it_is(tmp_path: Path) -> None:
    _go_on(tmp_path)
    store = MeasurementStore(tmp_path)
    for key in (
        replace(KEY, condition="other"),
        replace(KEY, queries="other"),
        replace(KEY, model="other"),
        replace(KEY, protocol="other"),
    ):
        assert store.find(key, QUERIES) is None
    with pytest.raises(DemurError, match="missing or not finished"):
        store.require(replace(KEY, condition="other"))


def test_a_measurement_under_another_files_name_is_refused(tmp_path: Path) -> None:
    """Renaming the files of one measurement to another's gives no rows to the other."""
    stored = _go_on(tmp_path)
    other = MeasurementStore(tmp_path).stored(replace(KEY, condition="other"))
    for file in (stored.rows_file, stored.states_file, stored.rows_file.with_suffix(".journal")):
        file.rename(other.rows_file.with_suffix(file.suffix))
    with pytest.raises(DemurError, match="belongs to another measurement"):
        MeasurementStore(tmp_path).require(other.key)


def test_a_finished_measurement_is_borrowed(tmp_path: Path) -> None:
    lender, own = tmp_path / "lender", tmp_path / "own"
    stored = MeasurementStore(lender).stored(KEY)
    stored.begin(HEADER)
    _append(stored, 0, 4)
    assert MeasurementStore(own).borrow(KEY, [tmp_path / "nowhere", lender]) is None
    _go_on(lender)
    assert MeasurementStore(own).borrow(KEY, [tmp_path / "nowhere", lender]) == lender
    assert torch.equal(MeasurementStore(own).require(KEY).states, _states(0, 6))
    (lender / "measurements" / stored.rows_file.name).write_bytes(b"")
    assert MeasurementStore(tmp_path / "third").borrow(KEY, [lender]) is None


def test_a_response_without_a_verdict_does_not_count(tmp_path: Path) -> None:
    measurement = MeasurementStore(tmp_path)
    stored = measurement.stored(KEY)
    stored.begin(HEADER)
    for place in range(len(QUERIES)):
        rows = [replace(_row(place, 0), refused=None), replace(_row(place, 1), refused=True)]
        stored.append(rows, 1, _states(place, place + 1))
    stored.finish()
    assert measurement.require(KEY).refusal_rates() == [1.0] * 6


def test_a_query_without_any_verdict_is_an_error(tmp_path: Path) -> None:
    stored = MeasurementStore(tmp_path).stored(KEY)
    stored.begin(HEADER)
    for place in range(len(QUERIES)):
        rows = [replace(_row(place, sample), refused=None) for sample in range(2)]
        stored.append(rows, 1, _states(place, place + 1))
    stored.finish()
    with pytest.raises(DemurError, match="no verdict"):
        MeasurementStore(tmp_path).require(KEY).refusal_rates()


def test_a_folder_of_work_knows_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "work"
    WorkFolder.start(path, SETTINGS, "run")
    assert kind_of(path) == "run"
    assert WorkFolder.open(path, Settings, "run").settings == SETTINGS
    WorkFolder.start(path, SETTINGS, "run")
    with pytest.raises(DemurError, match=r"another epochs \(3 there, 4 now\)"):
        WorkFolder.check(path, replace(SETTINGS, epochs=4), "run")
    hashed = replace(SETTINGS, names=("a" * 64,))
    with pytest.raises(DemurError, match=r"a run with another names: choose another --output"):
        WorkFolder.check(path, hashed, "run")
    with pytest.raises(DemurError, match=r"another rate\.count"):
        WorkFolder.check(path, replace(SETTINGS, rate=Rate(2, 4, SETTINGS.rate.interval)), "run")
    with pytest.raises(
        DemurError, match=r"work is not the folder of an evaluation \(it is that of a run\): check"
    ):
        WorkFolder.open(path, Settings, "evaluation")
    with pytest.raises(DemurError, match="is not the folder of a run"):
        WorkFolder.open(tmp_path, Settings, "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(DemurError, match="holds something else"):
        WorkFolder.check(tmp_path / "full", SETTINGS, "run")
    with pytest.raises(DemurError, match="is a file"):
        WorkFolder.check(tmp_path / "full" / "notes.txt", SETTINGS, "run")


def test_a_folder_of_work_without_good_settings_is_named(tmp_path: Path) -> None:
    path = tmp_path / "work"
    WorkFolder.start(path, SETTINGS, "run")
    file = path / "settings.json"
    whole = file.read_bytes()
    write_record(path / "results.json", SETTINGS, "run results")
    for damage in (whole[:50], (path / "results.json").read_bytes()):
        file.write_bytes(damage)
        for use in (
            lambda: WorkFolder.check(path, SETTINGS, "run"),
            lambda: WorkFolder.open(path, Settings, "run"),
            lambda: kind_of(path),
        ):
            with pytest.raises(DemurError, match=r"settings\.json is damaged: delete it and run"):
                use()
    file.unlink()
    file.mkdir()
    with pytest.raises(DemurError, match=r"settings\.json is damaged: delete it"):
        WorkFolder.check(path, SETTINGS, "run")
    file.rmdir()
    assert kind_of(path) is None
    with pytest.raises(DemurError, match=r"settings\.json is missing: run the command that made"):
        WorkFolder.open(path, Settings, "run")
    WorkFolder.start(path, SETTINGS, "run")
    assert file.read_bytes() == whole
    with pytest.raises(DemurError, match="is the folder of a run: choose another --output"):
        WorkFolder.check(path, SETTINGS, "evaluation")


KILLED = """\
import os
import signal
import sys
from pathlib import Path

from demur.temporary import temporary

is_folder = sys.argv[2] == "export"
with temporary(Path(sys.argv[1]) / sys.argv[2], is_folder=is_folder) as new:
    if is_folder:
        (new / "weights").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
SWEEP = """\
import sys
from pathlib import Path

from demur.temporary import remove_leftovers

remove_leftovers(Path(sys.argv[1]))
"""


def left_by_a_kill(folder: Path, name: str) -> Path:
    """What a process leaves that is killed while it writes a file, or a folder called `export`."""
    before = set(folder.iterdir())
    ended = subprocess.run([sys.executable, "-c", KILLED, folder, name], check=False)
    assert ended.returncode < 0
    [left] = set(folder.iterdir()) - before
    return left


def of_process(left: Path, process: int) -> Path:
    """The same, as if another process had left it."""
    head, _, tail = left.name.rpartition(".part")[0].rpartition(".")
    return left.rename(left.with_name(f"{head}.{process}-{tail.rpartition('-')[2]}.part"))


@pytest.mark.skipif(os.name != "posix", reason="locks and kills are those of POSIX")
def test_what_a_killed_process_left_is_swept_when_work_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "work"
    WorkFolder.start(path, SETTINGS, "run")
    (path / "measurements").mkdir()
    dead = [left_by_a_kill(path, "report.html"), left_by_a_kill(path / "measurements", "abc.f32")]
    # Another process has its number by now, this one and one that always runs.
    dead += [of_process(left_by_a_kill(path, "report.html"), one) for one in (os.getpid(), 1)]
    others = [path / "notes.part", path / ".mine.part", path / ".mine.12.part"]
    for file in others:
        file.touch()
    with (
        temporary(path / "measurements" / "abc.jsonl") as alive,
        temporary(path / "new", is_folder=True) as alive_too,
    ):
        for folder in (path, path / "measurements"):
            subprocess.run([sys.executable, "-c", SWEEP, folder], check=True)
            remove_leftovers(folder)
        assert not any(file.exists() for file in dead)
        assert all(file.exists() for file in (*others, alive, alive_too))
        WorkFolder.start(path, SETTINGS, "run")
        assert all(file.exists() for file in (*others, alive, alive_too))
    assert not alive.exists()
    assert not alive_too.exists()


@pytest.mark.skipif(os.name != "posix", reason="locks and kills are those of POSIX")
def test_work_sweeps_what_a_kill_left_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "work"
    WorkFolder.start(path, SETTINGS, "run")
    (path / "measurements").mkdir()
    left_by_a_kill(path, "report.html")
    left_by_a_kill(path / "measurements", "abc.f32")
    WorkFolder.start(path, SETTINGS, "run")
    assert [one.name for one in path.rglob("*") if one.is_file()] == ["settings.json"]


@pytest.mark.skipif(os.name != "posix", reason="locks and kills are those of POSIX")
def test_a_new_folder_sweeps_what_a_killed_process_left_of_it(tmp_path: Path) -> None:
    left_by_a_kill(tmp_path, "export")
    other = left_by_a_kill(tmp_path, "other")
    with new_folder(tmp_path / "export") as new:
        (new / "weights").write_text("new")
    assert sorted(one.name for one in tmp_path.iterdir()) == [other.name, "export"]
    assert (tmp_path / "export" / "weights").read_text() == "new"


def test_the_first_write_may_be_interrupted(tmp_path: Path) -> None:
    """What a killed first write leaves does not stand in the way of the next try."""
    path = tmp_path / "work"
    path.mkdir()
    (path / ".settings.json.123-0123abcd.part").write_bytes(b"{")
    WorkFolder.start(path, SETTINGS, "run")
    assert WorkFolder.open(path, Settings, "run").settings == SETTINGS
    assert [one.name for one in path.iterdir()] == ["settings.json"]


def test_a_condition_is_what_stands_before_the_query() -> None:
    rows = torch.ones(2, 3)
    conditions = [
        Condition(),
        Condition(SafetyPrompt("long", "Be careful.")),
        Condition(SafetyPrompt("long", "Be kind.")),
        Condition(SafetyPrompt("long", "Be careful."), "You bake."),
        Condition(SafetyPrompt("long", "Be careful.", rows)),
        Condition(SafetyPrompt("long", "Be careful.", 2 * rows)),
        Condition(SafetyPrompt("long", None, rows)),
        Condition(None, "You bake."),
    ]
    assert len({one.fingerprint for one in conditions}) == len(conditions)
    renamed = Condition(SafetyPrompt("none", "Be careful."))
    assert renamed.fingerprint == conditions[1].fingerprint
    assert not renamed.record().is_bare
    assert Condition().record() == ConditionRecord(
        "none", Condition().fingerprint, None, False, None
    )
    assert Condition().record().is_bare


def test_no_two_conditions_have_one_name() -> None:
    prompts = [None, *(SafetyPrompt(name, name) for name in ("none", "long", "long", "long (2)"))]
    names = distinct_names([Condition(prompt) for prompt in prompts])
    assert names == ["none", "none (2)", "long", "long (2)", "long (2) (2)"]
    assert distinct_names([Condition(SafetyPrompt("none", "x"))]) == ["none (2)"]


def test_queries_are_their_texts_and_labels() -> None:
    assert replace(QUERIES, name="other").fingerprint == QUERIES.fingerprint
    assert replace(QUERIES, labels=("harmless",) * 6).fingerprint != QUERIES.fingerprint
    assert replace(QUERIES, texts=("x",) * 6).fingerprint != QUERIES.fingerprint
    assert fingerprint("a", x=1) != fingerprint("b", x=1)
    assert QUERIES.select([1, 0]).texts == (QUERIES.texts[1], QUERIES.texts[0])
    assert QUERIES.rows(harmful=True) == [0, 2, 4]
    assert QUERIES.label_tensor().tolist() == [1, 0, 1, 0, 1, 0]
