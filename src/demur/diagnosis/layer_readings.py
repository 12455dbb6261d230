"""Read every layer's outputs, and keep them until a diagnosis is finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from demur.chat import ChatModel
from demur.progress import Progress, Stage
from demur.prompts import Condition
from demur.records import MeasurementKey, Queries, fingerprint, read_tensors, write_tensors

LAYERS = "layers"
"""Folder in which the outputs are kept."""

READING_LAYERS = "Reading every layer"

_STATES = "states"


def read_layers(
    model: ChatModel,
    queries: Queries,
    condition: Condition,
    key: MeasurementKey,
    name: str,
    path: Path,
    progress: Progress,
) -> Tensor | None:
    """Read every layer's outputs at the last input token.

    Args:
        model: model to read.
        queries: N queries.
        condition: what stands before them.
        key: identity of a measurement with the same condition, queries and model.
        name: what is read, for people.
        path: folder of the diagnosis.
        progress: receives a stage.

    Returns:
        (N, layers, d), or None for a model whose layers cannot be told apart.

    Raises:
        DemurError: a stored file is damaged, or a query is too long.
    """

    def read(stage: Stage) -> Tensor | None:
        return model.represent_layers(queries.texts, condition, stage)

    return _kept("layers", read, queries, key, name, path, progress)


def read_representations(
    model: ChatModel,
    queries: Queries,
    condition: Condition,
    key: MeasurementKey,
    name: str,
    path: Path,
    progress: Progress,
) -> Tensor:
    """Read the representations, for a model whose layers cannot be told apart.

    The arguments and errors are those of `read_layers`.

    Returns:
        (N, 1, d), the representations as if they were those of a single layer.
    """

    def read(stage: Stage) -> Tensor:
        return model.represent(queries.texts, condition, stage)[:, None]

    found = _kept("representations", read, queries, key, name, path, progress)
    assert found is not None
    return found


def _kept(
    kind: str,
    read: Callable[[Stage], Tensor | None],
    queries: Queries,
    key: MeasurementKey,
    name: str,
    path: Path,
    progress: Progress,
) -> Tensor | None:
    """What was read before, or what is read now and kept."""
    # States do not depend on how responses are sampled.
    identity = fingerprint(kind, condition=key.condition, queries=key.queries, model=key.model)
    file = path / LAYERS / f"{identity[:16]}.safetensors"
    stored = read_tensors(file)
    if stored is not None and stored.notes == identity:
        return stored.tensors[_STATES]
    with progress.stage(f"{READING_LAYERS}: {name}", len(queries), "queries") as stage:
        states = read(stage)
    if states is not None:
        write_tensors(file, {_STATES: states}, identity)
    return states
