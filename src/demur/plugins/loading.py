"""Load an object that the user names as `file.py:Name`.

The file is run, with all the rights of the user. So a spec may come from the user only: from an
argument, an option or a configuration file that the user wrote, never from a run's folder or the
hub.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from demur.errors import DemurError
from demur.plugins.errors import PLUGIN, describe_error
from demur.plugins.neighbours import Neighbour, digests_of, loaded_beneath, neighbours_of

_ENDING = ".py"
_NAMES_SHOWN = 8


@dataclass(frozen=True)
class LoadedFile:
    """A user's file that has been run.

    Attributes:
        module: module object that the file filled.
        digest: SHA-256 (64 hex digits) of the bytes that were run.
        neighbours: modules of the file's folder that it imports, directly or through others.
    """

    module: ModuleType
    digest: str
    neighbours: tuple[Neighbour, ...]

    @property
    def content(self) -> list[str]:
        """Digests of everything that was run, and the names that it was imported by."""
        return [self.digest, *digests_of(self.neighbours)]

    def is_current(self, digest: str) -> bool:
        """Whether the file, which has a digest now, and its neighbours are as they were."""
        return self.digest == digest and all(one.is_unchanged for one in self.neighbours)


_loaded: dict[str, LoadedFile] = {}
"""Files that were run in this process, by the names of their modules."""

_imported_here: set[str] = set()
"""Modules that such files imported from their folders, so that they can be imported again."""


def is_plugin_spec(spec: str) -> bool:
    """Whether `spec` is meant as `file.py:Name`; the file need not exist."""
    path, _, _ = spec.rpartition(":")
    return path.endswith(_ENDING) or spec.endswith(_ENDING)


def load_plugin(spec: str) -> object:
    """The object, class or function that `spec` names in a Python file of the user.

    The file is run once in a process, and again after its content or that of a module has changed
    that it imports from its folder. While it runs, its folder can be imported from, as with `python
    file.py`; afterwards `sys.path` is as before. No bytecode is written.

    Args:
        spec: path of a Python file, a colon and a name that the file defines, for example
            `judges/mine.py:KeywordJudge`. A relative path starts at the working directory.

    Raises:
        DemurError: the spec is malformed, there is no such file or name, or the file fails.
    """
    path, name = split_spec(spec)
    module = load_file(path).module
    try:
        return getattr(module, name)
    except AttributeError:
        defined = _defined_names(module)
        choices = f"choose from {', '.join(defined)}" if defined else "define it there"
        raise DemurError(f"{str(path)!r} defines no {name!r:.60}: {choices}.") from None


def split_spec(spec: str) -> tuple[Path, str]:
    """The path and the name of a spec; the last colon separates them (a drive has one as well).

    Raises:
        DemurError: the spec is malformed.
    """
    path, colon, name = spec.rpartition(":")
    if spec.endswith(_ENDING) or (colon and not name.strip()):
        raise DemurError(f"{spec!r:.200} names no object: write FILE.py:NAME.")
    if not path.endswith(_ENDING):
        raise DemurError(f"{spec!r:.200} names no Python file: write FILE.py:NAME.")
    if not name.isidentifier():
        raise DemurError(f"{name!r:.60} is not a Python name: write FILE.py:NAME.")
    return Path(path).expanduser(), name


def load_file(path: Path) -> LoadedFile:
    """Run a Python file, unless the same content has been run already.

    Raises:
        DemurError: the file cannot be read or fails.
    """
    try:
        absolute = path.resolve()
        source = absolute.read_bytes()
    except FileNotFoundError:
        raise DemurError(f"There is no file {str(path)!r}: check the path.") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise DemurError(
            f"{str(path)!r} cannot be read ({describe_error(error)}): check the path."
        ) from error
    name, digest = _module_name(absolute), hashlib.sha256(source).hexdigest()
    known = _loaded.get(name)
    if known is None or not known.is_current(digest):
        _forget(known, absolute.parent)
        before = loaded_beneath(absolute.parent)
        try:
            module = _run(absolute, name, source)
        except (Exception, SystemExit) as error:
            raise DemurError(
                f"{str(path)!r} cannot be imported ({describe_error(error)}): correct the file."
            ) from error
        new = loaded_beneath(absolute.parent) - {*before, name}
        _imported_here.update(new)
        neighbours = neighbours_of(source, absolute.parent, more=new)
        known = _loaded[name] = LoadedFile(module, digest, neighbours)
    return known


def _forget(known: LoadedFile | None, folder: Path) -> None:
    """Let a file import its neighbours as they are now, and not those of another folder."""
    old = {one.name for one in known.neighbours} if known is not None else set[str]()
    for name in _imported_here:  # what something else imported is left alone
        top = name.partition(".")[0]
        wanted = PathFinder.find_spec(top, [str(folder)])
        loaded = getattr(sys.modules.get(top), "__file__", None)
        if name in old or (wanted is not None and wanted.origin != loaded):
            old.add(name)
    for name in old & _imported_here:
        sys.modules.pop(name, None)


def loaded_module(name: str) -> LoadedFile | None:
    """The user's file that was run as the module `name`, if there is one."""
    return _loaded.get(name)


def _module_name(path: Path) -> str:
    """The same for the same path, and different for files of one name in different folders."""
    place = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{PLUGIN}{path.stem}_{place[:12]}"


def _run(path: Path, name: str, source: bytes) -> ModuleType:
    specification = spec_from_file_location(name, path)
    if specification is None:
        raise ImportError("not a Python file")
    module = module_from_spec(specification)
    before = sys.modules.get(name)
    # Dataclasses, pickle and inspect look modules up by name.
    sys.modules[name] = module
    try:
        with _folder_importable(path.parent):
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


@contextmanager
def _folder_importable(folder: Path) -> Iterator[None]:
    entry, writes_none = str(folder), sys.dont_write_bytecode
    sys.path.insert(0, entry)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        with suppress(ValueError):
            sys.path.remove(entry)


def _defined_names(module: ModuleType) -> list[str]:
    """Classes and functions of the file itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ][:_NAMES_SHOWN]
