"""A finished diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.diagnosis.sheet import Sheet
from demur.errors import DemurError
from demur.files import read_json, write_json
from demur.runs import RunFolder

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RESULT = "diagnosis.json"


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` returns.

    Attributes:
        path: the folder, with the figures and every judged response.
        settings: what was read, how, and of which model.
        verdict: what the numbers say, one statement each.
        sheet: the numbers.
        versions: of the packages that computed them.
    """

    path: Path
    settings: Mapping[str, Any]
    verdict: tuple[str, ...]
    sheet: Sheet
    versions: Mapping[str, str]

    @classmethod
    def load(cls, path: str | Path) -> Diagnosis:
        """Read the folder of a finished diagnosis.

        Raises:
            DemurError: it holds none, an unfinished one, or a damaged one.
        """
        folder = RunFolder.open(Path(path))
        file = folder.path / RESULT
        if not file.is_file():
            raise DemurError(
                f"The diagnosis in {path} is not finished: run its command again to go on."
            )
        saved = read_json(file)
        try:
            return cls(
                path=folder.path,
                settings=folder.settings(),
                verdict=tuple(saved["verdict"]),
                sheet=_reader().validate_python(saved["sheet"]),
                versions=dict(saved["versions"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DemurError(f"{file} is damaged: delete it and run the command again.") from error

    def save(self) -> None:
        """Write `diagnosis.json`, which marks a diagnosis as finished."""
        write_json(
            self.path / RESULT,
            {
                "verdict": list(self.verdict),
                "sheet": asdict(self.sheet),
                "versions": dict(self.versions),
            },
        )

    def __str__(self) -> str:
        return "\n".join(self.verdict)


def current_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    return {name: version(name) for name in ("demur", "torch", "transformers")}


@cache
def _reader() -> TypeAdapter[Sheet]:
    from pydantic import TypeAdapter

    return TypeAdapter(Sheet)
