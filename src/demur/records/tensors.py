"""Tensors in safetensors files that are checked when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.files import write_bytes
from demur.records.codec import canonical, damaged
from demur.records.fingerprint import tensor_fingerprint

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = "demur"


@dataclass(frozen=True)
class StoredTensors:
    """The content of a tensor file.

    Attributes:
        tensors: tensors by name, on the CPU.
        notes: plain JSON data that was stored beside them, or None.
    """

    tensors: Mapping[str, Tensor]
    notes: Any = field(default=None)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Any = None) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Args:
        path: file to write; an older one is replaced.
        tensors: tensors by name.
        notes: plain JSON data for the file's header.

    Raises:
        DemurError: the file cannot be written.
    """
    from safetensors.torch import save

    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # In one entry, since several would be written in an order of their own each time.
    header = canonical({"notes": notes, "sha256": _checksum(kept, notes)}).decode()
    write_bytes(path, save(kept, metadata={_HEADER: header}))


def read_tensors(path: Path) -> StoredTensors | None:
    """Read a file that `write_tensors` wrote; None where there is no such file.

    Raises:
        DemurError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = header["notes"]
        if header["sha256"] != _checksum(tensors, notes):
            raise ValueError("the checksum differs")
    except (SafetensorError, LookupError, TypeError, ValueError, OSError, RecursionError) as error:
        raise damaged(path) from error
    return StoredTensors(tensors, notes)


def _checksum(tensors: Mapping[str, Tensor], notes: Any) -> str:
    listed = [[name, tensor_fingerprint(tensors[name])] for name in sorted(tensors)]
    return hashlib.sha256(canonical([listed, notes])).hexdigest()
