"""What leaves this machine when a prompt is published, and what stays."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from demur.prompts import Fact, MeasuredPrompt, Provenance, SafetyPrompt
from demur.prompts.storage import JSON_FILE, TENSOR_FILE
from demur.records import ModelRecord
from demur.sharing.card import Card, model_card

CARD_FILE = "README.md"
FIGURE_FILE = "figure.png"
PUBLISHED_FILES = (JSON_FILE, TENSOR_FILE, CARD_FILE, FIGURE_FILE)

_LOCAL = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]|file:")
_ENDS_LIKE_A_FILE = re.compile(r"[/\\].*\.[A-Za-z0-9]{1,12}(:\w+)?$")
_BETWEEN_NAMES = re.compile(r"(, |\+)")


def published_files(prompt: SafetyPrompt, repository: str, card: Card) -> dict[str, bytes]:
    """Every file in the repository of a prompt.

    Args:
        prompt: prompt as it is here.
        repository: name of the repository, `organisation/name`.
        card: what the user adds.

    Returns:
        The content of each file by its name.
    """
    shared = published(prompt)
    files = shared.files()
    figure = None
    if card.figure is not None:
        files[FIGURE_FILE] = card.figure
        figure = FIGURE_FILE
    files[CARD_FILE] = model_card(shared, repository, card, figure).encode()
    return files


def published(prompt: SafetyPrompt) -> SafetyPrompt:
    """The prompt as strangers may see it: without the folders of local files.

    The provenance of a prompt never holds the application's own system text.
    """
    known = prompt.provenance
    return replace(
        prompt,
        provenance=Provenance(
            model=None if known.model is None else _model(known.model),
            base_model=known.base_model,
            method=None if known.method is None else without_folders(known.method),
            paper=known.paper,
            settings=tuple(map(_fact, known.settings)),
            measured=tuple(map(_fact, known.measured)),
            results=tuple(map(_result, known.results)),
            with_system_prompt=known.with_system_prompt,
        ),
    )


def without_folders(text: str) -> str:
    """A text without the folders of the local files that it names.

    Example:
        >>> without_folders("anchors+/home/me/mine.csv:query")
        'anchors+mine.csv:query'
    """
    if _LOCAL.match(text):
        return _last(text)
    return "".join(
        _last(part) if _LOCAL.match(part) or _ENDS_LIKE_A_FILE.search(part) else part
        for part in _BETWEEN_NAMES.split(text)
    )


def _last(path: str) -> str:
    """The last part of a path, whichever system it is of."""
    return PureWindowsPath(PurePosixPath(path).name).name if re.search(r"[/\\]", path) else path


def _model(model: ModelRecord) -> ModelRecord:
    local = model.identity.startswith(("folder:", "gguf:"))
    return replace(model, name=_last(model.name) if local else without_folders(model.name))


def _fact(fact: Fact) -> Fact:
    return Fact(fact.name, without_folders(fact.text))


def _result(result: MeasuredPrompt) -> MeasuredPrompt:
    return replace(result, prompt=without_folders(result.prompt))
