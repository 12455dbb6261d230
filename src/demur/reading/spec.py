"""`FILE`, `FILE:FIELD` or `hf:ORG/NAME:COLUMN`: how people name what is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from demur.errors import DemurError
from demur.reading.data_sets import HUB_PREFIX, DataSet

TEXT, TABLE, LINES, JSON, PARQUET, LOG = "text", "table", "lines", "json", "parquet", "log"
ROWS = "rows of a data set"

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
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

ENDINGS = tuple(_KINDS)
"""How the names of files end that are read; each may be followed by `.gz`, but for the last two."""


@dataclass(frozen=True)
class FileSpec:
    """A file or a data set, and the field of it that is meant.

    Attributes:
        path: path of the file; for a data set only its name.
        field: name of a column, or a dotted path into JSON; None where none is named.
        data_set: the data set, or None for a file.
    """

    path: Path
    field: str | None = None
    data_set: DataSet | None = None

    @classmethod
    def parse(cls, spec: str) -> FileSpec:
        """Split a spec at the first colon that follows the name of a file.

        A colon may also stand in a file's name, after a drive letter, and in a field's name. A spec
        that is an existing file is that file.

        Raises:
            DemurError: it begins with `hf:` and names no data set, or it is an address.

        Example:
            >>> FileSpec.parse("answers.json.gz:output.text").field
            'output.text'
        """
        if exists(Path(spec)):
            return cls(Path(spec))
        if spec.startswith(HUB_PREFIX):
            found = DataSet.parse(spec)
            return cls(Path(HUB_PREFIX + found.source), found.column, found)
        if _ADDRESS.match(spec):
            raise DemurError(
                f"{spec!r:.300} is an address and no file: download the file and give its path, or "
                f"name a data set of the hub as {HUB_PREFIX}ORG/NAME:COLUMN."
            )
        for position, character in enumerate(spec):
            if character == ":" and kind_of(Path(spec[:position])) is not None:
                return cls(Path(spec[:position]), spec[position + 1 :] or None)
        return cls(Path(spec))

    @property
    def kind(self) -> str | None:
        """What the file's name says that it holds; None where it says nothing known."""
        return ROWS if self.data_set is not None else kind_of(self.path)

    @property
    def name(self) -> str:
        """Name of the file, with the field: what it is called in results."""
        name = self.path.name if self.data_set is None else self.data_set.source
        return name if self.field is None else f"{name}:{self.field}"

    @property
    def stem(self) -> str:
        """Name of the file without its endings."""
        if self.data_set is not None:
            return self.data_set.source
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
