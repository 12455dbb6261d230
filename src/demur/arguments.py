"""Arguments that a caller of a public function gives: one clear error for what does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike

from demur.errors import DemurError


def require_kind(name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Check the type of an argument.

    Args:
        name: name of the argument.
        value: its value.
        kinds: types that it may have.
        wanted: what to give, for the message, for example `a ChatModel, such as ChatModel.load()`.

    Raises:
        DemurError: it has another type.
    """
    if not isinstance(value, kinds):
        raise DemurError(f"{name!r} is {described(value)}: give {wanted}.")


def require_common(
    output: object = None,
    progress: object = None,
    preset: object = "",
    system_prompt: object = None,
) -> None:
    """Check the arguments that several functions have; None is allowed for each.

    Args:
        output: folder or file of the results.
        progress: reports progress.
        preset: name of a preset.
        system_prompt: text file.

    Raises:
        DemurError: one has another type.
    """
    require_path("output", output, "the path of a place for the results")
    require_path("system_prompt", system_prompt, "the path of a text file")
    require_kind("preset", preset, str, "the name of a preset, such as standard")
    if progress is not None and (isinstance(progress, type) or not _is_progress(progress)):
        raise DemurError(
            f"'progress' is {described(progress)}: give an object with the methods plan, stage "
            "and message, see demur.progress.Progress."
        )


def require_path(name: str, value: object, wanted: str) -> None:
    """Check an argument that is a path or None.

    Raises:
        DemurError: it is something else, or empty.
    """
    require_kind(name, "." if value is None else value, (str, PathLike), wanted)
    if value == "":
        raise DemurError(f"{name!r} is empty: give {wanted}.")


def require_several(name: str, value: object, wanted: str) -> None:
    """Check an argument that is a list or None; a single text is none.

    Raises:
        DemurError: it is something else.
    """
    if isinstance(value, (str, bytes, PathLike)):
        raise DemurError(
            f"{name!r} is the single value {str(value)!r:.60}: give a list of {wanted}."
        )
    if value is not None and not isinstance(value, Iterable):
        raise DemurError(f"{name!r} is {described(value)}: give a list of {wanted}.")


def described(value: object) -> str:
    """What a value is, for messages; the value itself is not trusted."""
    if value is None:
        return "None"
    kind = f"{value.__name__:.60}" if isinstance(value, type) else f"{type(value).__name__:.60}"
    if isinstance(value, type):
        return f"the class {kind}"
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def _is_progress(value: object) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("plan", "stage", "message"))
