"""What is recorded of an answerer."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from demur.records import FilesRecord, ModelRecord, ServerRecord

AnswererRecord: TypeAlias = ModelRecord | ServerRecord | FilesRecord


def short_name(record: AnswererRecord) -> str:
    """A name for people, which an evaluation's folder is named after."""
    if isinstance(record, FilesRecord):
        return "responses-" + "-".join(Path(file.name).stem for file in record.files)
    return Path(record.name).name
