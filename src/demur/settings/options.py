"""The settings of a pydantic model, as the command line and TOML files know them."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from demur.errors import DemurError

Single: TypeAlias = "bool | int | float | str | Path"
Value: TypeAlias = "Single | tuple[Single, ...] | None"
Kind: TypeAlias = "type[bool] | type[int] | type[float] | type[str] | type[Path]"

NONE = "none"
_KINDS: tuple[Kind, ...] = (bool, int, float, str, Path)
_NOUNS: dict[Kind, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}
_METAVARS: dict[Kind, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """One setting, as the command line and TOML files know it.

    Attributes:
        name: name of the field, for example `learning_rate`; unique in a command.
        groups: names of the fields that lead to it, the outermost first.
        panel: title of its group, or None for a setting outside any group.
        kind: type of a value: `bool`, `int`, `float`, `str` or `Path`.
        choices: all values there are, for a setting with a fixed choice; else empty.
        optional: whether the value may be None.
        repeatable: whether the value is a tuple, given by repeating the option.
        positional: whether the value is an argument, not an option.
        required: whether there is no default.
        default: default of the model.
        default_text: description of a default of None or `()`, where the model gives one.
        keeps_none: whether the text `none` is a value of its own, because None stands for a default
            that depends on other settings; an empty text stands for None then.
        description: what the setting is; starts in lower case, without a final period.
        bounds: the range of a number in words, for example "1 or more"; else empty.
        missing: what to say where a required one is not given; empty for what holds for all.
        has_limit: whether a number has a largest value; `limited` in `json_schema_extra` says that
            a validator knows it.
    """

    name: str
    groups: tuple[str, ...]
    panel: str | None
    kind: Kind
    choices: tuple[str, ...]
    optional: bool
    repeatable: bool
    positional: bool
    required: bool
    default: Value
    default_text: str | None
    keeps_none: bool
    description: str
    bounds: str
    has_limit: bool
    missing: str = ""

    @property
    def flag(self) -> str:
        """The setting on the command line, for example `--learning-rate`."""
        return self.name.replace("_", "-") if self.positional else _flag(self.name)

    @property
    def no_flag(self) -> str:
        """The option that turns a `bool` setting off."""
        return f"--no-{self.name.replace('_', '-')}"

    @property
    def key(self) -> str:
        """The setting's key in a TOML file, for example `training.learning_rate`."""
        return ".".join((*self.groups, self.name))

    @property
    def metavar(self) -> str:
        """What stands for a value in the help, for example `INTEGER`."""
        if self.positional:
            return self.flag.upper()
        return _METAVARS.get(self.kind, "TEXT")

    @property
    def range(self) -> str:
        """Allowed values in words, for example "1 or more"; empty where there is no limit."""
        return _either(self.choices) if self.choices else self.bounds

    @property
    def sentence(self) -> str:
        """What the setting is, with its range; what there is to choose from comes first.

        For example "auto or cpu: device of the computation." and "Seed of sampling (0 or more)."
        """
        if self.choices:
            return f"{self.range}: {self.description}."
        limits = f" ({self.bounds})" if self.bounds else ""
        return f"{self.description[0].upper()}{self.description[1:]}{limits}."

    @property
    def wanted(self) -> str:
        """Type and range of a value in words, for example "a whole number, 1 or more"."""
        if self.choices:
            return self.range
        return ", ".join(part for part in (_NOUNS[self.kind], self.bounds) if part)

    def text(self, value: Value) -> str:
        """A value as a person reads it: `yes`, `0.001`, `long, short`, `none`."""
        if value is None or value == ():
            return self.default_text or NONE
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        return _number_text(value) if isinstance(value, float) else str(value)


def options_in(model: type[BaseModel]) -> tuple[Option, ...]:
    """The settings of a model and of the models nested in it, in their order.

    Raises:
        DemurError: a setting has no description or a type that no option can have, or two
            settings have the same name.
    """
    return _options_in(model)


@cache
def _options_in(model: type[BaseModel]) -> tuple[Option, ...]:
    found = tuple(_walk(model, (), None))
    names = [option.name for option in found]
    for name in names:
        if names.count(name) > 1:
            raise DemurError(f"{model.__name__!r} has two settings {name!r}: rename one.")
    return found


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a group of settings; None for a setting."""
    inner = field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _walk(model: type[BaseModel], groups: tuple[str, ...], panel: str | None) -> list[Option]:
    found: list[Option] = []
    for name, field in model.model_fields.items():
        inner = group_of(field)
        if inner is not None:
            found += _walk(inner, (*groups, name), _title(inner) or panel)
        else:
            found.append(_option(model, name, field, groups, panel))
    return found


def _option(
    model: type[BaseModel], name: str, field: FieldInfo, groups: tuple[str, ...], panel: str | None
) -> Option:
    if not field.description:
        raise DemurError(
            f"The setting {name!r} of {model.__name__} has no description: write "
            "Field(..., description='...')."
        )
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    kind, choices, optional, repeatable = _shape(model, name, field.annotation)
    default_text = extra.get("default")
    return Option(
        name=name,
        groups=groups,
        panel=panel,
        kind=kind,
        choices=choices,
        optional=optional,
        repeatable=repeatable,
        positional=bool(extra.get("argument")),
        required=field.is_required(),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        default_text=str(default_text) if default_text is not None else None,
        keeps_none=bool(extra.get("keeps_none")),
        description=field.description,
        bounds=_bounds(field),
        has_limit=bool(extra.get("limited"))
        or any(
            getattr(constraint, name, None) is not None
            for constraint in field.metadata
            for name in ("le", "lt")
        ),
        missing=str(extra.get("missing", "")),
    )


def _shape(
    model: type[BaseModel], name: str, annotation: Any
) -> tuple[Kind, tuple[str, ...], bool, bool]:
    """Type of a value, its choices, whether it may be None, and whether there may be several."""
    optional = repeatable = False
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [one for one in get_args(annotation) if one is not type(None)]
        optional = len(inner) < len(get_args(annotation))
        annotation = inner[0] if len(inner) == 1 else annotation
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (...,):
        repeatable, annotation = True, get_args(annotation)[0]
    if get_origin(annotation) is Literal and all(isinstance(x, str) for x in get_args(annotation)):
        return str, get_args(annotation), optional, repeatable
    for kind in _KINDS:
        if annotation is kind:
            return kind, (), optional, repeatable
    raise DemurError(
        f"The setting {name!r} of {model.__name__} has a type that no option can have: use bool, "
        "int, float, str, Path, Literal, or a tuple of one of them."
    )


def _bounds(field: FieldInfo) -> str:
    found: dict[str, str] = {}
    for constraint in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            limit = getattr(constraint, name, None)
            if limit is not None:
                found[name] = f"{limit:.10g}"
    if found.keys() == {"ge", "le"}:
        return f"{found['ge']} to {found['le']}"
    words = {"gt": "more than {}", "ge": "{} or more", "lt": "less than {}", "le": "at most {}"}
    return ", ".join(text.format(found[name]) for name, text in words.items() if name in found)


def _number_text(number: float) -> str:
    return str(number).removesuffix(".0")


def _title(model: type[BaseModel]) -> str | None:
    lines = (model.__doc__ or "").strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
