"""One epoch of every method on a tiny model, small enough to be done again on a divided one.

Run as a script, it trains a prompt of each method that is named, in a folder of that name:

    torchrun --nproc-per-node 2 -m tests.each_method MODEL FOLDER METHOD ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from demur import ChatModel, Run, SafetyPrompt, optimize
from demur.progress import SilentProgress

OWN: dict[str, dict[str, Any]] = {"dro": {"anchor_prompts": ()}}
"""Settings of one method alone."""


class Even:
    """Refuses where the first word of a response has an even number."""

    name = "even"
    fingerprint = "even"

    def judge(
        self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
    ) -> list[bool | None]:
        first = [(one.split() or ["1"])[0].strip("w.?") for one in responses]
        return [one[-1:] in "02468" for one in first]


def queries(word: str, more: str = "") -> list[str]:
    """Twelve queries with a word in common."""
    return [f"w{10 + row} {word} w{row} {more} ?" for row in range(12)]


def trained(model: ChatModel, method: str, folder: Path) -> Run:
    """A run of one epoch."""
    return optimize(
        model,
        basic_prompt=SafetyPrompt("basic", "w1 w2 w3 w4 w5 ."),
        harmful=queries("w7"),
        harmless=queries("w8"),
        validation_harmful=queries("w7", "w3"),
        validation_harmless=queries("w8", "w3"),
        held_out_harmful=queries("w7", "w4"),
        held_out_harmless=queries("w8", "w4"),
        judge=Even(),
        method=method,
        preset="quick",
        samples=2,
        tokens=4,
        third_turn=0,
        epochs=1,
        learning_rate=0.05,
        output=folder,
        progress=SilentProgress(),
        **OWN.get(method, {}),
    )


def assert_same_training(run: Run, plain: Run) -> None:
    """Two runs trained the same prompt, and it is not the one that they began with."""
    found, expected = run.safety_prompt.embeddings, plain.safety_prompt.embeddings
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert abs(run.history[-1].loss - plain.history[-1].loss) < 1e-4 * abs(plain.history[-1].loss)
    assert [(one.prompt, one.label, str(one.refused)) for one in run.comparison.rates] == [
        (one.prompt, one.label, str(one.refused)) for one in plain.comparison.rates
    ]


def main() -> None:
    """Train with each method on one model."""
    name, folder, *methods = sys.argv[1:]
    model = ChatModel.load(name, dtype="float32", device="cpu")
    for method in methods:
        trained(model, method, Path(folder) / method)


if __name__ == "__main__":
    main()
