"""The command that does work again: every option that differs from its default, quoted."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from demur.attacks import AttackRecord
from demur.attacks.settings import AttackedModel
from demur.chat.settings import LoadSettings
from demur.diagnosis import DiagnosisRecord
from demur.diagnosis.settings import presets as presets_of_diagnosis
from demur.evaluation.record import EvaluationRecord
from demur.optimization import RunRecord
from demur.optimization.methods import method_names
from demur.optimization.settings import method_for, settings_type
from demur.optimization.settings import presets as presets_of_method
from demur.optimization.validation import Pick
from demur.plugins import is_plugin_spec
from demur.settings import NONE, build, command_line, item_of, options_of, values_of

Settings = TypeVar("Settings", bound=BaseModel)

_TRUST = "--trust-remote-code"
_SERVER = re.compile(r"endpoint:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CHOOSING = {"preset", "method"}
"""Settings that the defaults of others follow from."""


@dataclass(frozen=True)
class Again:
    """How work is done again.

    Attributes:
        command: command for a POSIX shell.
        missing: names of the settings that were given as objects in Python, which no command can
            name.
        trusted: what the command has run or asked that must be trusted: files of code, the model's
            own code, and servers.
    """

    command: str
    missing: tuple[str, ...]
    trusted: tuple[str, ...] = ()


def run_again(record: RunRecord) -> Again:
    """The command of a run.

    Raises:
        DemurError: the record names a preset that its method does not have.
    """
    return _again("optimize", record.load, _items_of_run(record), record.objects)


def pick_again(record: RunRecord, pick: Pick, folder: Path) -> Again:
    """The command that goes on in the folder of a run and takes another one of its prompts.

    Args:
        record: what is recorded of the run.
        pick: the prompt to take.
        folder: the folder of the run.

    Raises:
        DemurError: the record names a preset that its method does not have.
    """
    items = _items_of_run(
        replace(record, settings=record.settings.model_copy(update={"pick": pick}))
    )
    if "--pick" not in items:  # it is the default
        items += ["--pick", pick]
    return _again(
        "optimize", record.load, [*items, *item_of("--output", str(folder))], record.objects
    )


def _items_of_run(record: RunRecord) -> list[str]:
    """Items of the settings of a run that differ from those of its preset."""
    chosen = record.settings
    if chosen.method in method_names():
        method_for(chosen.preset, chosen.method)
        kind = settings_type(chosen.method)
        own = chosen.method_settings.model_extra or {}
        settings = build(kind, {**values_of(chosen), **own})
        defaults = presets_of_method(chosen.method)[chosen.preset]
        return _items(settings, defaults, record.objects)
    # A method of the user's own is not loaded, so that its defaults are not known.
    items = options_of(chosen, every=True)
    return items + _own_items(chosen.method_settings.model_extra or {})


def diagnosis_again(record: DiagnosisRecord) -> Again:
    """The command of a diagnosis."""
    chosen = record.settings.chosen
    items = _items(chosen, presets_of_diagnosis()[chosen.preset], record.objects)
    return _again("diagnose", record.load, items, record.objects)


def evaluation_again(record: EvaluationRecord) -> Again:
    """The command of an evaluation."""
    items = _items(record.settings, type(record.settings)(), record.objects)
    return _again("evaluate", record.source, items, record.objects)


def attack_again(record: AttackRecord) -> Again:
    """The command of attacks."""
    items = _items(record.settings, type(record.settings)(), record.objects)
    source: BaseModel = record.source
    if isinstance(source, LoadSettings):
        source = build(AttackedModel, values_of(source))  # whose model is an option
    return _again("attack", source, items, record.objects)


def _again(verb: str, source: BaseModel, items: list[str], objects: tuple[str, ...]) -> Again:
    first = options_of(source)
    # What follows a `--` is positional.
    words = [*items, *first] if "--" in first else [*first, *items]
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    trusted = [
        word if word == _TRUST else value
        for word, value in zip(words, values, strict=True)
        if word == _TRUST or is_plugin_spec(value) or _SERVER.match(value)
    ]
    return Again(command_line(verb, words), objects, tuple(dict.fromkeys(trusted)))


def _items(settings: Settings, defaults: Settings, objects: Collection[str]) -> list[str]:
    """Items of the settings that differ from those of their preset."""
    kind = type(settings)
    known = values_of(defaults)
    for name in _CHOOSING & known.keys():
        # The one that holds where none is named, so that another one becomes an option.
        known[name] = values_of(kind())[name]
    values = {
        name: known[name] if name in objects else value
        for name, value in values_of(settings).items()
    }
    return options_of(build(kind, values), build(kind, known))


def _own_items(settings: Mapping[str, object]) -> list[str]:
    """Items of the settings of a user's own method."""
    items: list[str] = []
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            items.append(f"--{option}" if value else f"--no-{option}")
            continue
        several = list(value) if isinstance(value, list | tuple) else [value]
        items += [f"--{option}={NONE if one is None else one}" for one in several or [""]]
    return items
