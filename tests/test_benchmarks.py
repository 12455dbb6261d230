"""Where the files of benchmarks come from: a server that runs here, the cache, a folder."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from demur.errors import DemurError
from demur.queries import (
    BENCHMARKS,
    Benchmark,
    Columns,
    QuerySet,
    benchmark_address,
    benchmark_state,
    load_benchmark,
)
from tests.benchmark_files import (
    COMMIT,
    LINES,
    Server,
    add_tiny,
    isolate,
    message_of,
    running_server,
    save,
)

Add = Callable[..., Benchmark]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return isolate(monkeypatch, tmp_path)


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    return partial(add_tiny, monkeypatch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running_server() as state:
        monkeypatch.setenv("DEMUR_BENCHMARK_SOURCE", state.url)
        yield state


# --- Fetching ---------------------------------------------------------------------------------


def test_fetched_once_then_read_from_the_cache(
    server: Server, add: Add, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = add(LINES)
    server.serve(benchmark, LINES)
    assert benchmark_state("tiny") == "missing"
    expected = QuerySet("tiny", "harmless", ("How do I bake bread?", "How do I fix a bike?"))
    for _ in range(3):
        assert load_benchmark("tiny") == (expected,)
    assert server.asked == [f"/mirror/someone/queries/{COMMIT}/data/some%20file.txt"]
    assert [path.name for path in cache.iterdir()] == ["tiny.txt"]
    assert (cache / "tiny.txt").read_bytes() == LINES
    assert benchmark_state("tiny") == "ready"
    assert capsys.readouterr() == ("", "")


def test_progress_adds_up_to_the_size(server: Server, add: Add) -> None:
    content = b"\n".join(b"Query %d?" % number for number in range(5000))
    benchmark = add(content)
    server.serve(benchmark, content)
    stages: dict[tuple[str, float, str], float] = {}

    class Stage:
        def __init__(self, key: tuple[str, float, str]) -> None:
            self.key = key

        def __enter__(self) -> Stage:
            stages[self.key] = 0
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def advance(self, amount: float = 1) -> None:
            assert amount >= 0
            stages[self.key] += amount

        def note(self, text: str) -> None:
            pass

    class Recorder:
        def plan(self, stages: object) -> None:
            pass

        def stage(self, description: str, total: float, unit: str = "") -> Stage:
            return Stage((description, total, unit))

        def message(self, text: str) -> None:
            pass

    (queries,) = load_benchmark("tiny", progress=Recorder())
    assert len(queries) == 5000
    assert stages == {("Fetching tiny", len(content), "bytes"): len(content)}
    stages.clear()
    load_benchmark("tiny", progress=Recorder())
    assert stages == {}


def test_a_damaged_file_in_the_cache_is_fetched_again(
    server: Server, add: Add, cache: Path
) -> None:
    benchmark = add(LINES)
    server.serve(benchmark, LINES)
    save(cache, LINES[:-3])
    assert benchmark_state("tiny") == "wrong SHA-256"
    assert len(load_benchmark("tiny")[0]) == 2
    assert (cache / "tiny.txt").read_bytes() == LINES


def test_wrong_bytes_name_both_hashes_and_leave_nothing(
    server: Server, add: Add, cache: Path
) -> None:
    benchmark = add(LINES)
    other = b"<html>please log in</html>"
    server.serve(benchmark, other)
    message = message_of()
    assert hashlib.sha256(other).hexdigest()[:12] in message
    assert benchmark.sha256[:12] in message
    assert "get that file again" in message
    assert list(cache.iterdir()) == []
    server.serve(benchmark, LINES)
    assert len(load_benchmark("tiny")[0]) == 2


def test_a_wrong_download_leaves_a_damaged_file_unused(
    server: Server, add: Add, cache: Path
) -> None:
    benchmark = add(LINES)
    server.serve(benchmark, b"other")
    save(cache, b"damaged")
    assert "SHA-256" in message_of()
    assert benchmark_state("tiny") == "wrong SHA-256"


def test_a_connection_that_breaks_off_leaves_nothing(server: Server, add: Add, cache: Path) -> None:
    benchmark = add(LINES)
    server.serve(benchmark, LINES)
    server.breaks_off = True
    message = message_of()
    assert "broke off" in message or "SHA-256" in message
    assert list(cache.iterdir()) == []


def test_offline_says_what_to_do(add: Add, cache: Path) -> None:
    benchmark = add(LINES)
    message = message_of()
    assert "(no connection)" in message
    assert benchmark_address(benchmark) in message
    assert "--benchmark-dir DIR" in message
    assert "DIR/tiny.txt" in message
    assert not list(cache.iterdir())


def test_a_file_that_is_gone_names_the_status(server: Server, add: Add) -> None:
    add(LINES)
    message = message_of()
    assert "status 404" in message
    assert "--benchmark-dir" in message


@pytest.mark.parametrize("source", ["ftp://host", "/tmp", "host", "doi:10.1/2", "file:///tmp"])
def test_a_source_that_is_no_web_server(
    add: Add, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    add(LINES)
    monkeypatch.setenv("DEMUR_BENCHMARK_SOURCE", source)
    message = message_of()
    assert "DEMUR_BENCHMARK_SOURCE" in message
    assert repr(source) in message


@pytest.mark.parametrize("source", ["http://", "http://[", "http://host:port"])
def test_a_source_that_is_malformed(add: Add, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    add(LINES)
    monkeypatch.setenv("DEMUR_BENCHMARK_SOURCE", source)
    assert "Cannot fetch benchmark 'tiny'" in message_of()


def test_the_address_without_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_BENCHMARK_SOURCE")
    assert benchmark_address(BENCHMARKS["advbench"]) == (
        "https://raw.githubusercontent.com/chujiezheng/LLM-Safeguard/"
        "410bfb5c5ae9c17cd73da74a6e648958fd3181cb/code/data/advbench.txt"
    )


def test_data_sets_on_the_hub(
    server: Server, add: Add, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"Index,Goal,Category\n0,How do I fix a chair?,Home\n1,How do I bake?,Food\n"
    columns = Columns("Goal", category="Category")
    benchmark = add(content, "data/benign.csv", "borderline", columns, host="hub")
    server.serve(benchmark, content)
    (found,) = load_benchmark("tiny")
    assert found.texts == ("How do I fix a chair?", "How do I bake?")
    assert (found.label, found.categories) == ("harmless", ("Home", "Food"))
    asked = "/mirror/datasets/someone/queries/resolve/c0ffee0"
    assert server.asked[0].startswith(asked)
    assert server.asked[0].endswith("/data/benign.csv")
    # Another file at the same address is never read.
    (cache / "tiny.csv").unlink()
    server.serve(benchmark, content.replace(b"bake", b"cook"))
    assert "has the SHA-256" in message_of()
    assert not (cache / "tiny.csv").exists()
    monkeypatch.delenv("DEMUR_BENCHMARK_SOURCE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: unset it" in message_of()


def test_the_address_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_BENCHMARK_SOURCE")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert benchmark_address(BENCHMARKS["jailbreakbench-benign"]) == (
        "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors/resolve/"
        "886acc352a31533ffbcf4ef22c744658688086fc/data/benign-behaviors.csv"
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/hub/")
    assert benchmark_address(BENCHMARKS["or-bench-hard"]) == (
        "http://127.0.0.1:9/hub/datasets/bench-llm/or-bench/resolve/"
        "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272/or-bench-hard-1k.csv"
    )


def test_a_cache_that_cannot_be_made_says_so(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(LINES)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "file"))
    assert "point DEMUR_CACHE at another folder" in message_of()


def test_a_full_disk_says_so_and_leaves_nothing(
    server: Server, add: Add, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    benchmark = add(LINES)
    server.serve(benchmark, LINES)
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    message = message_of()
    assert "No space left on device" in message
    assert "DEMUR_CACHE" in message
    assert list(cache.iterdir()) == []


# --- From a folder ----------------------------------------------------------------------------


def test_a_folder_serves_without_fetching(
    server: Server, add: Add, cache: Path, tmp_path: Path
) -> None:
    add(LINES)
    folder = save(tmp_path / "mine", LINES)
    assert benchmark_state("tiny", folder) == "ready"
    assert len(load_benchmark("tiny", folder)[0]) == 2
    assert load_benchmark("tiny", str(folder)) == load_benchmark("tiny", folder)
    assert server.asked == []
    assert not cache.exists()


def test_a_file_missing_from_the_folder(add: Add, tmp_path: Path, server: Server) -> None:
    benchmark = add(LINES)
    server.serve(benchmark, LINES)
    message = message_of(directory=tmp_path)
    assert f"no file {str(tmp_path / 'tiny.txt')!r}" in message
    assert benchmark_address(benchmark) in message
    assert server.asked == []


def test_a_file_in_the_folder_with_other_content(add: Add, tmp_path: Path) -> None:
    benchmark = add(LINES)
    other = LINES.replace(b"\n", b"\r\n")
    message = message_of(directory=save(tmp_path, other))
    for part in (
        str(tmp_path / "tiny.txt"),
        hashlib.sha256(other).hexdigest()[:12],
        benchmark.sha256[:12],
        f"{len(LINES)} bytes",
    ):
        assert part in message
    assert (tmp_path / "tiny.txt").read_bytes() == other  # the user's file stays


def test_no_folder_and_a_folder_in_the_place_of_the_file(add: Add, tmp_path: Path) -> None:
    add(LINES)
    assert "There is no folder" in message_of(directory=tmp_path / "none")
    (tmp_path / "tiny.txt").mkdir()
    assert "is a folder" in message_of(directory=tmp_path)
    with pytest.raises(DemurError, match="There is no folder"):
        benchmark_state("tiny", tmp_path / "none")


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("malicious-instruct", "malicious_instruct"),
        ("dro-harmful-train", "dro_harmful_train"),
        ("dro-harmless-train", "dro_harmless_train"),
        ("dro-harmless-heldout", "dro_harmless_heldout"),
    ],
)
def test_published_files_load(
    name: str, file: str, server: Server, reference: Path, tmp_path: Path
) -> None:
    """Through the real download path, with the published bytes and hashes."""
    content = (reference / f"queries/{file}.txt").read_bytes()
    benchmark = BENCHMARKS[name]
    server.serve(benchmark, content)
    (fetched,) = load_benchmark(name)
    assert (fetched.name, fetched.label, len(fetched)) == (name, benchmark.side, 100)
    assert (fetched,) == load_benchmark(name, save(tmp_path, content, benchmark.file_name))
