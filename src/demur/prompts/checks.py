"""What makes a safety prompt: checks of its parts, and names fit for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError

if TYPE_CHECKING:
    import torch


def shown(text: str | Path) -> str:
    """`text` in quotes, on one line and of a bearable length, for messages."""
    quoted = repr(str(text))
    return quoted if len(quoted) <= 200 else f"{quoted[:197]}..."


def printable_name(file_name: str) -> str:
    """A file's name as the name of a prompt."""
    return "".join(char if char.isprintable() else "?" for char in file_name)


def check_text(text: str | None, name: str) -> None:
    """Raise `DemurError` for text that is blank or cannot be UTF-8."""
    if text is None:
        return
    if not text.strip():
        raise DemurError(
            f"the text of the safety prompt {name!r} is blank, a prompt of zero tokens; write one"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DemurError(
            f"the text of the safety prompt {name!r} holds half characters (lone surrogates); "
            "write it as UTF-8"
        ) from error


def plain_json(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of `metadata` that a JSON file gives back unchanged."""
    try:
        text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
        text.encode("utf-8")
        plain: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DemurError(
            f"the metadata of the safety prompt {name!r} must be plain JSON ({shown(str(error))})"
        ) from error
    return plain


def checked_embeddings(embeddings: torch.Tensor, name: str) -> torch.Tensor:
    """A float32 copy on the CPU; raise `DemurError` unless it is a finite L x d matrix."""
    import torch

    check_shape(tuple(embeddings.shape), name)
    if embeddings.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise DemurError(
            f"the embeddings of the safety prompt {name!r} are {embeddings.dtype}; "
            "give float16, bfloat16, float32 or float64"
        )
    # A copy: training goes on in the tensor that was given.
    checked = embeddings.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not bool(torch.isfinite(checked).all()):
        raise DemurError(
            f"the embeddings of the safety prompt {name!r} hold infinite or undefined numbers; "
            "train it again, with a lower learning rate if this repeats"
        )
    return checked


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise `DemurError` unless the shape is that of a matrix with something in it."""
    if len(shape) != 2 or 0 in shape:
        dimensions = " x ".join(str(size) for size in shape) or "a single number"
        raise DemurError(
            f"the embeddings of the safety prompt {name!r} are {dimensions}; they must be a matrix "
            "of one or more rows, as wide as the model's embeddings"
        )
