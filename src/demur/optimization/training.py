"""The loop that trains a prompt: written once for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from demur.chat import ChatModel, Condition, Read
from demur.progress import Progress
from demur.runs import Queries, RunFolder

CHECKPOINT = "training"
MOST_KEPT = 6
"""Epochs whose representations are kept."""

Terms = Mapping[str, float]


class Objective(Protocol):
    """A method: what a prompt is trained towards."""

    def losses(
        self, representations: Tensor, rows: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (b,) of the training queries `rows`, and their terms by name, each (b,)."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a prompt is trained.

    Attributes:
        epochs: passes over the training queries.
        batch: queries a step.
        learning_rate: of AdamW; the rate falls to zero over the steps where `decay` is on.
        decay: whether the learning rate falls along half a cosine.
        gradient_norm: gradients longer than this are shortened to it.
        balanced: whether every batch has equal shares of the labels.
        averaged: whether the result is the mean of the prompts after each step (Polyak and
            Juditsky, 1992), as far from the start as the last one, rather than the last one.
        seed: of the order of the queries.
    """

    epochs: int
    batch: int
    learning_rate: float
    decay: bool
    gradient_norm: float
    balanced: bool
    averaged: bool
    seed: int


@dataclass(frozen=True)
class TrainedPrompt:
    """What training leaves.

    Attributes:
        embeddings: (L, d) float32: the result.
        last: (L, d) float32: the prompt after the last step.
        history: for each epoch the mean loss and the mean of each term, as they were when each
            batch was read. Only epochs under the same objective can be compared.
    """

    embeddings: Tensor
    last: Tensor
    history: tuple[Terms, ...]


def train_prompt(
    model: ChatModel,
    queries: Queries,
    condition: Condition,
    objective: Objective,
    settings: TrainingSettings,
    progress: Progress,
    folder: RunFolder,
    until: int | None = None,
) -> TrainedPrompt:
    """Train the rows that take the place of a basic prompt.

    Args:
        model: stays as it is.
        queries: N training queries.
        condition: the basic prompt to start from, and the system prompt.
        objective: gives each query's loss.
        settings: of the optimizer.
        progress: hears of each batch.
        folder: where every epoch is kept; training goes on after the last one.
        until: the epoch to stop after for now; the last one by default.
    """
    assert condition.safety_prompt is not None
    start = model.prompt_embeddings(condition.safety_prompt)
    prompt = start.clone().requires_grad_()
    mean = torch.zeros_like(prompt, requires_grad=False)
    optimizer = torch.optim.AdamW([prompt], lr=settings.learning_rate, weight_decay=0.0)
    history = _resume(folder, prompt, mean, optimizer)
    batches = -(-len(queries) // settings.batch)
    steps = batches * settings.epochs
    last = settings.epochs if until is None else until
    with progress.stage("Training the prompt", last * batches, "steps") as stage:
        stage.advance(len(history) * batches)
        for epoch in range(len(history), last):
            order = _order(queries, settings, epoch)
            seen: dict[int, Terms] = {}
            read: dict[int, Tensor] = {}
            for index in range(batches):
                rows = order[index * settings.batch : (index + 1) * settings.batch]
                for group in optimizer.param_groups:
                    group["lr"] = _learning_rate(settings, (epoch * batches + index) / steps)
                seen.update(_step(model, queries.texts, condition, objective, prompt, rows, read))
                torch.nn.utils.clip_grad_norm_([prompt], settings.gradient_norm)
                optimizer.step()
                mean.lerp_(prompt.detach(), 1 / (epoch * batches + index + 1))
                stage.advance()
                stage.note(f"loss {_mean(seen)['loss']:.3f}")
            history.append(_mean(seen))
            _save_representations(folder, read, epoch + 1, settings.epochs)
            _save(folder, prompt, mean, optimizer, history)
    last_prompt = prompt.detach().clone()
    result = as_far_as(last_prompt, mean, start) if settings.averaged else last_prompt
    return TrainedPrompt(result, last_prompt, tuple(history))


def as_far_as(last: Tensor, mean: Tensor, start: Tensor) -> Tensor:
    """The mean of the prompts, stretched to the distance from the start that the last one has.

    The mean has less noise in its direction, but lags behind: it counts the first steps as well.

    Args:
        last: (L, d), the prompt after the last step.
        mean: (L, d), over the steps.
        start: (L, d), before the first step.

    Returns:
        (L, d).
    """
    moved = mean - start
    if not moved.any():
        return mean
    stretch = float((last - start).norm() / moved.norm())
    return start + stretch * moved


def _step(
    model: ChatModel,
    queries: Sequence[str],
    condition: Condition,
    objective: Objective,
    prompt: Tensor,
    rows: list[int],
    read: dict[int, Tensor],
) -> dict[int, Terms]:
    """Put the gradient of a batch into `prompt.grad`; return the terms of each query.

    The representations that the queries had go into `read`.
    """
    seen: dict[int, Terms] = {}

    def partial_loss(share: Read, places: list[int]) -> Tensor:
        representations = share.representations
        part = [rows[place] for place in places]
        losses, terms = objective.losses(representations, part)
        columns = {"loss": losses.tolist()} | {name: term.tolist() for name, term in terms.items()}
        for index, row in enumerate(part):
            seen[row] = {name: column[index] for name, column in columns.items()}
            read[row] = representations[index].detach().float().cpu()
        return losses.sum() / len(rows)

    _, prompt.grad = model.prompt_gradient(
        [queries[row] for row in rows], condition, prompt, partial_loss
    )
    return seen


def _save_representations(
    folder: RunFolder, read: Mapping[int, Tensor], epoch: int, epochs: int
) -> None:
    """Keep where the queries lay in a few of the epochs, so that one can see the groups part.

    Each query was read once in the epoch, under the prompt of that moment; this costs nothing.
    """
    kept = {max(1, round(epochs * share / MOST_KEPT)) for share in range(1, MOST_KEPT + 1)}
    if epoch in kept:
        stacked = torch.stack([read[row] for row in sorted(read)])
        folder.save_tensors(f"representations/training-epoch-{epoch}", {"representations": stacked})


def _mean(seen: Mapping[int, Terms]) -> Terms:
    names = next(iter(seen.values()))
    return {name: sum(terms[name] for terms in seen.values()) / len(seen) for name in names}


def _learning_rate(settings: TrainingSettings, done: float) -> float:
    if not settings.decay:
        return settings.learning_rate
    return settings.learning_rate * float(0.5 * (1 + torch.cos(torch.tensor(done * torch.pi))))


def _order(queries: Queries, settings: TrainingSettings, epoch: int) -> list[int]:
    """A shuffle that depends on the seed and the epoch alone, so that it can be taken up.

    Balanced, the labels take turns, and queries that are each other's pair (as many of one label as
    of the other, in the same order) stay together.
    """
    seed = settings.seed * 100_003 + epoch
    if not settings.balanced:
        return _shuffled(list(range(len(queries))), seed)
    places = [
        ((rank + 0.5) / len(rows), row)
        for rows in (queries.rows(harmful=True), queries.rows(harmful=False))
        for rank, row in enumerate(_shuffled(rows, seed))
    ]
    return [row for _, row in sorted(places)]


def _shuffled(rows: Sequence[int], seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [rows[int(index)] for index in torch.randperm(len(rows), generator=generator)]


def _save(
    folder: RunFolder,
    prompt: Tensor,
    mean: Tensor,
    optimizer: torch.optim.Optimizer,
    history: list[Terms],
) -> None:
    state = optimizer.state[prompt]
    tensors = {
        "prompt": prompt.detach(),
        "mean": mean,
        "exp_avg": state["exp_avg"],
        "exp_avg_sq": state["exp_avg_sq"],
        "step": state["step"],
    }
    folder.save_tensors(CHECKPOINT, tensors, [dict(terms) for terms in history])


def _resume(
    folder: RunFolder, prompt: Tensor, mean: Tensor, optimizer: torch.optim.Optimizer
) -> list[Terms]:
    """Take up the last epoch that was kept; the history so far."""
    stored = folder.load_tensors(CHECKPOINT)
    if stored is None:
        return []
    tensors, history = stored
    with torch.no_grad():
        prompt.copy_(tensors.pop("prompt"))
        mean.copy_(tensors.pop("mean"))
    optimizer.state[prompt] = tensors
    return list(history)
