"""Copies of a model's weight files in which only the embeddings differ."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from demur.chat import ChatModel
from demur.chat.checkpoint import weight_files
from demur.errors import DemurError
from demur.files import read_json, write_json
from demur.progress import Stage

Change = Callable[[Tensor], Mapping[str, Tensor]]
"""From a stored tensor to the tensors that take its place, by name."""

_ROUNDED = (torch.float32, torch.float16, torch.bfloat16)
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tables:
    """Where a model folder stores the two tables of tokens.

    Attributes:
        files: all weight files.
        embeddings: stored name of the table of embeddings.
        head: stored name of the LM head; where the head shares the embeddings, the name that it
            gets with a table of its own.
        tied: whether the head shares the embeddings.
        rows: number of rows of the embeddings, unused ones included.
    """

    files: list[Path]
    embeddings: str
    head: str
    tied: bool
    rows: int

    @classmethod
    def of(cls, model: ChatModel) -> Tables:
        """The tables of a model whose folder holds safetensors.

        Raises:
            DemurError: they are not found, or the model runs code of its own.
        """
        if read_json(model.folder / "config.json").get("auto_map"):
            raise DemurError(f"{model.name} runs code of its own: export to peft instead.")
        files = weight_files(model.folder, model.name)
        network = model.engine.model
        table: Any = network.get_input_embeddings()
        head: Any = network.get_output_embeddings()
        tied = head.weight is table.weight
        into = _stored_name(files, _parameter(network, table), model.name)
        out = _parameter(network, head)
        if not tied:
            out = _stored_name(files, out, model.name)
        return cls(files, into, out, tied, len(table.weight))


def with_rows(table: Tensor, first: int, rows: Tensor) -> Tensor:
    """A table (V, d) with `rows` (L, d) from row `first` on, longer where they do not fit."""
    end = first + len(rows)
    longer = torch.zeros(max(len(table), end), table.shape[1], dtype=table.dtype)
    longer[: len(table)] = table
    longer[first:end] = rows.to(table.dtype)
    return longer


def _parameter(network: Any, module: Any) -> str:
    names = [name for name, one in network.named_modules() if one is module]
    return f"{names[0]}.weight"


def _stored_name(files: list[Path], name: str, model: str) -> str:
    """The name under which a parameter lies in the files.

    Raises:
        DemurError: it lies in none of them.
    """
    names: list[str] = []
    for file in files:
        with safe_open(str(file), framework="pt") as tensors:
            names += list(tensors.keys())
    if name in names:
        return name
    # Some models are saved below a prefix, or without the one that they have when loaded.
    tail = ".".join(name.split(".")[-2:])
    alike = [one for one in names if one == tail or one.endswith(f".{tail}")]
    if len(alike) != 1:
        raise DemurError(
            f"{model} stores its embeddings under another name than {name}: export to peft instead."
        )
    return alike[0]


def write_weights(
    source: Path,
    target: Path,
    name: str,
    changes: Mapping[str, Change],
    stage: Stage,
    dtype: torch.dtype | None = None,
) -> None:
    """Copy the weight files of `source`; put other tensors in the place of some.

    Args:
        source: folder of the base model.
        target: folder to write into.
        name: name of the model, for messages.
        changes: change of each tensor that differs, by its stored name.
        stage: receives the bytes written.
        dtype: number format of all that are written; None for their own.
    """
    added: dict[str, str] = {}
    for file in weight_files(source, name):
        added |= _copy(file, target / file.name, changes, dtype)
        stage.advance(file.stat().st_size)
    index = source / _INDEX
    if index.is_file() and (target / index.name) != index:
        content: dict[str, Any] = read_json(index)
        content["weight_map"] = dict(sorted({**content["weight_map"], **added}.items()))
        sizes = (_tensor_bytes(target / file.name) for file in weight_files(source, name))
        content["metadata"] = {**content.get("metadata", {}), "total_size": sum(sizes)}
        write_json(target / _INDEX, content)


def _copy(
    source: Path, target: Path, changes: Mapping[str, Change], dtype: torch.dtype | None
) -> dict[str, str]:
    """Copy a file; which tensors it then holds, where any was changed."""
    with safe_open(str(source), framework="pt") as stored:
        names = list(stored.keys())
        if dtype is None and not any(name in changes for name in names):
            shutil.copyfile(source, target)
            return {}
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensor = stored.get_tensor(name)
            changed = changes[name](tensor) if name in changes else {name: tensor}
            tensors.update({key: _as(one, dtype) for key, one in changed.items()})
        save_file(tensors, target, metadata=stored.metadata() or {"format": "pt"})
        # What the library writes is for its owner alone; a server may be somebody else's.
        target.chmod(0o644 & ~_umask())
    return dict.fromkeys(tensors, target.name)


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in another number format, where it holds numbers that can be rounded to it."""
    return tensor.to(dtype) if dtype is not None and tensor.dtype in _ROUNDED else tensor


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _tensor_bytes(file: Path) -> int:
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    return max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
