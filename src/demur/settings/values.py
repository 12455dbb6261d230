"""Values of settings: read, checked, and put together into a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from demur.errors import DemurError
from demur.settings.options import NONE, Option, Single, Value, group_of, options_in

Model = TypeVar("Model", bound=BaseModel)

_MOST_SHOWN = 60
MOST_NUMBER = 10**9
"""The largest number for a setting that names no limit of its own."""

MOST_CHARACTERS = 4000
"""The longest text or path in a setting: no system has longer paths."""


def values_of(settings: BaseModel) -> dict[str, Value]:
    """The value of every setting, by its name."""
    return {option.name: value_of(settings, option) for option in options_in(type(settings))}


def build(
    model: type[Model], values: Mapping[str, object], base: Model | None = None, where: str = ""
) -> Model:
    """Settings from values by name, checked.

    Args:
        model: type of the settings.
        values: values by the settings' names; numbers may be given as text, also as `2%`.
        base: settings that hold for names without a value; None for the model's defaults.
        where: file that the values come from, for messages.

    Raises:
        DemurError: there is no such setting, or a value has the wrong type or is out of range.
    """
    options = {option.name: option for option in options_in(model)}
    for name in values:
        if name not in options:
            raise unknown_setting(name, list(options), where)
    chosen: dict[str, object] = {} if base is None else dict(values_of(base))
    for name, value in values.items():
        default = options[name].default if base is None else chosen[name]
        chosen[name] = _read(options[name], value, where, default)
    for option in options.values():
        if option.required and option.name not in chosen:
            told = f"{option.flag!r} is missing: give the {option.description}"
            raise DemurError(f"{option.missing or told}.")
    try:
        return model.model_validate(_nested(model, chosen))
    except ValidationError as error:
        raise _explained(error, options, {**chosen, **values}, where) from None


def as_choice(option: Option, given: object) -> object:
    """A value of a setting with a fixed choice as the choice is written; any other one as it is.

    Args:
        option: the setting.
        given: the value. Upper and lower case are the same: `GGUF` is `gguf`.
    """
    if not isinstance(given, str):
        return given
    folded = given.casefold()
    return next((choice for choice in option.choices if choice.casefold() == folded), given)


def part_of(settings: BaseModel, model: type[Model]) -> Model:
    """Settings of another model, with values from settings that include its own.

    Args:
        settings: settings whose names include all names of `model`.
        model: type of the settings to return.

    Raises:
        DemurError: a value does not suit `model`.
    """
    values = values_of(settings)
    return build(model, {option.name: values[option.name] for option in options_in(model)})


def value_of(settings: BaseModel, option: Option) -> Value:
    """The value of one setting."""
    found: Any = settings
    for name in (*option.groups, option.name):
        found = getattr(found, name)
    value: Value = found
    return value


def _read(option: Option, given: object, where: str, default: object) -> Value:
    """A value as its setting has it; its range is checked by the model."""
    if option.positional and given == "":  # as a variable of a shell is that was never set
        name = option.metavar.strip("[].")
        or_none = "" if option.required else ", or leave it out"
        raise DemurError(f"{name} is empty: give one{or_none}.")
    empty = "" if option.keeps_none else NONE
    if given is None or (option.optional and given == empty):
        if option.optional:
            return None
        raise mistake(option, NONE, f"must be {option.wanted}", where)
    if not option.repeatable:
        return _read_one(option, given, where)
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    if several == [""]:  # nothing in place of the default; where that is nothing it is a mistake
        if default == ():
            raise mistake(
                option, "", f"must not be empty: give one, or leave {option.flag} out", where
            )
        return ()
    return tuple(_read_one(option, x, where) for x in several)


def _read_one(option: Option, given: object, where: str) -> Single:
    found: Single | None = None
    if option.kind is bool:
        found = given if isinstance(given, bool) else None
    elif option.kind is int or option.kind is float:
        found = _number(option.kind, given)
    elif option.kind is str:
        chosen = as_choice(option, given)
        found = chosen if isinstance(chosen, str) else None
    elif isinstance(given, (str, Path)) and str(given):
        found = Path(given)
    if found is None:
        raise mistake(option, given, f"must be {option.wanted}", where)
    if isinstance(found, int | float) and not option.has_limit and found > MOST_NUMBER:
        raise mistake(option, given, f"must be at most {MOST_NUMBER}", where)
    if isinstance(found, str | Path) and (problem := _unusable(str(found))) is not None:
        raise mistake(option, given, problem, where)
    return found


def _unusable(text: str) -> str | None:
    """What keeps a text or a path from being used anywhere; None where it is one."""
    if "\0" in text:
        return "must not hold a null character"
    if len(text) > MOST_CHARACTERS:
        return f"must have at most {MOST_CHARACTERS} characters"
    return None


def _number(kind: type[int] | type[float], given: object) -> int | float | None:
    if isinstance(given, bool) or not isinstance(given, (str, Real)):
        return None
    if kind is float and isinstance(given, str) and given.strip().endswith("%"):
        percent = given.strip().removesuffix("%")
        hundredfold = None if percent.endswith("%") else _number(float, percent)
        return None if hundredfold is None else hundredfold / 100
    try:
        number = kind(given if isinstance(given, (str, int, float)) else float(given))
        exact = isinstance(given, str) or number == given
        return number if exact and math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


def _nested(model: type[BaseModel], values: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = group_of(field)
        if inner is not None:
            nested[name] = _nested(inner, values)
        elif name in values:
            nested[name] = values[name]
    return nested


def _explained(
    error: ValidationError, options: Mapping[str, Option], values: Mapping[str, object], where: str
) -> DemurError:
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    option = next((options[name] for name in reversed(names) if name in options), None)
    own = first.get("ctx", {}).get("error")
    message = str(own) if own is not None else str(first["msg"])
    if option is None:
        return DemurError(f"{message[:1].upper()}{message[1:].rstrip('.')}{_in(where)}.")
    if first["type"] == "too_short":
        told = "must have a value"
    else:
        told = f"must be {option.range}" if own is None and option.range else message
    return mistake(option, values.get(option.name), told, where)


def mistake(option: Option, given: object, problem: str, where: str) -> DemurError:
    """The error for a value that a setting cannot have."""
    value = " ".join(map(str, given)) if isinstance(given, (list, tuple)) else str(given)
    shown = _shown(value) or "''"
    return DemurError(f"{option.flag} {shown}{_in(where)}: {problem.rstrip('.')}.")


def unknown_setting(name: str, known: Sequence[str], where: str) -> DemurError:
    """The error for a name that is no setting; it names the nearest one.

    Args:
        name: the name, with the tables that it stands in.
        known: names of the settings, with their groups.
        where: file that the name is from; may be empty.
    """
    below = [one for one in known if one.startswith(f"{name}.")]
    if below:
        return DemurError(
            f"{_shown(name)!r} is a group of settings{_in(where)}: write [{name}] and below it its "
            f"settings, for example {below[0].rpartition('.')[2]}."
        )
    # A name is compared without its tables, which may be right where it is not.
    last = {one.rpartition(".")[2]: one for one in known}
    near = get_close_matches(name.rpartition(".")[2], last, 1)
    fix = "leave it out"
    if near:
        fix = f"write {(last[near[0]] if '.' in name else near[0])!r}"
    return DemurError(f"There is no setting {_shown(name)!r}{_in(where)}: {fix}.")


def _in(where: str) -> str:
    return f" (in {_shown(where)})" if where else ""


def _shown(text: str) -> str:
    line = "".join(one if one.isprintable() else "?" for one in text)
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."
