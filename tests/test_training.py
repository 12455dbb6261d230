"""The loop that trains a prompt, through what it asks of a method and what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from demur import ChatModel, DemurError
from demur.chat import Read
from demur.judges import PaperRefusalJudge
from demur.optimization import OptimizeSettings
from demur.optimization.checkpoints import Checkpoints
from demur.optimization.groups import TrainingSettings
from demur.optimization.loop import TrainedPrompt, train
from demur.optimization.methods import (
    Context,
    Losses,
    Method,
    MethodSettings,
    TrainingExample,
)
from demur.optimization.validation import Validation
from demur.progress import Progress, SilentProgress, Stage
from demur.prompts import Condition, SafetyPrompt
from demur.records import Measurement, Queries
from tests.telling import Telling
from tests.tiny import save_tiny_model

HARMFUL = tuple(f"w{10 + row} w7 ?" for row in range(12))
HARMLESS = tuple(f"w{10 + row} w8 ?" for row in range(12))
ANCHORS = Queries(
    "anchors", HARMFUL + HARMLESS, ("harmful",) * 12 + ("harmless",) * 12, (None,) * 24
)
CONDITION = Condition(SafetyPrompt("basic", "w1 w2 w3 w4"))


class Recording(Method[MethodSettings]):
    """Pulls to a point that moves after each epoch, and notes what it is asked."""

    name = "recording"
    title = "Pull to a point"
    terms: ClassVar = {"size": "mean square of the distance"}

    def __init__(self, settings: MethodSettings | None = None) -> None:
        super().__init__(settings or MethodSettings())
        self.rows: list[int] = []
        self.batches: list[list[int]] = []
        self.told: list[tuple[int, Tensor]] = []
        self.point = 0.0

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        return [
            TrainingExample(text, label)
            for text, label in zip(context.anchors.texts, context.anchors.labels, strict=True)
        ]

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        self.rows += rows
        self.batches.append(list(batch))
        losses = (read.representations - self.point).square().mean(1)
        return Losses(losses, {"size": losses})

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition, validation: Validation | None
    ) -> None:
        assert prompt.safety_prompt is not None
        assert prompt.safety_prompt.embeddings is not None
        self.told.append((epoch, prompt.safety_prompt.embeddings.clone()))
        # What the next epoch is like depends on the prompt of this time.
        self.point += float(prompt.safety_prompt.embeddings.mean())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return ChatModel.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def trained(
    model: ChatModel,
    method: Method[Any],
    folder: Path,
    *,
    run: str = "run",
    progress: Progress | None = None,
    anchors: Queries = ANCHORS,
    **settings: Any,
) -> TrainedPrompt:
    def measure(*_arguments: Any, **_options: Any) -> Measurement:
        raise AssertionError("nothing is measured here")

    context = Context(
        model=model,
        anchors=anchors,
        basic=CONDITION,
        judge=PaperRefusalJudge(),
        protocol=OptimizeSettings.from_preset("quick").protocol,
        seed=0,
        measure=measure,
        progress=progress or SilentProgress(),
    )
    plain = {
        "epochs": 1,
        "batch": 8,
        "learning_rate": 1e-3,
        "balanced_batches": False,
        "averaged_prompt": False,
        "learning_rate_decay": False,
        "warm_up": 0.0,
    }
    chosen = TrainingSettings.model_validate({**plain, **settings})
    return train(method, context, chosen, Checkpoints(folder, run))


def test_balanced_batches_hold_whole_pairs(model: ChatModel, tmp_path: Path) -> None:
    seen = Recording()
    trained(model, seen, tmp_path, balanced_batches=True)
    assert sorted(seen.rows) == list(range(24))
    assert [sorted(batch) for batch in seen.batches] == [
        sorted(seen.rows[start : start + 8]) for start in (0, 8, 16)
    ]
    for batch in seen.batches:
        harmful = sorted(row for row in batch if row < 12)
        assert sorted(row - 12 for row in batch if row >= 12) == harmful
    assert sorted(seen.batches[0]) != [0, 1, 2, 3, 12, 13, 14, 15]


def test_every_epoch_has_an_order_of_its_own(model: ChatModel, tmp_path: Path) -> None:
    seen = Recording()
    trained(model, seen, tmp_path, epochs=2, batch=24)
    first, second = seen.batches
    assert first != second
    assert sorted(first) == sorted(second) == list(range(24))


def test_an_epoch_of_a_size_goes_on_with_other_examples(model: ChatModel, tmp_path: Path) -> None:
    seen = Recording()
    trained(model, seen, tmp_path, epochs=3, epoch_size=16, balanced_batches=True)
    assert [len(batch) for batch in seen.batches] == [8] * 6
    assert sorted(seen.rows[:24]) == sorted(seen.rows[24:]) == list(range(24))
    assert seen.rows[:24] != seen.rows[24:]
    assert all(sum(row < 12 for row in batch) == 4 for batch in seen.batches)


def test_an_epoch_is_no_larger_than_a_pass(model: ChatModel, tmp_path: Path) -> None:
    seen = Recording()
    trained(model, seen, tmp_path, epochs=1, epoch_size=1000)
    assert sorted(seen.rows) == list(range(24))


def test_the_loss_of_an_epoch_counts_each_time_that_a_row_is_read(
    model: ChatModel, tmp_path: Path
) -> None:
    class Noting(Recording):
        def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
            found = super().losses(read, rows, batch)
            noted.extend(found.total.tolist())
            return found

    noted: list[float] = []
    seen = Noting()
    found = trained(model, seen, tmp_path, epochs=2, epoch_size=20, batch=20)
    assert len(set(seen.batches[1])) < len(seen.batches[1]) == 20  # it begins a second pass
    assert found.history[1].loss == pytest.approx(sum(noted[20:]) / 20)


def test_a_method_is_told_of_every_epoch_but_the_last(model: ChatModel, tmp_path: Path) -> None:
    seen = Recording()
    found = trained(model, seen, tmp_path, epochs=3)
    assert [epoch for epoch, _ in seen.told] == [1, 2]
    assert not torch.equal(seen.told[0][1], seen.told[1][1])
    assert not torch.equal(seen.told[1][1], found.last)


class Stopping(Recording):
    """Is interrupted at a certain step, or while it works after a certain epoch."""

    def __init__(self, step: int = -1, epoch: int = -1) -> None:
        super().__init__()
        self.step, self.epoch = step, epoch

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        if len(self.batches) == self.step:
            raise KeyboardInterrupt
        return super().losses(read, rows, batch)

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition, validation: Validation | None
    ) -> None:
        if epoch == self.epoch:
            raise KeyboardInterrupt
        super().after_epoch(context, epoch, prompt, validation)


@pytest.mark.parametrize(
    "stopping",
    [{"step": 0}, {"step": 2}, {"step": 3}, {"step": 8}, {"epoch": 1}, {"epoch": 3}],
    ids=str,
)
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    model: ChatModel, tmp_path: Path, stopping: dict[str, int]
) -> None:
    """The method is told again of every finished epoch, with the prompt of that time."""
    chosen: dict[str, Any] = {
        "epochs": 4,
        "averaged_prompt": True,
        "learning_rate_decay": True,
        "learning_rate": 0.01,
    }
    undisturbed = Recording()
    whole = trained(model, undisturbed, tmp_path / "whole", **chosen)
    with pytest.raises(KeyboardInterrupt):
        trained(model, Stopping(**stopping), tmp_path / "cut", **chosen)
    later = Recording()
    found = trained(model, later, tmp_path / "cut", **chosen)
    assert torch.equal(found.embeddings, whole.embeddings)
    assert torch.equal(found.last, whole.last)
    assert found.history == whole.history
    assert [epoch for epoch, _ in later.told] == [1, 2, 3]
    for (_, prompt), (_, expected) in zip(later.told, undisturbed.told, strict=True):
        assert torch.equal(prompt, expected)
    for file in (tmp_path / "whole").rglob("*.safetensors"):
        other = tmp_path / "cut" / file.relative_to(tmp_path / "whole")
        assert other.read_bytes() == file.read_bytes()


def test_a_finished_training_is_not_repeated(model: ChatModel, tmp_path: Path) -> None:
    whole = trained(model, Recording(), tmp_path, epochs=3, averaged_prompt=True)
    later = Recording()
    again = trained(model, later, tmp_path, epochs=3, averaged_prompt=True)
    assert later.rows == []
    assert torch.equal(again.embeddings, whole.embeddings)
    assert again.history == whole.history


def test_checkpoints_of_another_run_are_not_used(model: ChatModel, tmp_path: Path) -> None:
    trained(model, Recording(), tmp_path, run="first")
    seen = Recording()
    trained(model, seen, tmp_path, run="second")
    assert sorted(seen.rows) == list(range(24))


@pytest.mark.parametrize("name", ["epoch-001", "epoch-002", "epoch-003", "optimizer"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_checkpoint_is_named_and_the_fix_leads_to_the_same_prompt(
    model: ChatModel, tmp_path: Path, name: str, damage: str
) -> None:
    whole = trained(model, Recording(), tmp_path, epochs=3)
    file = tmp_path / "training" / f"{name}.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 0x40
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    with pytest.raises(DemurError, match=rf"{name}\.safetensors is damaged: delete it and run"):
        trained(model, Recording(), tmp_path, epochs=3)
    file.unlink()
    again = trained(model, Recording(), tmp_path, epochs=3)
    assert torch.equal(again.embeddings, whole.embeddings)
    assert again.history == whole.history
    assert file.exists()


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
        loss: Callable[[Read, list[int]], Tensor],
        *more: Any,
    ) -> tuple[float, Tensor]:
        seen.append(prompt.detach().clone())
        return gradient(self, queries, condition, prompt, loss, *more)

    monkeypatch.setattr(ChatModel, "prompt_gradient", watched)
    found = trained(
        model, Recording(), tmp_path, epochs=2, balanced_batches=True, averaged_prompt=True
    )
    after = [*seen[1:], found.last]
    assert len(after) == 6
    start, mean = seen[0], torch.stack(after).mean(0)
    stretch = float((found.last - start).norm() / (mean - start).norm())
    assert stretch > 1
    torch.testing.assert_close(found.embeddings, start + stretch * (mean - start))
    assert not torch.equal(found.embeddings, found.last)


def rates_of_steps(
    model: ChatModel, folder: Path, monkeypatch: pytest.MonkeyPatch, **chosen: Any
) -> list[float]:
    """The learning rate of each step of a training."""
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> Any:
        rates.append(float(self.param_groups[0]["lr"]))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(model, Recording(), folder, batch=12, **chosen)
    return rates


def test_the_learning_rate_falls_along_half_a_cosine(
    model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = rates_of_steps(model, tmp_path, monkeypatch, epochs=2, learning_rate_decay=True)
    falling = [1e-3 * (1 + torch.cos(torch.tensor(torch.pi * n / 4)).item()) / 2 for n in range(4)]
    assert rates == pytest.approx(falling)


def test_the_learning_rate_rises_evenly_in_the_warm_up(
    model: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = rates_of_steps(model, tmp_path, monkeypatch, epochs=4, warm_up=0.4)
    assert rates == pytest.approx([0.00025, 0.0005, 0.00075, *[0.001] * 5])


def test_six_epochs_keep_where_the_queries_lay(model: ChatModel, tmp_path: Path) -> None:
    trained(model, Recording(), tmp_path, epochs=12)
    files = Checkpoints(tmp_path, "run")
    kept = [number for number in range(1, 13) if files.require(number).representations is not None]
    assert kept == [2, 4, 6, 8, 10, 12]
    read = files.require(2).representations
    assert read is not None
    assert read.shape == (24, model.width)


class Watching(SilentProgress):
    """Notes what is reported, and fails where two stages are open at once."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float]] = []
        self.done = 0.0
        self.open = False

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        assert not self.open
        self.open, self.done = True, 0.0
        yield self
        self.open = False
        self.stages.append((description, self.done / total))

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        assert text.startswith("loss ")


class Busy(Recording):
    """Has work of its own after the second epoch."""

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition, validation: Validation | None
    ) -> None:
        if epoch == 2:
            with context.progress.stage("Own work", 1) as stage:
                stage.advance()


def test_the_training_is_one_stage_until_the_method_has_one(
    model: ChatModel, tmp_path: Path
) -> None:
    progress = Watching()
    trained(model, Recording(), tmp_path / "plain", progress=progress, epochs=4)
    assert progress.stages == [("Training", 1.0)]
    progress = Watching()
    trained(model, Busy(), tmp_path / "busy", progress=progress, epochs=4)
    assert progress.stages == [
        ("Training", 0.5),
        ("Own work", 1.0),
        ("Training: from epoch 3 on", 1.0),
    ]


class Steep(Recording):
    """The gradient is infinite on some batches, where the loss is finite."""

    def __init__(self, steep: Sequence[int]) -> None:
        super().__init__()
        self.steep = steep

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        found = super().losses(read, rows, batch)
        if len(self.batches) - 1 not in self.steep:
            return found
        # The square root has an infinite slope at zero.
        still = (found.total - found.total.detach()).sqrt()
        return Losses(found.total + still, found.terms)


def test_a_step_whose_gradient_is_not_finite_is_left_out(model: ChatModel, tmp_path: Path) -> None:
    """The epoch without this step is the same, and the record and a message say so."""
    said = Telling()
    found = trained(model, Steep([4]), tmp_path / "run", epochs=2, progress=said)
    assert [one.skipped for one in found.history] == [0, 1]
    assert said.messages == [
        "Left out 1 of 3 steps in epoch 2: their gradients were not finite.",
    ]
    assert torch.isfinite(found.embeddings).all()
    assert all(torch.isfinite(torch.tensor(one.loss)) for one in found.history)
    # Going on reads the record back.
    said.messages.clear()
    again = trained(model, Steep([]), tmp_path / "run", epochs=2, progress=said)
    assert (again.history, said.messages) == (found.history, [])
    assert torch.equal(again.embeddings, found.embeddings)


def test_a_step_that_is_left_out_changes_nothing(model: ChatModel, tmp_path: Path) -> None:
    """Neither the prompt nor the state of the optimizer, which the next step would show."""
    seen: list[Tensor] = []
    gradient = ChatModel.prompt_gradient

    def watched(self: ChatModel, queries: Any, condition: Any, prompt: Tensor, *more: Any) -> Any:
        seen.append(prompt.detach().clone())
        return gradient(self, queries, condition, prompt, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatModel, "prompt_gradient", watched)
        found = trained(model, Steep([0, 2]), tmp_path / "run")
    first, second, third = seen
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(third, found.last)
    # AdamW's first step moves every number by the learning rate, wherever it stands.
    moved = (third - first).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-2, atol=1e-6)


def test_more_than_a_few_steps_left_out_end_the_training(model: ChatModel, tmp_path: Path) -> None:
    said = Telling()
    two = trained(model, Steep([0, 1]), tmp_path / "two", progress=said)
    assert [one.skipped for one in two.history] == [2]
    assert said.messages[0].startswith("Left out 2 of 3 steps in epoch 1")
    told = r"left the range of numbers in epoch 1 .*lower --learning-rate.*float32\.$"
    with pytest.raises(DemurError, match=told):
        trained(model, Steep([0, 1, 2]), tmp_path / "three")
    assert Checkpoints(tmp_path / "three", "run").finished == 0
    with pytest.raises(DemurError, match=told):
        trained(model, Steep([20, 22, 23]), tmp_path / "last", batch=1)


def test_a_tenth_of_the_steps_may_be_left_out(model: ChatModel, tmp_path: Path) -> None:
    """That is more than two in long epochs, and counts the steps so far."""
    many = Queries("many", tuple(f"w{n} ?" for n in range(40)), ("harmful",) * 40, (None,) * 40)
    found = trained(model, Steep([3, 17, 35]), tmp_path / "run", batch=1, anchors=many)
    assert [one.skipped for one in found.history] == [3]
    with pytest.raises(DemurError, match="left the range of numbers in epoch 1"):
        trained(model, Steep([3, 4, 28]), tmp_path / "early", batch=1, anchors=many)
