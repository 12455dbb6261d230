"""`SafetyPrompt`: the text or the trained embeddings that open a conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.prompts.checks import check_name, check_text, checked_embeddings, printable_name, shown
from demur.prompts.provenance import Provenance
from demur.prompts.storage import (
    Content,
    find_prompt,
    read_folder,
    read_released,
    reading,
    write_folder,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class SafetyPrompt:
    """The text or the trained embeddings that open a conversation. Two prompts are never equal.

    Attributes:
        name: name of the prompt in tables and figures, one printable line; for people.
        text: text of the prompt; of trained embeddings, the text of the basic prompt whose place
            they take, or None where it is not known.
        embeddings: trained embeddings, (L, d) float32 on the CPU, a copy of what was given; None
            for a prompt of text.
        provenance: model, method, settings and results that the prompt comes from.

    Raises:
        DemurError: there is neither text nor embeddings, the text is blank, the embeddings are not
            a finite L x d matrix, or the name is not one printable line.

    Example:
        >>> SafetyPrompt("kind", "Be kind.").is_trained
        False
    """

    name: str
    text: str | None
    embeddings: torch.Tensor | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_text(self.text, self.name)
        if self.embeddings is not None:
            object.__setattr__(self, "embeddings", checked_embeddings(self.embeddings, self.name))
        elif self.text is None:
            raise DemurError(
                f"The safety prompt {self.name!r} is empty: give it text or embeddings."
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
        """Check that the prompt fits a model. Text fits every model.

        Args:
            width: d, the length of the model's embeddings.

        Raises:
            DemurError: the prompt was trained for embeddings of another length.
        """
        if self.is_trained and self.width != width:
            raise DemurError(
                f"The safety prompt {self.name!r} was trained for a model with embeddings of "
                f"{self.width} numbers, and this model's have {width}: use the model that it was "
                "trained for."
            )

    @classmethod
    def load(cls, path: str | Path) -> SafetyPrompt:
        """Load a safety prompt from a folder or file.

        Args:
            path: folder that `save` wrote, folder of a run (which holds one in `safety_prompt`), or
                `.safetensors` file with the one tensor `soft_prompt` (L x d), the format in which
                the paper's authors release their prompts.

        Raises:
            DemurError: it is anything else, or its files are damaged or incomplete.
        """
        with reading(Path(path)):
            found = find_prompt(Path(path))
            if found.is_dir():
                content, embeddings = read_folder(found)
            else:
                embeddings = read_released(found)
                content = Content.of(printable_name(found.stem), None, embeddings, Provenance())
        try:
            return cls(content.name, content.text, embeddings, content.provenance)
        except DemurError as error:
            raise DemurError(f"{shown(path)} cannot be used. {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write the prompt to a folder: all of it or, where that fails, nothing.

        The name, the text and the provenance go to `safety_prompt.json`, trained embeddings to
        `safety_prompt.safetensors`. A safety prompt that is already there is replaced.

        Args:
            folder: free place, empty folder, or folder with a safety prompt and nothing else.

        Raises:
            DemurError: the disk is full, the place cannot be written, or the folder holds anything
                but a safety prompt.
        """
        write_folder(Path(folder), self.files())

    def files(self) -> dict[str, bytes]:
        """The name and the content of each file that `save` writes."""
        content = Content.of(self.name, self.text, self.embeddings, self.provenance)
        return content.files(self.embeddings)
