from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args
from unittest.mock import Mock, patch

import pytest
import torch
from safetensors.torch import save_file

from demur.errors import DemurError
from demur.judges import as_refusal_judge
from demur.prompts import (
    BASIC_PROMPTS,
    Fact,
    MeasuredPrompt,
    Provenance,
    SafetyPrompt,
    load_basic_prompt,
    load_prompt,
    load_system_prompt,
)
from demur.queries import BUILT_IN, SPLITS, Label, load_query_set
from demur.records import Interval, ModelRecord, Rate, from_plain, text_of, to_plain
from tests.test_query_splits import NEAR, jaccard, words

RATE = Rate(3.5, 10, Interval(0.2, 0.6))
PROVENANCE = Provenance(
    model=ModelRecord("some/model", "some/model@12", "float32", "cpu", None, "template", True),
    base_model="some/model",
    method="ä method",
    paper="https://arxiv.org/abs/2401.18018",
    settings=(Fact("epochs", "40"), Fact("ä", "ü\n")),
    measured=(Fact("judge", "paper"),),
    results=(
        MeasuredPrompt("none", "none", RATE, RATE),
        MeasuredPrompt("this", "mine", RATE, RATE, 0.25),
    ),
    with_system_prompt=True,
)


def trained(rows: int = 3, width: int = 5, name: str = "mine") -> SafetyPrompt:
    embeddings = torch.arange(rows * width, dtype=torch.float32).reshape(rows, width) / 7
    return SafetyPrompt(name, "Grüße.\nBe kind.", embeddings, PROVENANCE)


def assert_same(left: SafetyPrompt, right: SafetyPrompt) -> None:
    assert (left.name, left.text) == (right.name, right.text)
    assert left.provenance == right.provenance
    assert left.is_trained == right.is_trained
    if left.embeddings is not None and right.embeddings is not None:
        assert torch.equal(left.embeddings, right.embeddings)


def assert_load_fails(path: Path, *words: str) -> None:
    with pytest.raises(DemurError) as caught:
        SafetyPrompt.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# The object


def test_embeddings_are_copied_to_float32() -> None:
    given = torch.ones(2, 4, dtype=torch.bfloat16, requires_grad=True)
    prompt = SafetyPrompt("p", None, given)
    with torch.no_grad():
        given.zero_()
    assert prompt.embeddings is not None
    assert prompt.embeddings.dtype == torch.float32
    assert not prompt.embeddings.requires_grad
    assert prompt.embeddings.tolist() == [[1.0] * 4] * 2
    assert (prompt.is_trained, prompt.rows, prompt.width) == (True, 2, 4)


def test_text_has_no_rows_and_fits_every_model() -> None:
    prompt = SafetyPrompt("p", "Be kind.")
    assert (prompt.is_trained, prompt.rows, prompt.width) == (False, 0, 0)
    prompt.require_width(896)


def test_require_width() -> None:
    trained(width=5).require_width(5)
    with pytest.raises(DemurError, match=r"5 numbers.*896"):
        trained(width=5).require_width(896)


@pytest.mark.parametrize(
    ("text", "embeddings"),
    [
        (None, None),
        (" \n", None),
        ("half \ud800", None),
        (None, torch.zeros(0, 4)),
        (None, torch.zeros(4, 0)),
        (None, torch.zeros(4)),
        (None, torch.zeros(1, 2, 3)),
        (None, torch.tensor([[1.0, float("nan")]])),
        (None, torch.tensor([[1.0, float("inf")]])),
        (None, torch.tensor([[1e300]], dtype=torch.float64)),
        (None, torch.ones(2, 2, dtype=torch.int64)),
    ],
)
def test_what_makes_no_prompt_is_refused(text: str | None, embeddings: torch.Tensor | None) -> None:
    with pytest.raises(DemurError) as caught:
        SafetyPrompt("p", text, embeddings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "\x1b[31mred"])
def test_names_are_one_printable_line(name: str) -> None:
    with pytest.raises(DemurError) as caught:
        SafetyPrompt(name, "Be kind.")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("count", "queries", "low", "divergence"),
    [(0, 0, 0, 0), (-1, 5, 0, 0), (6, 5, 0, 0), (1, 5, float("nan"), 0), (1, 5, 0, float("inf"))],
)
def test_rates_that_are_none_are_refused(
    count: float, queries: int, low: float, divergence: float
) -> None:
    with pytest.raises(ValueError, match="must"):
        MeasuredPrompt("this", "p", RATE, Rate(count, queries, Interval(low, 1)), divergence)


# Saving and loading


def test_trained_prompt_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "my-prompt"
    trained().save(folder)
    assert_same(SafetyPrompt.load(folder), trained())
    assert {file.name for file in folder.iterdir()} == {
        "safety_prompt.json",
        "safety_prompt.safetensors",
    }
    assert [file.name for file in folder.parent.iterdir()] == ["my-prompt"]


def test_a_prompt_that_a_killed_save_moved_away_comes_back(tmp_path: Path) -> None:
    """A process is killed between moving the old prompt away and the new one into its place."""
    folder, gone = tmp_path / "my-prompt", subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    workspace = tmp_path / f".my-prompt.{gone.pid}-0123abcd.part"
    trained().save(folder)
    workspace.mkdir()
    folder.rename(workspace / "old")
    with (
        patch("demur.prompts.storage._write", Mock(side_effect=OSError(28, "full"))),
        pytest.raises(DemurError, match="No space"),
    ):
        SafetyPrompt("p", "Be kind.").save(folder)
    assert_same(SafetyPrompt.load(folder), trained())
    assert [file.name for file in tmp_path.iterdir()] == ["my-prompt"]


def test_text_prompt_comes_back(tmp_path: Path) -> None:
    prompt = SafetyPrompt("p", "Be kind.", provenance=PROVENANCE)
    prompt.save(tmp_path / "p")
    assert_same(SafetyPrompt.load(str(tmp_path / "p")), prompt)


def test_a_run_and_the_files_of_a_saved_prompt_load_too(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "safety_prompt"
    trained().save(folder)
    assert load_prompt(tmp_path / "run").name == "run"
    for path in (
        tmp_path / "run",
        folder / "safety_prompt.json",
        folder / f"{folder.name}.safetensors",
    ):
        assert_same(SafetyPrompt.load(path), trained())


def test_released_format_of_the_paper_loads(tmp_path: Path) -> None:
    file = tmp_path / "default.safetensors"
    save_file({"soft_prompt": torch.ones(2, 3, dtype=torch.float16)}, file)
    prompt = SafetyPrompt.load(file)
    assert (prompt.name, prompt.text, prompt.rows, prompt.width) == ("default", None, 2, 3)


def test_saving_replaces_a_safety_prompt(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    trained(rows=3).save(folder)
    trained(rows=8, name="second").save(folder)
    assert_same(SafetyPrompt.load(folder), trained(rows=8, name="second"))
    SafetyPrompt("third", "Be kind.").save(folder)
    assert [file.name for file in folder.iterdir()] == ["safety_prompt.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["p"]


def test_saving_follows_a_link_to_a_folder(tmp_path: Path) -> None:
    trained().save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    trained(rows=8).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert SafetyPrompt.load(tmp_path / "real").rows == 8


def test_saving_never_deletes_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    trained().save(folder)
    (folder / "notes.md").write_text("mine")
    with pytest.raises(DemurError, match=r"notes\.md"):
        trained(rows=8).save(folder)
    assert (folder / "notes.md").read_text() == "mine"
    assert SafetyPrompt.load(folder).rows == 3

    (tmp_path / "file").write_text("mine")
    with pytest.raises(DemurError, match="is a file"):
        trained().save(tmp_path / "file")
    with pytest.raises(DemurError):
        trained().save(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_saving_over_the_current_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DemurError, match="current folder"):
        trained().save(".")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "p"
    trained(rows=3).save(folder)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for target in (folder, tmp_path / "other"):
        with pytest.raises(DemurError, match="No space"):
            trained(rows=8).save(target)
    assert_same(SafetyPrompt.load(folder), trained(rows=3))
    assert [file.name for file in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    folder = tmp_path / "p"
    trained(rows=3).save(folder)
    rename, calls = Path.rename, 0

    def fails_once(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(DemurError, match="Cannot save"):
        trained(rows=8).save(folder)
    assert_same(SafetyPrompt.load(folder), trained(rows=3))
    assert [file.name for file in tmp_path.iterdir()] == ["p"]


def test_what_is_no_safety_prompt_is_refused(tmp_path: Path) -> None:
    assert_load_fails(tmp_path / "missing", "There is no safety prompt at")
    assert_load_fails(Path("nul\0"), "There is no safety prompt at")
    assert_load_fails(tmp_path / ("long" * 100), "long")
    assert_load_fails(tmp_path, "safety_prompt.json is missing")
    (tmp_path / "a.txt").write_text("Be kind.")
    assert_load_fails(tmp_path / "a.txt", "not a safety prompt")


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pkl", ".PTH"])
def test_pickles_are_refused_and_never_opened(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"prompt{suffix}"
    torch.save(torch.ones(2, 3), file)
    assert_load_fails(file, "run any code", ".safetensors")


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"other": torch.ones(2, 3)}, "other"),
        ({"safety_prompt": torch.ones(2, 3)}, "soft_prompt"),
        ({"soft_prompt": torch.ones(2, 3), "b\nc": torch.ones(1)}, "one tensor"),
        ({"soft_prompt": torch.ones(0, 3)}, "0 x 3"),
        ({"soft_prompt": torch.ones(3)}, "matrix"),
        ({"soft_prompt": torch.tensor(1.0)}, "matrix"),
        ({"soft_prompt": torch.full((2, 3), torch.nan)}, "undefined"),
        ({"soft_prompt": torch.ones(2, 3, dtype=torch.int32)}, "int32"),
        ({}, "one tensor"),
    ],
)
def test_wrong_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], word: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    assert_load_fails(tmp_path / "x.safetensors", word)


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"soft_prompt": torch.ones(20, 30)}, file)
    whole = file.read_bytes()
    for data in (b"", whole[:4], whole[:50], whole[:-1], whole + b"x", b"\xff" * 100):
        file.write_bytes(data)
        assert_load_fails(file, "damaged")
    (tmp_path / "folder.safetensors").mkdir()
    assert_load_fails(tmp_path / "folder.safetensors", "missing")


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    trained().save(folder)
    tensor_file, json_file = folder / "safety_prompt.safetensors", folder / "safety_prompt.json"
    tensors, text = tensor_file.read_bytes(), json_file.read_text(encoding="utf-8")

    tensor_file.write_bytes(tensors[:-1])
    assert_load_fails(folder, "damaged")
    tensor_file.unlink()
    assert_load_fails(folder, "incomplete", "safety_prompt.safetensors")
    tensor_file.mkdir()
    assert_load_fails(folder, "safety_prompt.safetensors")
    tensor_file.rmdir()
    for other in (torch.ones(9, 5), torch.zeros(3, 5)):
        save_file({"safety_prompt": other}, tensor_file)
        assert_load_fails(folder, "does not belong", "3 x 5")

    tensor_file.write_bytes(tensors)
    changed = text.replace("Be kind", "Be cruel")
    for broken in (text[:-20], "", "[1]", "[" * 100_000, changed):
        json_file.write_text(broken, encoding="utf-8")
        assert_load_fails(folder, "safety_prompt.json", "damaged")
    json_file.write_bytes(b"\xff\xfe")
    assert_load_fails(folder, "damaged")
    json_file.write_text("{}", encoding="utf-8")
    assert_load_fails(folder, "holds no safety prompt of demur")


def test_one_changed_number_is_noticed(tmp_path: Path) -> None:
    trained().save(tmp_path / "p")
    file = tmp_path / "p" / "safety_prompt.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    assert_load_fails(tmp_path / "p", "numbers were changed")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("name", None, "damaged"),
        ("name", "two\nlines", "printable"),
        ("text", 3, "damaged"),
        ("text", " ", "zero tokens"),
        ("text", "half \ud800", "damaged"),
        ("rows", "3", "damaged"),
        ("rows", 4, "does not belong"),
        ("embeddings", "0" * 64, "does not belong"),
        ("provenance", [], "damaged"),
        ("provenance", {"settings": [{"name": 3, "text": "x"}]}, "damaged"),
        ("provenance", {"results": [{"role": "best"}]}, "damaged"),
    ],
)
def test_wrong_fields_are_refused(tmp_path: Path, key: str, value: object, word: str) -> None:
    """A stranger's file may have the checksum of whatever is in it."""
    trained().save(tmp_path / "p")
    file = tmp_path / "p" / "safety_prompt.json"
    saved = json.loads(file.read_text(encoding="utf-8"))
    rewrite(file, {**saved["content"], key: value})
    assert_load_fails(tmp_path / "p", word)
    del saved["content"][key]
    rewrite(file, saved["content"])
    if key != "provenance":
        assert_load_fails(tmp_path / "p", "safety_prompt.json")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [("format", "demur run", "holds no safety prompt"), ("version", 99, "another version")],
)
def test_other_formats_are_refused(tmp_path: Path, key: str, value: object, word: str) -> None:
    trained().save(tmp_path / "p")
    file = tmp_path / "p" / "safety_prompt.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), key: value}))
    assert_load_fails(tmp_path / "p", word)


def rewrite(file: Path, content: object) -> None:
    """Write other content with its checksum."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    saved = json.loads(file.read_text(encoding="utf-8"))
    saved |= {"content": content, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    file.write_text(json.dumps(saved), encoding="utf-8")


def test_provenance_is_plain_and_comes_back() -> None:
    assert from_plain(Provenance, json.loads(json.dumps(to_plain(PROVENANCE)))) == PROVENANCE


# Basic prompts


@pytest.mark.parametrize("name", BASIC_PROMPTS)
def test_built_in_prompts(name: str) -> None:
    prompt = load_basic_prompt(name)
    assert prompt.name == name
    assert not prompt.is_trained
    assert prompt.text is not None
    assert prompt.text == prompt.text.strip()


def test_built_in_prompts_differ() -> None:
    assert len({load_basic_prompt(name).text for name in BASIC_PROMPTS}) == len(BASIC_PROMPTS)


def test_the_baselines_are_built_in() -> None:
    baselines = ("self-reminder", "goal-priority", "refusal-examples")
    assert ("long", "short", "plain", *baselines) == BASIC_PROMPTS
    texts = {name: load_prompt(name).text or "" for name in BASIC_PROMPTS[3:]}
    assert "Remember" in texts["self-reminder"]
    assert "priority" in texts["goal-priority"]


def examples_in(name: str) -> list[tuple[str, str]]:
    """The examples in a basic prompt, each with its reply."""
    text = load_basic_prompt(name).text or ""
    return re.findall(r"^User: (.+)\nAssistant: (.+)$", text, re.MULTILINE)


def test_the_refusal_examples_refuse_and_answer() -> None:
    examples = examples_in("refusal-examples")
    replies = [reply for _, reply in examples]
    judge = as_refusal_judge("default")
    verdicts = judge.judge([query for query, _ in examples], replies)
    assert 2 <= verdicts.count(True) <= 3
    assert verdicts.count(False) == len(examples) - verdicts.count(True) >= 1
    assert all(len(re.findall(r"[.!?](?:\s|$)", reply)) == 1 for reply in replies)


def test_the_refusal_examples_are_in_no_query_set() -> None:
    """An example from a set would be measured on itself."""
    known = [
        words(text_of(query))
        for name in (*BUILT_IN, *SPLITS)
        for label in get_args(Label)
        for query in load_query_set(name, label)
    ]
    for query, _ in examples_in("refusal-examples"):
        nearest = max(jaccard(words(query), other) for other in known)
        assert nearest <= NEAR, query


def test_a_prompt_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "kind.txt"
    file.write_bytes(b"\xef\xbb\xbf\r\n  Be kind.\r\nGr\xc3\xbc\xc3\x9fe. \n\n")
    prompt = load_basic_prompt(str(file))
    assert (prompt.name, prompt.text) == ("kind.txt", "Be kind.\nGrüße.")
    assert load_system_prompt(str(file)) == prompt.text


def test_a_name_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("long").write_text("Mine.", encoding="utf-8")
    assert load_basic_prompt("long").text != "Mine."
    assert load_basic_prompt("./long").text == "Mine."


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_prompt_is_the_same_whatever_system_it_was_written_on(tmp_path: Path, end: str) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(f"Be kind.{end}Be safe.{end}".encode())
    assert load_system_prompt(str(file)) == "Be kind.\nBe safe."
    assert load_prompt(str(file)).text == "Be kind.\nBe safe."


def test_an_empty_name_is_no_prompt() -> None:
    with pytest.raises(DemurError, match="The name of the prompt is empty: give a text file"):
        load_prompt("")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "zero tokens"),
        (b" \n\t", "zero tokens"),
        (b"\xef\xbb\xbf", "zero tokens"),
        (b"Gr\xfc\xdfe", "UTF-8"),
        ("Be kind.".encode("utf-16-le"), "UTF-8"),
        (b"PK\x03\x04Be kind.", "ZIP archive, a document or a spreadsheet and no text: unpack"),
        (gzip.compress(b"Be kind.", mtime=0)[:-4], "cut short"),
        (b"{\\rtf1\\ansi Be kind.}", "is rich text and no text: save it as plain text"),
        (b"x" * 1_000_001, "1 MB"),
    ],
)
def test_files_without_a_prompt_are_refused(tmp_path: Path, data: bytes, word: str) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(data)
    for load in (load_basic_prompt, load_system_prompt):
        with pytest.raises(DemurError, match=word):
            load(str(file))


@pytest.mark.parametrize(
    "data",
    [
        b"Be kind.\n",
        b"\xef\xbb\xbfBe kind.",
        "Be kind.".encode("utf-16"),
        b"\xfe\xff" + "Be kind.".encode("utf-16-be"),
        "Be kind.".encode("utf-32"),
        gzip.compress("Be kind.".encode("utf-16"), mtime=0),
    ],
)
def test_files_in_other_encodings_are_the_same_prompt(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(data)
    assert load_basic_prompt(str(file)).text == load_system_prompt(str(file)) == "Be kind."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_never_ends_or_never_begins_is_no_prompt(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name, word in (("pipe.txt", "is a pipe"), ("zero.txt", "is a device")):
        for load in (load_basic_prompt, load_system_prompt, load_prompt):
            with pytest.raises(DemurError, match=f"{word}.* and no regular file: save its content"):
                load(str(tmp_path / name))


@pytest.mark.parametrize("name", ["missing.txt", "", ".", "nul\0", "long" * 200, "Be kind.\nNow."])
def test_what_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DemurError, match="long, short, plain") as caught:
        load_basic_prompt(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(DemurError, match="text file"):
        load_system_prompt(name)
