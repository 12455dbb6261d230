"""Settings, model and versions as a list of names and short texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

from pydantic import BaseModel

from demur.endpoint import ChangedOptions
from demur.records import ConditionRecord, FilesRecord, ModelRecord, ServerRecord, Versions
from demur.settings import options_in, values_of


def facts_of_answerer(record: ModelRecord | ServerRecord | FilesRecord) -> dict[str, str]:
    """What answered: a model, a server or files."""
    if isinstance(record, FilesRecord):
        return {f"SHA-256 of {file.name}": file.sha256 for file in record.files}
    if isinstance(record, ServerRecord):
        return {"model at the server": record.name, "server": record.address}
    return {
        "model": record.name,
        "identity of the model": record.identity,
        "number format": record.dtype,
        "device": record.device,
        "quantization": record.quantization or "none",
        "chat template": record.chat_template,
        "opening of conversations": "computed once" if record.prefix_sharing else "read each time",
        **({} if record.sampler is None else {"responses": "sampled by a vLLM server"}),
    }


def facts_of_options(changed: Iterable[ChangedOptions]) -> dict[str, str]:
    """How requests to endpoints were changed."""
    return {f"options of {one.model} at {one.place}": str(one) for one in changed}


def facts_of_conditions(
    conditions: tuple[ConditionRecord, ...], system_prompt: str | None
) -> dict[str, str]:
    """The conditions, and the application's own system text."""
    return {
        "conditions": ", ".join(one.name for one in conditions) or "none",
        "system text": system_prompt or "none",
    }


def facts_of_settings(
    settings: BaseModel, own: Mapping[str, object] | None = None
) -> dict[str, str]:
    """Settings by name. Those are left out that follow from others, because nothing was chosen.

    Args:
        settings: settings with descriptions.
        own: settings of a method, by name.
    """
    values = values_of(settings)
    facts = {
        _words(option.name): option.text(values[option.name])
        for option in options_in(type(settings))
        if option.default_text is None or values[option.name] not in (None, ())
    }
    return facts | {_words(name): _text(value) for name, value in (own or {}).items()}


def facts_of_versions(versions: Versions) -> dict[str, str]:
    """Versions of packages."""
    return {f"version of {one.name}": str(getattr(versions, one.name)) for one in fields(versions)}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
