"""Public benchmarks: fetched once, believed by their SHA-256, never part of the package."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from demur.bars import default_progress
from demur.errors import DemurError
from demur.files import cache_directory, read_bytes
from demur.hub.failures import endpoint, is_offline
from demur.progress import Progress, Stage
from demur.queries.benchmark_rows import kept_content, parse_benchmark
from demur.queries.benchmark_table import Benchmark, find_benchmark
from demur.queries.query_set import QuerySet
from demur.reading import exists

if TYPE_CHECKING:
    import requests

#: Where files of repositories on GitHub are served, unless `DEMUR_BENCHMARK_SOURCE` names a mirror.
SOURCE = "https://raw.githubusercontent.com"

_TIMEOUT = (10, 30)  # seconds to connect, seconds between two pieces
_CHUNK = 1 << 14
_MORE_BYTES = 1 << 20  # that a file may have above its size before it is no longer read

BenchmarkState = Literal["ready", "missing", "wrong SHA-256"]


def load_benchmark(
    name: str, directory: str | Path | None = None, progress: Progress | None = None
) -> tuple[QuerySet, ...]:
    """Load the queries of a public benchmark.

    Args:
        name: a name in `BENCHMARKS`.
        directory: a folder with the file under the benchmark's `file_name`; nothing is fetched
            then. By default the file comes from the cache, and is fetched into it the first time.
        progress: told about the bytes of a download.

    Returns:
        One set a side, each called `name`: for a benchmark with both sides the harmful queries,
        then the harmless ones. Queries keep their order, stripped of surrounding white space,
        blanks and repeats dropped. `categories` is set where the file has them.

    Raises:
        DemurError: `name` is unknown, the file cannot be fetched, is missing from `directory`, has
            another SHA-256 than the published one, or is not what the table of benchmarks says.
    """
    benchmark = find_benchmark(name)
    if directory is None:
        file = _fetch(benchmark, progress or default_progress())
    else:
        file = _benchmark_folder(directory) / benchmark.file_name
    content = _read(file, benchmark)
    if _sha256(content) != benchmark.kept_sha256:
        _verify(content, benchmark, str(file))
    return parse_benchmark(content, file, benchmark)


def benchmark_state(name: str, directory: str | Path | None = None) -> BenchmarkState:
    """Whether the cache, or `directory` where it is given, has a benchmark's file as published.

    Raises:
        DemurError: `name` is unknown, or `directory` is no folder.
    """
    benchmark = find_benchmark(name)
    folder = _cache() if directory is None else _benchmark_folder(directory)
    file = folder / benchmark.file_name
    if not exists(file):
        return "missing"
    try:
        content = read_bytes(file, benchmark.size + _MORE_BYTES)
    except DemurError:  # of another kind or size
        return "wrong SHA-256"
    # Of a file with answers, the cache must not keep more than the queries.
    known = (benchmark.sha256, benchmark.kept_sha256) if directory else (_kept(benchmark),)
    return "ready" if _sha256(content) in known else "wrong SHA-256"


def benchmark_address(benchmark: Benchmark) -> str:
    """The address of a benchmark's file, on the host that `DEMUR_BENCHMARK_SOURCE` names if set.

    By default that is GitHub, or for a data set on the hub `HF_ENDPOINT` or the hub itself.

    Raises:
        DemurError: `DEMUR_BENCHMARK_SOURCE` is not the address of a web server.
    """
    on_hub = benchmark.host == "hub"
    source = os.environ.get("DEMUR_BENCHMARK_SOURCE") or (endpoint() if on_hub else SOURCE)
    if not source.startswith(("https://", "http://")):
        raise DemurError(
            f"DEMUR_BENCHMARK_SOURCE is {source!r}: give an address that starts with https://, "
            f"or unset it to use {SOURCE}"
        )
    path = f"{benchmark.repository}/{benchmark.commit}/{benchmark.path}"
    if on_hub:
        path = f"datasets/{benchmark.repository}/resolve/{benchmark.commit}/{benchmark.path}"
    return f"{source.rstrip('/')}/{quote(path)}"


def _cache() -> Path:
    return cache_directory() / "benchmarks"


def _benchmark_folder(directory: str | Path) -> Path:
    folder = Path(directory)
    if not folder.is_dir():
        raise DemurError(
            f"There is no folder {str(folder)!r}: name the one that the files of benchmarks are in."
        )
    return folder


def _fetch(benchmark: Benchmark, progress: Progress) -> Path:
    """The file in the cache, fetched if it is missing there or damaged."""
    folder = _cache()
    file = folder / benchmark.file_name
    if benchmark_state(benchmark.name) == "ready":
        return file
    import requests  # what pooch downloads with
    from pooch import HTTPDownloader, retrieve

    address = benchmark_address(benchmark)
    if benchmark.host == "hub" and is_offline() and "DEMUR_BENCHMARK_SOURCE" not in os.environ:
        raise DemurError(
            f"Benchmark {benchmark.name!r} is on the hub, and HF_HUB_OFFLINE is set: unset it, or "
            f"get {address} elsewhere, save it as DIR/{benchmark.file_name} and give "
            "--benchmark-dir DIR."
        )
    with progress.stage(f"Fetching {benchmark.name}", benchmark.size, "bytes") as stage:
        download = HTTPDownloader(
            progressbar=_Bar(stage, benchmark.size), chunk_size=_CHUNK, timeout=_TIMEOUT
        )

        def download_and_verify(url: str, output: str, pooch: object) -> None:
            received = io.BytesIO()
            download(url, received, pooch)
            content = received.getvalue()
            # pooch would notice as well, with a message that does not say how to fix it.
            _verify(content, benchmark, address)
            Path(output).write_bytes(kept_content(content, benchmark))

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _quiet_pooch():
                retrieve(
                    address,
                    known_hash=f"sha256:{_kept(benchmark)}",
                    fname=benchmark.file_name,
                    path=folder,
                    downloader=download_and_verify,
                )
        except requests.RequestException as error:
            raise DemurError(
                f"Cannot fetch benchmark {benchmark.name!r} from {address} ({_reason(error)}): "
                f"connect to that host, or get this file elsewhere, save it as "
                f"DIR/{benchmark.file_name} and give --benchmark-dir DIR."
            ) from error
        except OSError as error:
            raise DemurError(
                f"Cannot keep benchmark {benchmark.name!r} in {str(folder)!r} "
                f"({error.strerror or error}): fix that, or point DEMUR_CACHE at another folder."
            ) from error
    return file


def _reason(error: requests.RequestException) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"it answers with status {error.response.status_code}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be verified"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy lets nothing through"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


class _Bar:
    """The progress bar that pooch wants, drawn by a `Stage`.

    pooch counts the last chunk as a full one and then starts again from nothing; what goes beyond
    the size is dropped.
    """

    def __init__(self, stage: Stage, size: int) -> None:
        self.total = size
        self._stage = stage
        self._left = size
        self._more = _MORE_BYTES

    def update(self, amount: int) -> None:
        self._more -= max(0, amount - self._left)
        if self._more < 0:
            raise DemurError(
                f"The benchmark has {self.total} bytes and the server sends more: check "
                "DEMUR_BENCHMARK_SOURCE."
            )
        amount = min(amount, self._left)
        self._left -= amount
        self._stage.advance(amount)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Without pooch's own lines on the terminal: the stage says the same."""
    from pooch import get_logger

    logger = get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _read(file: Path, benchmark: Benchmark) -> bytes:
    if not exists(file):
        raise DemurError(
            f"There is no file {str(file)!r}: save {benchmark_address(benchmark)} under that name."
        )
    return read_bytes(file, benchmark.size + _MORE_BYTES)


def _kept(benchmark: Benchmark) -> str:
    """SHA-256 of the file in the cache."""
    return benchmark.kept_sha256 or benchmark.sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _verify(content: bytes, benchmark: Benchmark, place: str) -> None:
    digest = _sha256(content)
    if digest != benchmark.sha256:
        raise DemurError(
            f"{place} has the SHA-256 {digest[:12]}... instead of {benchmark.sha256[:12]}...: "
            f"it is not {benchmark.path} as {benchmark.repository} published it at commit "
            f"{benchmark.commit[:12]}; get that file again, unchanged ({benchmark.size} bytes)."
        )
