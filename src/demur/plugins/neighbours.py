"""Which other modules of the same folder a user's module imports, and what is in them."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()


@dataclass(frozen=True)
class Neighbour:
    """A module that is loaded from the folder of the one that imports it.

    Attributes:
        name: name by which it is imported.
        file: where it was loaded from.
        digest: SHA-256 (64 hex digits) of the file's bytes.
    """

    name: str
    file: Path
    digest: str

    @property
    def is_unchanged(self) -> bool:
        """Whether the file still holds the same bytes."""
        return _digest(self.file) == self.digest


def neighbours_of(
    source: bytes, folder: Path, package: str | None = None, more: Iterable[str] = ()
) -> tuple[Neighbour, ...]:
    """The loaded modules beneath a folder that a source imports, directly or through others.

    Installed packages and the standard library are left out, wherever they lie.

    Args:
        source: Python source.
        folder: the folder.
        package: package that the source belongs to, which relative imports start at.
        more: names of further modules that it is known to import.

    Returns:
        The modules in the order of their names.
    """
    found: dict[str, Neighbour] = {}
    waiting = [*more, *_imported(source, package)]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        file = None if name in found or module is None else _own_file(module, folder)
        if module is None or file is None:
            continue
        digest = _digest(file)
        if digest is not None:
            found[name] = Neighbour(name, file, digest)
            waiting += _imported(file.read_bytes(), module.__package__)
    return tuple(found[name] for name in sorted(found))


def digests_of(neighbours: Iterable[Neighbour]) -> list[str]:
    """The names and digests of modules, in their order."""
    return [f"{one.name} {one.digest}" for one in neighbours]


def loaded_beneath(folder: Path) -> set[str]:
    """Names of the modules that are loaded from files beneath a folder."""
    modules = list(sys.modules.items())
    return {name for name, module in modules if _own_file(module, folder) is not None}


def is_installed(file: Path) -> bool:
    """Whether a file belongs to an installed package or to Python itself."""
    return bool(_INSTALLED & {*file.parts}) or file.is_relative_to(_STANDARD)


def _own_file(module: ModuleType, folder: Path) -> Path | None:
    """The file of a module beneath a folder; None for any other module."""
    name = getattr(module, "__file__", None)
    if not isinstance(name, str) or getattr(module, "__name__", "").split(".")[0] == "demur":
        return None
    file = Path(name).resolve()
    inside = file.is_relative_to(folder) and not is_installed(file.relative_to(folder))
    return file if inside and not file.is_relative_to(_STANDARD) else None


def _imported(source: bytes, package: str | None) -> Iterator[str]:
    """Every name that may be a module in the import statements of a source."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # written in C, for example
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            try:
                base = resolve_name(base, package or None)
            except ImportError:
                continue
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None
