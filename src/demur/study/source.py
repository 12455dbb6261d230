"""What a study's settings are made from, as another machine is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StudySource:
    """What a study's settings are made from, as plain values; see `study_settings`.

    Attributes:
        given: what the study's file has, as tables.
        name: name of the study where it is not given.
        where: the file, for messages; empty for values from Python.
    """

    given: Mapping[str, Any]
    name: str
    where: str
