"""The loop that trains a prompt. It is written once for all methods, and knows none of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from demur.chat import Read
from demur.chat.engine import log_probability
from demur.errors import DemurError
from demur.evaluation.protocol import Protocol
from demur.optimization.batches import epoch_length, learning_rate, order_of
from demur.optimization.checkpoints import Checkpoints, Epoch, OptimizerState
from demur.optimization.groups import TrainingSettings
from demur.optimization.methods import Context, Method, TrainingExample
from demur.optimization.methods.protocol import MeasureFunction
from demur.optimization.recorded import EpochRecord
from demur.optimization.seen import Seen
from demur.optimization.validation import (
    Pick,
    Validation,
    checked_probabilities,
    chosen_epoch,
)
from demur.progress import Progress, Stage
from demur.prompts import Condition, SafetyPrompt
from demur.records import Measurement, Queries

TRAINING = "Training"
MOST_KEPT = 6
"""Epochs whose representations are kept."""

SKIPPED_ALLOWED, SHARE_SKIPPED_ALLOWED = 2, 0.1
"""Steps of an epoch that may be left out because their gradients are not finite: a number, or a
share of the epoch so far, whichever is more. In 16 bits a rare one is left out without harm."""


@dataclass(frozen=True)
class TrainedPrompt:
    """What training leaves.

    Attributes:
        embeddings: (L, d) float32, the result.
        last: (L, d) float32, the prompt after the last step.
        history: for each epoch the mean loss and the mean of each term, as they were when each
            batch was read, and the validation.
        epoch: the epoch whose prompt is the result; None where it is not that of one epoch.
    """

    embeddings: Tensor
    last: Tensor
    history: tuple[EpochRecord, ...]
    epoch: int | None = None


def train(
    method: Method[Any],
    context: Context,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    pick: Pick = "balanced",
) -> TrainedPrompt:
    """Train the rows that take the place of a basic prompt.

    Training goes on after the last epoch that is stored. What the method remembers is rebuilt by
    calling it again for each finished epoch, with the prompt of that time.

    Args:
        method: says what is read and gives the losses.
        context: model, queries and basic prompt.
        settings: how the prompt is trained.
        checkpoints: keeps every epoch.
        pick: which of the epochs gives the result, where the method scores refusals.

    Raises:
        DemurError: the method cannot train such a prompt, the loss is not finite, or a file is
            damaged or cannot be written.
    """
    examples = tuple(method.prepare(context))
    if not examples:
        raise DemurError(
            f"The method {method.name!r} found nothing to train on: give it other queries."
        )
    finished = checkpoints.finished
    with ExitStack() as opened:
        trainer = _Trainer(method, context, settings, checkpoints, examples, opened)
        between = replace(
            context,
            measure=_Pausing(trainer, context.measure),
            progress=_PausingProgress(trainer, context.progress),
        )
        for epoch in range(1, settings.epochs + 1):
            if epoch > finished:
                trainer.train_epoch(epoch, between)
            else:
                trainer.take_up(epoch, last=epoch == finished)
            if epoch < settings.epochs:
                so_far, validation = trainer.so_far(epoch), trainer.history[-1].validation
                trainer.take_examples(method.after_epoch(between, epoch, so_far, validation))
        return trainer.result(pick)


def as_far_as(last: Tensor, mean: Tensor, start: Tensor) -> Tensor:
    """The mean of the prompts, stretched to the distance from the start that the last one has.

    The mean over all steps (Polyak and Juditsky, 1992) has less noise in its direction than the
    last prompt, but lies nearer to the start, because it counts the first steps as well.

    Args:
        last: (L, d), the prompt after the last step.
        mean: (L, d), mean over the steps.
        start: (L, d), the prompt before the first step.

    Returns:
        (L, d).
    """
    moved = mean - start
    if not moved.any():
        return mean
    stretch = float((last - start).norm() / moved.norm())
    return start + stretch * moved


class _Trainer:
    """The state of a training: the prompt, the optimizer and the history."""

    def __init__(
        self,
        method: Method[Any],
        context: Context,
        settings: TrainingSettings,
        checkpoints: Checkpoints,
        examples: tuple[TrainingExample, ...],
        opened: ExitStack,
    ) -> None:
        prompt = context.basic.safety_prompt
        assert prompt is not None
        self.method, self.context, self.settings = method, context, settings
        self.checkpoints, self.examples = checkpoints, examples
        self._opened = opened
        self._stage: Stage | None = None
        self.start = context.model.prompt_embeddings(prompt)
        self.prompt = self.start.clone().requires_grad_()
        self.mean = torch.zeros_like(self.prompt, requires_grad=False)
        self.optimizer = torch.optim.AdamW(
            [self.prompt], lr=settings.learning_rate, weight_decay=0.0
        )
        self.history: list[EpochRecord] = []
        self.batches = -(-epoch_length(len(examples), settings.epoch_size) // settings.batch)

    def so_far(self, epoch: int) -> Condition:
        """The prompt after an epoch, with the application's own system text."""
        basic = self.context.basic
        text = None if basic.safety_prompt is None else basic.safety_prompt.text
        prompt = SafetyPrompt(f"after epoch {epoch}", text, self.prompt.detach())
        return Condition(prompt, basic.system_prompt)

    def result(self, pick: Pick) -> TrainedPrompt:
        """The trained prompt: the best on the validation queries, where the method scores them."""
        last, history = self.prompt.detach().clone(), tuple(self.history)
        validations = [one.validation for one in history]
        best = chosen_epoch(validations, self.context.benign_budget, pick)
        if best is not None:
            return TrainedPrompt(self.checkpoints.require(best).prompt, last, history, best)
        averaged = self.settings.averaged_prompt
        embeddings = as_far_as(last, self.mean, self.start) if averaged else last
        return TrainedPrompt(embeddings, last, history)

    def take_examples(self, examples: Sequence[TrainingExample] | None) -> None:
        """Train on the same queries with other targets from here on; None changes nothing.

        Raises:
            DemurError: these are examples of other queries.
        """
        if examples is None:
            return
        if [(one.query, one.label) for one in examples] != [
            (one.query, one.label) for one in self.examples
        ]:
            raise DemurError(
                f"The method {self.method.name!r} changed its queries after an epoch: return the "
                "same queries in the same order."
            )
        self.examples = tuple(examples)

    def take_up(self, number: int, *, last: bool) -> None:
        """Take a finished epoch from its checkpoint.

        Args:
            number: number of the epoch, from 1.
            last: whether it is the last finished one, behind which training goes on.
        """
        epoch = self.checkpoints.require(number)
        with torch.no_grad():
            self.prompt.copy_(epoch.prompt)
        self.history.append(epoch.record)
        state = self.checkpoints.state() if last else None
        if state is not None:
            self.mean.copy_(state.mean)
            self.optimizer.state[self.prompt] = dict(state.tensors)

    def train_epoch(self, number: int, between: Context) -> None:
        """Train for one epoch, validate its prompt, and keep both.

        Args:
            number: number of the epoch, from 1.
            between: what the method works with between two epochs.
        """
        settings, size = self.settings, self.settings.batch
        order = order_of(
            self.examples,
            number - 1,
            self.context.seed,
            balanced=settings.balanced_batches,
            size=settings.epoch_size,
        )
        seen = Seen(self.method)
        for index in range(self.batches):
            before = (number - 1) * self.batches + index
            stage = self._reporting(before)
            self._step(order[index * size : (index + 1) * size], before, seen)
            self._report(stage, seen, number, index + 1)
        if seen.skipped:
            between.progress.message(
                f"Left out {seen.skipped} of {self.batches} steps in epoch {number}: their "
                "gradients were not finite."
            )
        self.history.append(replace(seen.record(), validation=self._validate(number, between)))
        self._save(number, seen)

    def _validate(self, number: int, between: Context) -> Validation | None:
        """How the prompt so far does on the validation queries, if the method can score them."""
        queries = between.validation
        if queries is None:
            return None
        scored = self.method.refusal_probabilities(between, queries, self.so_far(number))
        return Validation.of(queries, checked_probabilities(scored, len(queries), self.method.name))

    def _step(self, batch: list[int], before: int, seen: Seen) -> None:
        """One step of the optimizer.

        Args:
            batch: indices of its examples.
            before: number of steps that came before.
            seen: takes the losses and the representations.
        """
        model, examples = self.context.model, [self.examples[row] for row in batch]

        def partial_loss(read: Read, places: list[int]) -> Tensor:
            rows = [batch[place] for place in places]
            losses = self.method.losses(read, rows, batch)
            seen.add(rows, losses, read)
            return losses.total.sum() / len(batch)

        steps = self.batches * self.settings.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, before, steps)
        scored = any(one.targets for one in examples)
        _, self.prompt.grad = model.prompt_gradient(
            [one.query for one in examples],
            self.context.basic,
            self.prompt,
            partial_loss,
            [one.targets for one in examples] if scored else (),
            self.method.reader(batch) or log_probability,
        )
        norm = torch.nn.utils.clip_grad_norm_([self.prompt], self.settings.gradient_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            seen.skipped += 1
        self.mean.lerp_(self.prompt.detach(), 1 / (before + 1))

    def pause(self) -> None:
        """End the stage that reports the training, so that another one can be shown."""
        self._opened.close()
        self._stage = None

    def _reporting(self, before: int) -> Stage:
        """The stage that reports the training; it goes on at a step."""
        if self._stage is None:
            begun = f": from epoch {before // self.batches + 1} on" if before else ""
            stage = self.context.progress.stage(
                f"{TRAINING}{begun}", self.batches * self.settings.epochs, "steps"
            )
            self._stage = self._opened.enter_context(stage)
            self._stage.advance(before)
        return self._stage

    def _report(self, stage: Stage, seen: Seen, number: int, done: int) -> None:
        loss = seen.loss
        finite = torch.isfinite(torch.tensor(loss)) and bool(torch.isfinite(self.prompt).all())
        most = max(SKIPPED_ALLOWED, SHARE_SKIPPED_ALLOWED * done)
        if not finite or seen.skipped > most or seen.skipped == self.batches:
            raise DemurError(
                f"The training left the range of numbers in epoch {number} (loss {loss}): give a "
                "lower --learning-rate or lower weights of its terms, or load the model as float32."
            )
        stage.advance()
        stage.note(f"loss {loss:.3f}")

    def _save(self, number: int, seen: Seen) -> None:
        epochs = self.settings.epochs
        kept = {max(1, round(epochs * share / MOST_KEPT)) for share in range(1, MOST_KEPT + 1)}
        read = seen.representations(self.examples, self.context) if number in kept else None
        state = self.optimizer.state[self.prompt]
        self.checkpoints.save(
            Epoch(self.prompt.detach(), self.history[-1], read),
            OptimizerState(number, self.mean, dict(state)),
        )


class _Pausing:
    """Measures after the stage of the training has ended, because stages follow each other."""

    def __init__(self, trainer: _Trainer, measure: MeasureFunction) -> None:
        self._trainer, self._measure = trainer, measure

    def __call__(
        self,
        queries: Queries,
        condition: Condition,
        *,
        description: str,
        protocol: Protocol | None = None,
        epoch: int | None = None,
    ) -> Measurement:
        self._trainer.pause()
        return self._measure(
            queries, condition, description=description, protocol=protocol, epoch=epoch
        )


class _PausingProgress:
    """Reports progress after the stage of the training has ended."""

    def __init__(self, trainer: _Trainer, progress: Progress) -> None:
        self._trainer, self._progress = trainer, progress

    def plan(self, stages: Sequence[str]) -> None:
        self._progress.plan(stages)

    def stage(
        self, description: str, total: float, unit: str = ""
    ) -> AbstractContextManager[Stage]:
        self._trainer.pause()
        return self._progress.stage(description, total, unit)

    def message(self, text: str) -> None:
        self._progress.message(text)
