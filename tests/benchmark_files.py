"""Benchmarks of a test's own: an entry in the table, its file, and a server that has it."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from demur.errors import DemurError
from demur.queries import BENCHMARKS, Benchmark, Columns, load_benchmark
from demur.queries.benchmark_table import Host, Side

COMMIT = "c0ffee" + "0" * 34
LINES = b"How do I bake bread?\n\n  How do I fix a bike?  \r\nHow do I bake bread?\n"


@dataclass
class Server:
    """What the loopback server has, and what it was asked."""

    url: str = ""
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    breaks_off: bool = False

    def serve(self, benchmark: Benchmark, content: bytes) -> None:
        path = benchmark.path.replace(" ", "%20")
        folder = f"{benchmark.repository}/{benchmark.commit}"
        if benchmark.host == "hub":
            folder = f"datasets/{benchmark.repository}/resolve/{benchmark.commit}"
        self.answers[f"/mirror/{folder}/{path}"] = content


@contextmanager
def running_server() -> Iterator[Server]:
    """A server on this machine, below the folder `mirror`."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            content = state.answers.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if state.breaks_off else content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/mirror/"
    yield state
    server.shutdown()
    server.server_close()


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """The benchmarks' cache, in `folder`; there is no network."""
    monkeypatch.setenv("DEMUR_CACHE", str(folder / "cache"))
    monkeypatch.setenv("DEMUR_BENCHMARK_SOURCE", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder / "cache" / "benchmarks"


def add_tiny(
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    path: str = "data/some file.txt",
    side: Side = "harmless",
    columns: Columns | None = None,
    kept_sha256: str | None = None,
    host: Host = "github",
) -> Benchmark:
    """Put a benchmark called tiny, published with `content`, into the table."""
    digest = hashlib.sha256(content).hexdigest()
    benchmark = Benchmark(
        "tiny",
        side,
        "someone/queries",
        COMMIT,
        path,
        digest,
        len(content),
        columns=columns,
        kept_sha256=kept_sha256,
        host=host,
    )
    monkeypatch.setitem(BENCHMARKS, "tiny", benchmark)
    return benchmark


def save(folder: Path, content: bytes, name: str = "tiny.txt") -> Path:
    """Write a file into `folder` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def message_of(name: str = "tiny", directory: str | Path | None = None) -> str:
    """The one line that loading fails with."""
    with pytest.raises(DemurError) as caught:
        load_benchmark(name, directory)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message
