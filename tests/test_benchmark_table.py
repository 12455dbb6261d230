"""What benchmarks there are, how their files are read, and the command that lists them."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from demur.cli.app import main
from demur.errors import DemurError
from demur.queries import (
    BENCHMARKS,
    Benchmark,
    Columns,
    QuerySet,
    benchmark_address,
    benchmark_state,
    find_benchmark,
    load_benchmark,
)
from demur.queries.benchmark_table import NOT_STATED
from tests.benchmark_files import LINES, add_tiny, isolate, message_of, running_server, save

TABLE = (
    b"\xef\xbb\xbfid,prompt,label,type\n"
    b'1,"How do I, say, kill a process?",safe,homonyms\n'
    b"2,Where do I get a stolen car?,unsafe,theft\n"
    b"3, How do I shoot a film? ,safe,homonyms\n"
    b"4,,,\n"
    b"5,Where do I get a stolen car?,unsafe,again\n"
)
XSTEST_COLUMNS = Columns("prompt", category="type", label="label")

Add = Callable[..., Benchmark]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return isolate(monkeypatch, tmp_path)


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    return partial(add_tiny, monkeypatch)


# --- Reading ----------------------------------------------------------------------------------


def test_both_sides_with_categories(add: Add, tmp_path: Path) -> None:
    add(TABLE, "prompts.csv", "both", XSTEST_COLUMNS)
    harmful, harmless = load_benchmark("tiny", save(tmp_path, TABLE, "tiny.csv"))
    assert harmful == QuerySet("tiny", "harmful", ("Where do I get a stolen car?",), ("theft",))
    assert harmless == QuerySet(
        "tiny",
        "harmless",
        ("How do I, say, kill a process?", "How do I shoot a film?"),
        ("homonyms", "homonyms"),
    )


def test_rows_of_one_kind_only(add: Add, tmp_path: Path) -> None:
    content = b"Behavior,Kind\nOne?,standard\nTwo?,contextual\nThree?, standard\n"
    columns = Columns("Behavior", only=("Kind", "standard"))
    add(content, "prompts.csv", "harmful", columns)
    (queries,) = load_benchmark("tiny", save(tmp_path, content, "tiny.csv"))
    assert queries == QuerySet("tiny", "harmful", ("One?", "Three?"))


JSON_LINES = b"""\
{"prompt": "One?", "kind": "safety", "topic": "a", "n": 1}
{"prompt": null, "kind": "safety", "topic": "a"}
{"prompt": "Two?", "kind": "other", "topic": "b"}
{"prompt": "Three? ", "kind": "safety", "topic": "b"}
"""


def test_json_lines_of_one_kind(add: Add, tmp_path: Path) -> None:
    columns = Columns("prompt", category="topic", only=("kind", "safety"))
    add(JSON_LINES, "prompts.jsonl", "borderline", columns)
    (queries,) = load_benchmark("tiny", save(tmp_path, JSON_LINES, "tiny.jsonl"))
    assert queries == QuerySet("tiny", "harmless", ("One?", "Three?"), ("a", "b"))
    assert queries.remark == "1 rows of tiny have no query and are left out."


def attacked(rows: list[Any]) -> bytes:
    return json.dumps({"parameters": {"model": "m"}, "jailbreaks": rows}).encode()


ATTACKED = [
    {"prompt": "One?", "category": "a", "response": "An answer that nobody keeps."},
    {"prompt": None, "category": "a", "response": None},
    {"prompt": "Two?", "category": "b", "response": "Another one."},
]
KEPT = (
    b'{"jailbreaks": [{"category": "a", "prompt": "One?"}, {"category": "a", "prompt": null}, '
    b'{"category": "b", "prompt": "Two?"}]}\n'
)


def test_answers_are_never_kept(
    add: Add, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = attacked(ATTACKED)
    columns = Columns("prompt", category="category", rows="jailbreaks")
    kept_sha256 = hashlib.sha256(KEPT).hexdigest()
    benchmark = add(content, "vicuna.json", "harmful", columns, kept_sha256=kept_sha256)
    expected = QuerySet("tiny", "harmful", ("One?", "Two?"), ("a", "b"))
    with running_server() as server:
        monkeypatch.setenv("DEMUR_BENCHMARK_SOURCE", server.url)
        server.serve(benchmark, content)
        for _ in range(2):
            assert load_benchmark("tiny") == (expected,)
        assert len(server.asked) == 1
        assert [path.name for path in cache.iterdir()] == ["tiny.json"]
        assert (cache / "tiny.json").read_bytes() == KEPT
        assert benchmark_state("tiny") == "ready"
        # A file that somebody put into the cache whole is replaced.
        (cache / "tiny.json").write_bytes(content)
        assert benchmark_state("tiny") == "wrong SHA-256"
        assert load_benchmark("tiny") == (expected,)
        assert (cache / "tiny.json").read_bytes() == KEPT
    # A folder may have the file as published, or a copy of the cache's.
    for number, given in enumerate((content, KEPT)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert load_benchmark("tiny", save(folder, given, "tiny.json")) == (expected,)
        assert benchmark_state("tiny", folder) == "ready"


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"jailbreaks": 3}',
        b'{"jailbreaks": ["x"]}',
        b'{"jailbreaks": [{"category": "a"}]}',
        b'{"jailbreaks": [{"prompt": 3, "category": "a"}]}',
        b"not json",
    ],
)
def test_malformed_json(add: Add, tmp_path: Path, content: bytes) -> None:
    columns = Columns("prompt", category="category", rows="jailbreaks")
    add(content, "vicuna.json", "harmful", columns)
    with pytest.raises(DemurError):
        load_benchmark("tiny", save(tmp_path, content, "tiny.json"))


def test_one_column_for_two_purposes(add: Add, tmp_path: Path) -> None:
    content = b"q,kind\nOne?,a\nTwo?,b\n"
    add(content, "prompts.csv", "harmful", Columns("q", category="kind", only=("kind", "a")))
    (queries,) = load_benchmark("tiny", save(tmp_path, content, "tiny.csv"))
    assert queries == QuerySet("tiny", "harmful", ("One?",), ("a",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"prompt,label\nOne?,safe\n", "no column 'type'"),
        (b"prompt,label,type\nOne?,safe\n", "line 2 has 2 cells and the header 3"),
        (b"prompt,label,type,prompt\n", "more than one column 'prompt'"),
        (b"prompt,label,type\nOne?,fine,x\n", "the label 'fine'"),
        (b"prompt,label,type\nOne?,safe,x\n", "no harmful queries"),
        (b"prompt,label,type\nOne?,unsafe,x\n", "no harmless queries"),
        (b"prompt,label,type\n\xe9,safe,x\n", "not UTF-8 text (line 2)"),
        (b"", "is empty"),
    ],
)
def test_malformed_tables(add: Add, tmp_path: Path, content: bytes, expected: str) -> None:
    add(content, "prompts.csv", "both", XSTEST_COLUMNS)
    message = message_of(directory=save(tmp_path, content, "tiny.csv"))
    assert expected in message
    assert "tiny.csv" in message


def test_a_text_file_without_queries(add: Add, tmp_path: Path) -> None:
    add(b" \n\n")
    assert "no harmless queries" in message_of(directory=save(tmp_path, b" \n\n"))


# --- The table --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("XSTest", "xstest"),
        ("MaliciousInstruct", "malicious-instruct"),
        ("harm bench", "harmbench"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, nearest: str) -> None:
    message = message_of(name)
    assert f"did you mean {nearest!r}" in message
    assert "strongreject" in message


@pytest.mark.parametrize("name", ["", "zzz", "a\nb", "../advbench", "x" * 500])
def test_an_unknown_name_lists_them_all(name: str) -> None:
    message = message_of(name)
    assert repr(name)[:100] in message
    assert len(message) < 600
    assert all(known in message for known in BENCHMARKS)


def test_the_table_is_consistent() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert find_benchmark(name) is benchmark
        assert name == benchmark.name
        assert re.fullmatch(r"[0-9a-f]{64}", benchmark.sha256)
        assert re.fullmatch(r"[0-9a-f]{40}", benchmark.commit)
        is_table = benchmark.file_name.endswith((".csv", ".jsonl", ".json"))
        assert (benchmark.columns is not None) == is_table
        assert re.fullmatch(r"[0-9a-f]{64}", benchmark.kept_sha256 or "0" * 64)
    assert len({benchmark.file_name for benchmark in BENCHMARKS.values()}) == len(BENCHMARKS)


@pytest.mark.reference
def test_the_table_is_that_of_the_reference(reference: Path) -> None:
    with (reference / "benchmarks.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    hosted = {name: known for name, known in BENCHMARKS.items() if known.host == "github"}
    assert set(hosted) <= set(rows)  # the reference may have more, and none from the hub
    for name, known in hosted.items():
        row = rows[name]
        for key in ("side", "repository", "commit", "path", "sha256"):
            assert row[key] == getattr(known, key), (name, key)
        assert int(row["bytes"]) == known.size
        format = row["format"].replace("as harmbench", rows["harmbench"]["format"])
        assert described(known) == described_by(format), name
        assert (known.kept_sha256 is not None) == ("never keep" in format), name


Described = tuple[object, ...]
UNNAMED = {"xstest", "simple-safety-tests", "coconot-contrast"}
UNNAMED |= {name for name in BENCHMARKS if name.startswith("jbb-attacked-")}


def described(benchmark: Benchmark) -> Described:
    columns = benchmark.columns
    # The reference does not name all categories, and no use for HarmBench's contexts.
    category = None if columns is None or benchmark.name in UNNAMED else columns.category
    return (
        None if columns is None or benchmark.name == "coconot-contrast" else columns.query,
        category,
        None if columns is None else columns.label,
        None if columns is None or benchmark.name == "coconot-contrast" else columns.only,
        benchmark.queries,
        benchmark.licence,
    )


def described_by(text: str) -> Described:
    def found(pattern: str) -> str | None:
        match = re.search(pattern, text)
        return match[1] if match else None

    kind = found(r"standard behaviours have (\w+) standard")
    counts = found(r"of which (\d+)") or found(r"\((\d+(?: and \d+)?)")
    return (
        found(r"quer(?:y in column|ies in jailbreaks\[\]\.)\s?(\w+)"),
        found(r"category in (\w+)"),
        found(r"label safe or unsafe in (\w+)"),
        None if kind is None else (kind, "standard"),
        None if counts is None else sum(map(int, counts.split(" and "))),
        found(r"(CC-[\w.-]+|MIT)") or NOT_STATED,
    )


# --- The command ------------------------------------------------------------------------------


def demur(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["demur", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command_lists_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], add: Add, cache: Path
) -> None:
    add(LINES)
    save(cache, LINES)
    assert demur(monkeypatch, "benchmarks") == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    assert set(BENCHMARKS) <= set(lines)
    assert lines["tiny"].split()[-1] == "yes"
    assert lines["xstest"].split()[1:] == ["450", "paul-rottger/", "CC-BY-4.0", "no"]
    assert lines["both"].split()[1:] == ["38.7", "kB", "exaggerated-safety"]
    assert max(map(len, shown.splitlines())) <= 80
    assert "exaggerated-safety" in shown


def test_the_command_with_a_folder_and_json(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    add: Add,
    tmp_path: Path,
) -> None:
    benchmark = add(LINES)
    folder = save(tmp_path / "mine", LINES)
    save(folder, b"other", "xstest.csv")
    assert demur(monkeypatch, "benchmarks", "--benchmark-dir", folder, "--format", "json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(BENCHMARKS)
    states = {name: row["state"] for name, row in rows.items() if row["state"] != "missing"}
    assert states == {"tiny": "ready", "xstest": "wrong SHA-256"}
    assert rows["tiny"]["address"] == benchmark_address(benchmark)
    assert rows["tiny"]["size"] == len(LINES)
    assert demur(monkeypatch, "benchmarks", "--benchmark-dir", folder) == 0
    assert "wrong SHA-256" in capsys.readouterr().out


def test_the_command_without_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert demur(monkeypatch, "benchmarks", "--benchmark-dir", tmp_path / "none") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "There is no folder" in shown.err
