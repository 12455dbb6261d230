"""Checks of the parts of a safety prompt, and names that are fit for messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError

if TYPE_CHECKING:
    import torch

_MOST_SHOWN = 200


def shown(text: str | Path) -> str:
    """A text or path in quotes, on one line and at most 200 characters long, for messages."""
    quoted = repr(str(text))
    return quoted if len(quoted) <= _MOST_SHOWN else f"{quoted[: _MOST_SHOWN - 3]}..."


def printable_name(file_name: str) -> str:
    """The name of a file as the name of a prompt: characters that cannot be printed become `?`."""
    return "".join(char if char.isprintable() else "?" for char in file_name)


def check_name(name: str) -> None:
    """Check the name of a prompt.

    Raises:
        DemurError: it is not one line of printable text.
    """
    if not name.strip() or not name.isprintable():
        raise DemurError(
            f"The name {shown(name)} of a safety prompt is not one line of printable text: choose "
            "another name."
        )


def check_text(text: str | None, name: str) -> None:
    """Check the text of a prompt; None passes.

    Raises:
        DemurError: the text is blank or cannot be written as UTF-8.
    """
    if text is None:
        return
    if not text.strip():
        raise DemurError(
            f"The text of the safety prompt {name!r} is blank, a prompt of zero tokens: write some."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DemurError(
            f"The text of the safety prompt {name!r} holds half characters (lone surrogates): "
            "write it as UTF-8."
        ) from error


def checked_embeddings(embeddings: torch.Tensor, name: str) -> torch.Tensor:
    """A copy of embeddings, (L, d) float32 on the CPU.

    Raises:
        DemurError: they are not a finite L x d matrix of floating-point numbers.
    """
    import torch

    check_shape(tuple(embeddings.shape), name)
    if embeddings.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise DemurError(
            f"The embeddings of the safety prompt {name!r} are {embeddings.dtype}: give float16, "
            "bfloat16, float32 or float64."
        )
    # A copy, because training goes on in the tensor that was given.
    checked = embeddings.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not bool(torch.isfinite(checked).all()):
        raise DemurError(
            f"The embeddings of the safety prompt {name!r} hold infinite or undefined numbers: "
            "train it again, with a lower learning rate if this happens again."
        )
    return checked


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Check the shape of embeddings.

    Raises:
        DemurError: it is not that of a matrix with at least one row and column.
    """
    if len(shape) != 2 or 0 in shape:
        dimensions = " x ".join(str(size) for size in shape) or "a single number"
        raise DemurError(
            f"The embeddings of the safety prompt {name!r} are {dimensions}, not a matrix of one "
            "or more rows: give one that is as wide as the model's embeddings."
        )
