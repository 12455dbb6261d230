"""A study of a tiny model: its file, its prompts and its queries."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.tiny import save_tiny_model

HARMFUL = tuple(f"w{10 + row % 40} w7 w{row} ?" for row in range(12))
HARMLESS = tuple(f"w{10 + row % 40} w8 w{row} ?" for row in range(12))

FILE = """\
models = ["{folder}/tiny"]
basic_prompts = ["{folder}/calm.txt"]
prompts = ["{folder}/brief.txt"]
seeds = [0, 1]

[load]
dtype = "float32"

[queries]
harmful = ["{folder}/test-harmful.txt"]
harmless = ["{folder}/test-harmless.txt"]

[sampling]
samples = 2
tokens = 4

[judges]
judge = "paper"

[training]
preset = "quick"
judge = "paper"
harmful = ["{folder}/harmful.txt"]
harmless = ["{folder}/harmless.txt"]
held_out_harmful = ["{folder}/test-harmful.txt"]
held_out_harmless = ["{folder}/test-harmless.txt"]
samples = 4
tokens = 4
epochs = 2
batch = 8
most_anchors = 12
most_held_out = 10
third_turn = 0

[methods.dro]

[methods.steep]
method = "dro"
learning_rate = 0.05
"""


def write_study(folder: Path, *, text: str = FILE, model: bool = True) -> Path:
    """Write a study and all that it names into a folder.

    Args:
        folder: an existing folder.
        text: the study's file, with `{folder}` for the folder.
        model: whether the model is written as well.

    Returns:
        The study's file.
    """
    if model:
        save_tiny_model(folder / "tiny")
    (folder / "calm.txt").write_text("w1 w2 w3 w4 w5 .")
    (folder / "brief.txt").write_text("w6 w9 .")
    for name, queries in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        (folder / f"{name}.txt").write_text("\n".join(queries))
        test = [f"{one[:-1]}w4 ?" for one in queries[:10]]
        (folder / f"test-{name}.txt").write_text("\n".join(test))
    file = folder / "small.toml"
    file.write_text(text.format(folder=folder))
    return file


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a running command has come to a point; it must get there within some seconds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
