"""The loop that trains a prompt, and the objective, through what they do to an objective's rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from demur.chat import ChatModel, Condition
from demur.chat.engine import PartialLoss
from demur.geometry import LossWeights, estimate_directions
from demur.optimization.dro import DirectedRepresentation
from demur.optimization.training import TrainingSettings, train_prompt
from demur.progress import SilentProgress
from demur.prompts import SafetyPrompt
from demur.runs import Queries, RunFolder
from tests.tiny import save_tiny_model

HARMFUL = tuple(f"w{10 + row} w7 ?" for row in range(12))
HARMLESS = tuple(f"w{10 + row} w8 ?" for row in range(12))
ANCHORS = Queries(HARMFUL + HARMLESS, (True,) * 12 + (False,) * 12)


class Recording:
    """An objective that pulls to zero and notes which rows it was asked about."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def losses(
        self, representations: Tensor, rows: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.rows += rows
        losses = representations.square().mean(1)
        return losses, {"size": losses}


def settings(*, balanced: bool, epochs: int = 1, averaged: bool = False) -> TrainingSettings:
    return TrainingSettings(epochs, 8, 1e-3, False, 1.0, balanced, averaged, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return ChatModel.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


CONDITION = Condition(SafetyPrompt("basic", "w1 w2 w3 w4"))


def test_balanced_batches_hold_whole_pairs(model: ChatModel, tmp_path: Path) -> None:
    seen = Recording()
    folder = RunFolder.start(tmp_path / "run", {})
    train_prompt(model, ANCHORS, CONDITION, seen, settings(balanced=True), SilentProgress(), folder)
    assert sorted(seen.rows) == list(range(24))
    for start in (0, 8, 16):
        batch = seen.rows[start : start + 8]
        harmful = sorted(row for row in batch if row < 12)
        assert sorted(row - 12 for row in batch if row >= 12) == harmful
    assert sorted(seen.rows[:8]) != [0, 1, 2, 3, 12, 13, 14, 15]


def test_training_in_parts_is_training_at_once(model: ChatModel, tmp_path: Path) -> None:
    chosen = settings(balanced=False, epochs=3, averaged=True)
    whole = train_prompt(
        model,
        ANCHORS,
        CONDITION,
        Recording(),
        chosen,
        SilentProgress(),
        RunFolder.start(tmp_path / "whole", {}),
    )
    folder = RunFolder.start(tmp_path / "parts", {})
    for until in (1, 3):
        parts = train_prompt(
            model, ANCHORS, CONDITION, Recording(), chosen, SilentProgress(), folder, until
        )
        assert len(parts.history) == until
    assert torch.equal(parts.embeddings, whole.embeddings)
    assert torch.equal(parts.last, whole.last)
    assert parts.history == whole.history


def test_the_averaged_prompt_goes_where_the_mean_over_the_steps_lies_as_far_as_the_last_one(
    model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    gradient = ChatModel.prompt_gradient

    def watched(
        self: ChatModel,
        queries: Sequence[str],
        condition: Condition,
        prompt: Tensor,
        loss: PartialLoss,
    ) -> tuple[float, Tensor]:
        seen.append(prompt.detach().clone())
        return gradient(self, queries, condition, prompt, loss)

    monkeypatch.setattr(ChatModel, "prompt_gradient", watched)
    found = train_prompt(
        model,
        ANCHORS,
        CONDITION,
        Recording(),
        settings(balanced=True, epochs=2, averaged=True),
        SilentProgress(),
        RunFolder.start(tmp_path / "run", {}),
    )
    after = [*seen[1:], found.last]
    assert len(after) == 6
    start, mean = seen[0], torch.stack(after).mean(0)
    stretch = float((found.last - start).norm() / (mean - start).norm())
    assert stretch > 1
    torch.testing.assert_close(found.embeddings, start + stretch * (mean - start))
    assert not torch.equal(found.embeddings, found.last)


def test_harmless_queries_weigh_what_they_are_told_to() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20, 8, generator=generator)
    labels = torch.tensor([1.0, 0.0] * 10)
    directions = estimate_directions(start, labels, labels, components=2, folds=2, seed=0)
    moved = start + 0.1
    plain = DirectedRepresentation(directions, start, labels, LossWeights())
    tilted = DirectedRepresentation(directions, start, labels, LossWeights(), weight_harmless=3.0)
    rows = list(range(20))
    expected, terms = plain.losses(moved, rows)
    found, same = tilted.losses(moved, rows)
    torch.testing.assert_close(found, expected * torch.tensor([1.0, 3.0] * 10))
    assert all(torch.equal(terms[name], same[name]) for name in terms)
