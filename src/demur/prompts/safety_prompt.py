"""`SafetyPrompt`: the text or the trained embeddings that open a conversation, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class SafetyPrompt:
    """The text or the trained embeddings that open a conversation. Two prompts are never equal.

    Raises `DemurError` where the parts do not make a prompt: neither text nor embeddings, blank
    text, embeddings that are not a finite L x d matrix, metadata that JSON cannot hold.
    """

    name: str
    """What tables and figures call the prompt: one printable line."""
    text: str | None
    """The prompt itself; of trained embeddings, the basic prompt whose place they take."""
    embeddings: torch.Tensor | None = None
    """The trained embeddings, L x d, float32, on the CPU; a copy of what was given."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON: the model and its identity, the chat template's fingerprint, settings, results."""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise DemurError(
                f"the safety prompt's name {shown(self.name)} must be one line of printable text"
            )
        _check_text(self.text, self.name)
        object.__setattr__(self, "metadata", _plain_json(self.metadata, self.name))
        if self.embeddings is not None:
            object.__setattr__(self, "embeddings", _checked_embeddings(self.embeddings, self.name))
        elif self.text is None:
            raise DemurError(
                f"the safety prompt {self.name!r} is empty; give it text or embeddings"
            )

    @property
    def is_trained(self) -> bool:
        """Whether the prompt is embeddings rather than text."""
        return self.embeddings is not None

    @property
    def rows(self) -> int:
        """L, the number of trained embeddings; 0 for text."""
        return 0 if self.embeddings is None else self.embeddings.shape[0]

    @property
    def width(self) -> int:
        """d, the length of each trained embedding; 0 for text."""
        return 0 if self.embeddings is None else self.embeddings.shape[1]

    def require_width(self, width: int) -> None:
        """Raise `DemurError` unless the prompt fits a model with embeddings of `width` numbers.

        Text fits every model.
        """
        if self.is_trained and self.width != width:
            raise DemurError(
                f"the safety prompt {self.name!r} was trained for a model with embeddings of "
                f"{self.width} numbers, this model's have {width}; use the model it was trained for"
            )

    @classmethod
    def load(cls, path: str | Path) -> SafetyPrompt:
        """Load a safety prompt from what `save` wrote, a run, or the paper's released format.

        `path` is a folder that `save` wrote, a run's folder (which holds one, `safety_prompt`),
        or a `.safetensors` file with the one tensor `soft_prompt` (L x d), as the paper's
        authors release theirs.

        Raises `DemurError` for anything else, and for files that are damaged or incomplete.
        """
        from demur.prompts.storage import load_safety_prompt

        return load_safety_prompt(Path(path))

    def save(self, folder: str | Path) -> None:
        """Write the prompt to `folder`: all of it or, where that fails, none.

        Text and metadata go to `safety_prompt.json`, trained embeddings to
        `safety_prompt.safetensors`. A safety prompt that is already there is replaced.

        Raises `DemurError` where the disk is full, the place cannot be written, or the folder
        holds anything but a safety prompt.
        """
        from demur.prompts.storage import save_safety_prompt

        save_safety_prompt(self, Path(folder))


def shown(text: str | Path) -> str:
    """`text` in quotes, on one line and of a bearable length, for messages."""
    quoted = repr(str(text))
    return quoted if len(quoted) <= 200 else f"{quoted[:197]}..."


def printable_name(file_name: str) -> str:
    """A file's name as the name of a prompt."""
    return "".join(char if char.isprintable() else "?" for char in file_name)


def _check_text(text: str | None, name: str) -> None:
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


def _plain_json(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
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


def _checked_embeddings(embeddings: torch.Tensor, name: str) -> torch.Tensor:
    import torch

    check_shape(tuple(embeddings.shape), name)
    if not embeddings.is_floating_point():
        raise DemurError(
            f"the embeddings of the safety prompt {name!r} are {embeddings.dtype}; "
            "they must be floating-point numbers"
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
    """Raise `DemurError` unless `shape` is L x d with both at least 1."""
    if len(shape) != 2 or 0 in shape:
        dimensions = " x ".join(str(size) for size in shape) or "a single number"
        raise DemurError(
            f"the embeddings of the safety prompt {name!r} are {dimensions}; they must be a matrix "
            "of one or more rows, as wide as the model's embeddings"
        )
