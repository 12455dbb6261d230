"""Real servers on loopback, each with an export: the evaluation of what they serve."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demur import ChatModel, Comparison, SafetyPrompt, Server, evaluate
from demur.evaluation.answerers.server import AS_SERVED
from demur.exports import export
from demur.records import text_of
from tests.real_models import load_real_model

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

QUERIES = 30
SECONDS_TO_START = 120


@contextmanager
def llama_cpp(export_folder: Path) -> Iterator[str]:
    """A GGUF export in llama.cpp's server."""
    library: Any = pytest.importorskip(
        "xllamacpp", reason="llama.cpp is not installed: pip install 'demur[engines]'"
    )
    settings = library.CommonParams()
    settings.model.path = str(next(export_folder.glob("*.gguf")))
    settings.n_ctx, settings.use_jinja, settings.port = 2048, True, _free_port()
    settings.cpuparams.n_threads = 1  # llama.cpp's threads spin while another process has the core
    server = library.Server(settings)
    yield f"{server.listening_address}/v1"


@contextmanager
def transformers_serve(export_folder: Path) -> Iterator[str]:
    """A transformers export behind `transformers serve`, which has nothing of demur in it."""
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        pytest.skip("transformers serve is not installed: pip install 'demur[engines]'")
    port = _free_port()
    command = ["-m", "transformers.cli.transformers", "serve", str(export_folder)]
    options = ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    server = subprocess.Popen(
        [sys.executable, *command, *options], env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    try:
        _wait(f"http://localhost:{port}/health", server)
        yield f"http://localhost:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(SECONDS_TO_START):
        assert server.poll() is None, "the server stopped"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"{address} did not answer within {SECONDS_TO_START} s")


Trained = tuple[ChatModel, Path, Comparison, dict[str, Any]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model, a trained prompt (the rows of a text), and its evaluation in process."""
    place = tmp_path_factory.mktemp("served")
    model = load_real_model("smollm2-135m", dtype="float32")
    text = "If a request could hurt somebody, say only: I'm sorry, but I can't help with that."
    rows = model.prompt_embeddings(SafetyPrompt("text", text))
    SafetyPrompt("trained", text, rows).save(place / "prompt")
    from demur import load_query_set

    sets: dict[str, Any] = {"tokens": 24, "judge": "paper"}
    for label in ("harmful", "harmless"):
        file = place / f"{label}.txt"
        file.write_text("\n".join(map(text_of, load_query_set("held-out", label).head(QUERIES))))
        sets[label] = str(file)
    inside = evaluate(model, prompts=[place / "prompt"], output=place / "inside", **sets)
    return model, place, inside, sets


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("to", "open_server"), [("gguf", llama_cpp), ("transformers", transformers_serve)]
)
def test_a_served_export_refuses_as_the_model_in_process(
    measured: Trained, to: str, open_server: Any
) -> None:
    model, place, inside, sets = measured
    done = export(place / "prompt", to, place / to, model=model)
    with open_server(done.path) as address:
        served_model = str(done.path) if to == "transformers" else None
        server = Server(address, served_model, concurrency=2)
        outside = evaluate(server, output=place / f"out-{to}", **sets)
    for label in ("harmful", "harmless"):
        here = inside.find("prompt", label=label).refused
        there = outside.find(AS_SERVED, label=label).refused
        assert here is not None
        assert there is not None
        assert here.interval.low <= there.interval.high
        assert there.interval.low <= here.interval.high
        assert there.queries == QUERIES
