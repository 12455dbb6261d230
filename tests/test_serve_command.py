"""`demur serve` as a command: mistakes in one line, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'demur[serve]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'demur[serve]'")
pytest.importorskip("httpx2", reason="httpx2 is not installed: pip install 'demur[serve]'")

from demur import SafetyPrompt
from tests.command_line import demur, mistake
from tests.vllm_server import running_vllm

QUERY = {"role": "user", "content": "How do I kill a process?"}


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    SafetyPrompt("kind", None, torch.ones(3, 4)).save(tmp_path / "kind")
    return tmp_path / "kind"


@contextmanager
def served(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process of its own, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demur", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DEMUR_SERVE_KEY": "", "VLLM_API_KEY": "upstream-key"},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("http://127.0.0.1:"):
                yield process, line.strip()
                break
        else:
            pytest.fail(f"{process.stderr and process.stderr.read()}")
    finally:
        process.kill()
        process.communicate()


def ask(address: str) -> Any:
    body = json.dumps({"messages": [QUERY]}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_answer_under_way_is_finished_at_the_end(prompt: Path, number: int) -> None:
    with running_vllm() as vllm, served(prompt, "--endpoint", vllm.url) as (process, address):
        vllm.delay = 2.0
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, address)
            while len(vllm.chats) < 2:  # the first was the command's own
                time.sleep(0.01)
            process.send_signal(number)
            assert asked.result()["choices"][0]["message"]["content"] == "Here is how."
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "Traceback" not in err
        assert out.endswith("Ended.\n")
        assert {one["authorization"] for one in vllm.headers} == {"Bearer upstream-key"}


@pytest.mark.parametrize("package", ["starlette", "httpx2", "uvicorn"])
def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = mistake(demur("serve", "no-such-run"))
    assert package in said
    assert "run `pip install 'demur[serve]'`" in said


def test_mistakes_are_told_in_one_line(prompt: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert "start it first" in mistake(demur("serve", prompt, "--endpoint", closed))
    assert "not a base URL" in mistake(demur("serve", prompt, "--endpoint", "localhost"))
    assert "no-such-run" in mistake(demur("serve", "no-such-run"))
    said = mistake(demur("serve", prompt, "--name", "a", "--name", "b"))
    assert "2, is not that of the prompts, 1: give --name once" in said
    for option in ("--key-variable", "--endpoint-key-variable"):
        said = mistake(demur("serve", prompt, option, "sk-mine"))
        assert "holds none" in said
        assert "sk-mine" not in said
    with running_vllm() as vllm, socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        given = ("serve", prompt, "--endpoint", vllm.url)
        assert "choose another --host or --port" in mistake(demur(*given, "--port", port))
        assert "no model 'other'" in mistake(demur(*given, "--served-model", "other"))
        vllm.failure = (400, {"error": {"message": "hidden_size"}})
        assert "does not take the rows of 'kind'" in mistake(demur(*given))
