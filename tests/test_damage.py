"""A finished diagnosis whose files are damaged one at a time: never used, and made again.

Those of a run are in `test_optimize.py`, and those of an evaluation in `test_evaluation_folder.py`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from demur import ChatModel, DemurError, SafetyPrompt, diagnose
from tests.interruption import content
from tests.tiny import save_tiny_model

FILES = [
    *("settings.json", "results.json", "directions.safetensors"),
    *("figures/a-groups.svg", "figures/a-groups.png", "figures/a-groups.csv"),
    *("measurements/*.jsonl", "measurements/*.f32", "measurements/*.journal"),
]
MOST_TRIES = 3


def zero_a_page(data: bytes) -> bytes:
    start = len(data) // 3
    return data[:start] + bytes(min(4096, len(data) - start)) + data[start + 4096 :]


def repeat_a_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    place = len(lines) // 2
    return b"".join([*lines[: place + 1], *lines[place:]])


def drop_a_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[len(lines) // 2]
    return b"".join(lines)


def empty(data: bytes) -> bytes:
    return b""


def delete(data: bytes) -> None:
    """The file is gone."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests keep the finished diagnosis for each other."""
    return tmp_path_factory.mktemp("kept") / "d"


def work(model: ChatModel) -> None:
    diagnose(
        model,
        prompts=[SafetyPrompt("basic", "w1 w2 w3 .")],
        harmful=[f"w{10 + row % 40} w7 w{row} ?" for row in range(12)],
        harmless=[f"w{10 + row % 40} w8 w{row} ?" for row in range(12)],
        probe_queries=40,
        preset="quick",
        samples=2,
        tokens_harmful=2,
        tokens_harmless=2,
        output="d",
    )


def message_of(model: ChatModel) -> str | None:
    """What the work says that it cannot do; None where it does it."""
    try:
        work(model)
    except DemurError as error:
        return str(error)
    return None


@pytest.mark.parametrize("damage", [zero_a_page, repeat_a_line, drop_a_line, empty, delete])
@pytest.mark.parametrize("pattern", FILES)
def test_damage_is_named_or_made_good(
    model: ChatModel,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    damage: Callable[[bytes], bytes | None],
) -> None:
    monkeypatch.chdir(tmp_path)
    if not kept.exists():
        work(model)
        shutil.move("d", kept)
    shutil.copytree(kept, "d")
    whole = content(Path("d"))
    file = sorted(Path("d").glob(pattern))[-1]
    found = damage(file.read_bytes())
    file.unlink()
    if found is not None:
        file.write_bytes(found)
    for _ in range(MOST_TRIES):
        message = message_of(model)
        if message is None:
            break
        told = re.fullmatch(
            r"(\S+) is damaged.*: delete (\S+) and run the command that made it again\.", message
        )
        assert told is not None, message
        named = Path(told[1] if told[2] == "it" else told[2])
        assert named.stem == file.stem
        named.unlink()
    assert content(Path("d")) == whole
