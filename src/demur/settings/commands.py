"""Settings as commands: the options that differ from the defaults, and defaults in words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from demur.settings.options import NONE, Option, Single, Value, options_in
from demur.settings.values import value_of

Model = TypeVar("Model", bound=BaseModel)


def options_of(settings: Model, defaults: Model | None = None, *, every: bool = False) -> list[str]:
    """Command-line items, unquoted, of the settings that differ from the defaults.

    Args:
        settings: what was chosen.
        defaults: what holds without any option; None for the model's own defaults.
        every: whether those that do not differ are items as well, where defaults are not known.

    Returns:
        for example `["--learning-rate", "0.01", "--no-averaged-prompt"]`; positional settings
        come first.
    """
    arguments: list[str] = []
    items: list[str] = []
    for option in options_in(type(settings)):
        value = value_of(settings, option)
        default = option.default if defaults is None else value_of(defaults, option)
        is_default = value == default and not option.required
        if is_default and (not every or value == ()):
            continue
        if option.positional:
            arguments += [_plain(one) for one in _several(value)]
        elif isinstance(value, bool):
            items.append(option.flag if value else option.no_flag)
        else:
            empty = value is None and option.keeps_none
            for one in [""] if empty else _several(value) or [""]:
                items += item_of(option.flag, _plain(one))
    if any(argument.startswith("-") for argument in arguments):
        return [*items, "--", *arguments]
    return [*arguments, *items]


def item_of(flag: str, text: str) -> list[str]:
    """Command-line items, unquoted, of one option.

    Args:
        flag: for example `--basic-prompt`.
        text: its value; one that begins with a hyphen is joined to the flag.
    """
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def command_line(verb: str, items: Sequence[str]) -> str:
    """A command of demur, quoted for a POSIX shell.

    Args:
        verb: command, for example `optimize`.
        items: arguments and options, as `options_of` returns them.

    Example:
        `command_line("show", ["my run"])` is `demur show 'my run'`.
    """
    return shlex.join(["demur", verb, *items])


def default_text(option: Option, defaults: Mapping[str, BaseModel]) -> str:
    """The default of a setting in words, under every preset where they differ.

    Args:
        option: the setting.
        defaults: complete settings by the preset's name; the first is what holds without a
            choice. Empty where there are no presets.

    Returns:
        for example "3; quick 2, paper 40".
    """
    if not defaults:
        return option.text(option.default)
    texts = {name: option.text(value_of(one, option)) for name, one in defaults.items()}
    standard = next(iter(texts.values()))
    others = [f"{name} {text}" for name, text in texts.items() if text not in (standard, name)]
    return "; ".join([standard, *([", ".join(others)] if others else [])])


def _several(value: Value) -> list[Single | None]:
    return list(value) if isinstance(value, tuple) else [value]


def _plain(value: Single | None) -> str:
    return NONE if value is None else str(value)
