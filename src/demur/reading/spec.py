"""`FILE` or `FILE:FIELD`: how people name what is read of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEXT, TABLE, LINES, JSON, PARQUET, LOG = "text", "table", "lines", "json", "parquet", "log"

_KINDS = {
    ".txt": TEXT,
    ".csv": TABLE,
    ".tsv": TABLE,
    ".jsonl": LINES,
    ".ndjson": LINES,
    ".json": JSON,
    ".parquet": PARQUET,
    ".eval": LOG,
}
ENDINGS = tuple(_KINDS)
"""How the names of files end that are read; each may be followed by `.gz`, but for the last two."""


@dataclass(frozen=True)
class FileSpec:
    """A file, and the field of it that is meant.

    Attributes:
        path: path of the file.
        field: name of a column, or a dotted path into JSON; None where none is named.
    """

    path: Path
    field: str | None = None

    @classmethod
    def parse(cls, spec: str) -> FileSpec:
        """Split a spec at the first colon that follows the name of a file.

        A colon may also stand in a file's name, after a drive letter, and in a field's name. A spec
        that is an existing file is that file.

        Example:
            >>> FileSpec.parse("answers.json.gz:output.text").field
            'output.text'
        """
        if exists(Path(spec)):
            return cls(Path(spec))
        for position, character in enumerate(spec):
            if character == ":" and kind_of(Path(spec[:position])) is not None:
                return cls(Path(spec[:position]), spec[position + 1 :] or None)
        return cls(Path(spec))

    @property
    def kind(self) -> str | None:
        """What the file's name says that it holds; None where it says nothing known."""
        return kind_of(self.path)

    @property
    def name(self) -> str:
        """Name of the file, with the field: what it is called in results."""
        return self.path.name if self.field is None else f"{self.path.name}:{self.field}"

    @property
    def stem(self) -> str:
        """Name of the file without its endings."""
        name = self.path.name
        name = name[:-3] if name.lower().endswith(".gz") else name
        return Path(name).stem


def kind_of(path: Path) -> str | None:
    """What a file's name says that it holds, whether it is gzipped or not."""
    name = path.name.lower()
    packed = name.endswith(".gz")
    kind = _KINDS.get(Path(name[:-3] if packed else name).suffix)
    return None if packed and kind in (PARQUET, LOG) else kind


def exists(path: Path) -> bool:
    """Whether there is something at a path; any text may be asked about."""
    try:
        return str(path) != "." and path.exists()
    except (OSError, ValueError):  # a name too long, or one that no file can have
        return False
