"""Storage URLs: mistakes in them, what a storage refuses, secrets, and one command at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from demur import DemurError, Study
from demur.study import lease
from demur.study.lease import working_alone
from demur.study.storage import Storage, without_secrets
from tests.command_line import demur, mistake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no other command where none is."""
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    monkeypatch.setattr(lease, "_WAIT", 0.02)


MISTAKES = {
    "bucket/studies": "'bucket/studies' is no storage URL: write one, for example s3://BUCKET",
    "file://there": "is no absolute path: write file:///FOLDER",
    "file:///": "names no folder",
    "memroy://x": "There is no storage memroy:// that fsspec knows (did you mean 'memory'?)",
    "s3://key:hunter22@bucket/a": "must hold no password (s3://***@bucket/a)",
    "s3://key:hun/ter22@bucket": "must hold no password (s3://***@bucket)",
    "az://box/a?sig=hunter22": "must end before '?' and '#' (az://box/a)",
    "simplecache::s3://bucket/a": "is no storage URL",
    "s3://bucket/a::zip://b": "is a chain of URLs",
    "file:///a/../b": "has a '..'",
    "file:///a\nb": "is no storage URL",
}


@pytest.mark.parametrize("url", list(MISTAKES))
def test_a_mistake_in_the_url_is_told_before_anything_is_read(url: str) -> None:
    with pytest.raises(DemurError) as raised:
        Study("mine", models=["a"], storage=url).plan()
    said = str(raised.value)
    assert MISTAKES[url] in said
    assert "hunter" not in said
    assert "ter22" not in said
    assert said.endswith(".")


@pytest.mark.parametrize(
    "protocol",
    ["zip", "tar", "data", "dir", "cached", "simplecache", "reference", "generic", "libarchive"],
)
def test_a_storage_of_another_kind_is_told_in_one_line(protocol: str) -> None:
    with pytest.raises(DemurError) as raised:
        Storage(f"{protocol}://here/there").write("x", b"")
    assert "\n" not in str(raised.value)
    assert protocol in str(raised.value)


def test_a_report_needs_no_storage(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    said = mistake(demur("study", tmp_path, "--report", "--storage", url))
    assert "--report reads what is here: leave --storage out" in said


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DemurError, match=r"s3:// needs a package .*s3fs.*install it on each"):
        Storage("s3://bucket/a")


@pytest.mark.parametrize("operation", ["put_file", "pipe_file"])
def test_a_file_is_seen_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    store, file = Storage(f"file://{tmp_path}/there"), tmp_path / "file"
    file.write_bytes(b"content")
    seen: list[bytes | None] = []
    real = getattr(LocalFileSystem, operation)

    def watched(self: LocalFileSystem, *given: Any, **more: Any) -> None:
        real(self, *given, **more)
        seen.append(store.read("files/x"))

    monkeypatch.setattr(LocalFileSystem, operation, watched)
    for before in (None, b"content"):
        if operation == "put_file":
            store.put("files/x", file)
        else:
            store.write("files/x", b"content")
        assert seen.pop() == before
    assert [one.name for one in (tmp_path / "there/files").iterdir()] == ["x"]


def test_secrets_are_left_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    text = "ftp://me:pass/word@host/x https://host/y?sig=abc&x=1' and hunter22"
    assert without_secrets(text) == "ftp://***@host/x https://host/y?***' and ***"

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("hunter22 is not allowed at https://host/y?sig=abc")

    monkeypatch.setattr(LocalFileSystem, "_open", refuse)
    with pytest.raises(DemurError) as raised:
        Storage("file:///somewhere/new").write("x", b"")
    assert "(*** is not allowed at https://host/y?***)" in str(raised.value)


class Heard:
    """Progress that keeps messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_two_commands_work_one_after_the_other(tmp_path: Path) -> None:
    url, order = f"file://{tmp_path}/there", list[str]()
    begun, end = threading.Event(), threading.Event()

    def first() -> None:
        with working_alone(Storage(url), Heard()):  # type: ignore[arg-type]
            begun.set()
            end.wait(20)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(20)
    heard = Heard()

    def release() -> None:
        while not heard.said:
            time.sleep(0.01)
        end.set()

    other = threading.Thread(target=release)
    other.start()
    with working_alone(Storage(url), heard):  # type: ignore[arg-type]
        order.append("second")
    thread.join()
    other.join()
    assert order == ["first", "second"]
    assert len(heard.said) == 1
    assert "Another command works on the study at" in heard.said[0]
    assert not (tmp_path / "there/command.json").exists()


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_command_that_was_killed_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    there = tmp_path / "there"
    there.mkdir()
    name = socket.gethostname() if host == "here" else "elsewhere"
    left = {"command": "x", "host": name, "process": ended.pid, "beats": 3}
    (there / "command.json").write_text(json.dumps(left))
    if host == "elsewhere":
        monkeypatch.setattr(lease, "SILENT", 0.2)
    heard = Heard()
    with working_alone(Storage(f"file://{there}"), heard):  # type: ignore[arg-type]
        assert json.loads((there / "command.json").read_text())["process"] == os.getpid()
    assert len(heard.said) == (host == "elsewhere")
