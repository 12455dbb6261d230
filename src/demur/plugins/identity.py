"""Fingerprints of users' own objects, from their source and the values that they hold."""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import re
import sys
from contextlib import suppress
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TypeAlias

from demur.errors import DemurError
from demur.plugins.loading import load_file, load_plugin, loaded_module, split_spec
from demur.plugins.neighbours import digests_of, is_installed, neighbours_of
from demur.records.fingerprint import fingerprint

Plain: TypeAlias = "bool | int | str | list[Plain] | None"

_DEEPEST = 12


class _Opaque(Exception):
    """Holds the kind of a value whose content cannot be identified."""


def source_fingerprint(thing: object) -> str:
    """Fingerprint of an object, class or function that a user hands over.

    It covers the qualified name, the bytes of the source file and of every module that it imports
    from its folder or package, directly or through others, those of base classes, and the values
    that an object holds, or that a function has as defaults or encloses. Where there is no file, as
    in a notebook, it covers the bytecode, and of a function the global values that it names. Of an
    object with an attribute `fingerprint`, that stands for its values. What the code reads
    elsewhere is not covered: data files, installed packages, modules of other folders.

    Raises:
        DemurError: the object holds a value whose content cannot be identified, for example a
            model.
    """
    try:
        return fingerprint("own code", thing=_describe(thing, 0))
    except _Opaque as error:
        name = getattr(thing, "__qualname__", type(thing).__qualname__)
        raise DemurError(
            f"{name!r:.80} holds a value of type {error.args[0]!r:.60}, so demur cannot tell when "
            "its results may change: give it a text attribute 'fingerprint' and change that "
            "whenever they may."
        ) from None


def plugin_fingerprint(spec: str) -> str:
    """Fingerprint of what `load_plugin(spec)` returns.

    It covers the name, the file's bytes and those of every module that it imports from its folder,
    directly or through others; for a class or a function that the file imports, the bytes of the
    file that defines it too. What an object holds follows from the file. Data files and installed
    packages are not covered.

    Raises:
        DemurError: as `load_plugin`.
    """
    path, name = split_spec(spec)
    thing = load_plugin(spec)
    defined = thing if isinstance(thing, (type, FunctionType)) else type(thing)
    source: Plain = _class(defined) if isinstance(defined, type) else _source(defined)
    return fingerprint("own file", name=name, file=load_file(path).content, source=source)


def _describe(value: object, depth: int) -> Plain:
    """Plain data that differs where two values differ."""
    if depth > _DEEPEST:
        raise _Opaque(type(value).__qualname__)
    below = depth + 1
    if value is None:
        return None
    if isinstance(value, (bool, int, str)) and type(value) in (bool, int, str):
        return value
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return [type(value).__name__, *(_describe(each, below) for each in value)]
    if isinstance(value, (set, frozenset)) and type(value) in (set, frozenset):
        return ["set", *sorted((_describe(each, below) for each in value), key=repr)]
    if isinstance(value, dict) and type(value) is dict:
        pairs = ([_describe(key, below), _describe(each, below)] for key, each in value.items())
        return ["dict", *sorted(pairs, key=repr)]
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, FunctionType):
        return _function(value, below)
    if isinstance(value, MethodType):
        return ["method", _describe(value.__func__, below), _describe(value.__self__, below)]
    if isinstance(value, functools.partial):
        held = (value.func, value.args, value.keywords)
        return ["partial", *(_describe(each, below) for each in held)]
    return _atom(value) or _instance(value, below)


def _atom(value: object) -> Plain:
    """The same for a value of a known type that has no parts; None for others."""
    if isinstance(value, enum.Enum):
        return ["enum", type(value).__qualname__, value.name]
    if type(value) in (float, complex, bytes) or value is Ellipsis:
        return [type(value).__name__, repr(value)]
    if isinstance(value, PurePath):
        return ["path", str(value)]
    if isinstance(value, re.Pattern):
        return ["pattern", repr(value.pattern), value.flags]
    np = sys.modules.get("numpy")  # loaded where a value is an array, and slow to load elsewhere
    if np is not None and isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return ["array", str(value.dtype), list(value.shape), content]
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    if isinstance(value, BuiltinFunctionType):
        owner = _atom(value.__self__)
        return ["builtin", value.__qualname__, owner] if owner else None
    if isinstance(value, CodeType):
        return _code(value)
    return None


def _instance(value: object, below: int) -> Plain:
    kinds = type(value).__mro__[:-1]
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):
        return ["object", _class(type(value)), ["fingerprint", own]]
    if any(_is_native(kind) for kind in kinds):
        raise _Opaque(type(value).__qualname__)
    state = dict(getattr(value, "__dict__", {}))
    for kind in kinds:
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                state[name] = getattr(value, name)
    return ["object", _class(type(value)), _describe(state, below)]


def _is_native(kind: type) -> bool:
    """Whether a class is written in C, so that its instances hold more than Python shows."""
    for value in vars(kind).values():
        if isinstance(value, (WrapperDescriptorType, MethodDescriptorType)):
            owner: object = value.__objclass__
        else:
            owner = value.__self__ if isinstance(value, BuiltinFunctionType) else None
        if owner is kind and kind.__module__ != "typing":
            return True
    return False


def _class(kind: type) -> Plain:
    """Qualified names and sources of a class and its bases."""
    return ["class", *([each.__qualname__, _source(each)] for each in kind.__mro__[:-1])]


def _function(function: FunctionType, below: int) -> Plain:
    enclosed: list[object] = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # raised for a cell that is not filled yet
            enclosed.append(cell.cell_contents)
    held = (function.__defaults__, function.__kwdefaults__, enclosed)
    described = (_describe(each, below) for each in held)
    return ["function", function.__qualname__, _source(function), *described]


def _globals(function: FunctionType, below: int) -> Plain:
    """The global values that a function names; of other functions their code."""
    waiting, names = [function.__code__], set[str]()
    while waiting:
        code = waiting.pop()
        names.update(code.co_names)
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
    found: list[Plain] = []
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        other = isinstance(value, FunctionType)
        found.append([name, _code(value.__code__) if other else _describe(value, below)])
    return found


def _source(thing: type | FunctionType) -> Plain:
    """Digests of the file that defines a class or function, and of what it imports nearby.

    Where there is no file, its bytecode, and the global values of a function.
    """
    loaded = loaded_module(thing.__module__)
    if loaded is not None:
        return [*loaded.content]
    try:
        file = inspect.getsourcefile(thing)
        if file is not None and Path(file).is_file():
            return _file(Path(file).resolve(), thing.__module__)
    except (TypeError, OSError):
        pass
    if isinstance(thing, FunctionType):
        return [_code(thing.__code__), _globals(thing, _DEEPEST - 3)]
    members = ([name, _member(name, each)] for name, each in sorted(vars(thing).items()))
    return [thing.__module__, *(member for member in members if member[1] is not None)]


def _file(file: Path, module: str) -> Plain:
    """Digests of a module's file and of the modules that it imports from its folder or package."""
    source = file.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if is_installed(file) or module.split(".", maxsplit=1)[0] == "demur":
        return digest
    package = getattr(sys.modules.get(module), "__package__", None) or ""
    folder = file.parent
    for _ in range(package.count(".")):  # up to the outermost package
        folder = folder.parent
    near = neighbours_of(source, folder, package)
    return [digest, *digests_of(one for one in near if one.file != file)]


def _member(name: str, value: object) -> Plain:
    """A method or an attribute of a class without a source file; None for what Python adds."""
    function = getattr(value, "__func__", getattr(value, "fget", value))
    if isinstance(function, FunctionType):
        return _code(function.__code__)
    if name.startswith("__"):
        return None
    try:
        return _describe(value, _DEEPEST - 3)
    except _Opaque:
        return type(value).__qualname__


def _code(code: CodeType) -> Plain:
    constants = [_describe(constant, 0) for constant in code.co_consts]
    return ["code", code.co_code.hex(), list(code.co_names), list(code.co_varnames), *constants]
