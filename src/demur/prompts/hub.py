"""Safety prompts on the hub: fetching one, and publishing one with its card.

The methods of `SafetyPrompt` have the surface of the hub's `ModelHubMixin`. The mixin itself does
not fit: it writes attributes into the instance, which is frozen, and it reads a `config.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from demur.errors import DemurError
from demur.hub import HubName, HubRepository, fetch_files
from demur.prompts.card import Card, model_card
from demur.prompts.safety_prompt import JSON_FILE, TENSOR_FILE, SafetyPrompt, files_of

CARD_FILE = "README.md"
FIGURE_FILE = "figure.png"
PUBLISHED_FILES = (JSON_FILE, TENSOR_FILE, CARD_FILE, FIGURE_FILE)

MOST_JSON_BYTES = 10_000_000
MOST_TENSOR_BYTES = 1_000_000_000

_PUBLISHED_METADATA = ("model", "base_model", "settings", "results")
_FILE_SUFFIXES = (".txt", ".md", ".json", ".safetensors", ".pt", ".pth", ".bin", ".csv", ".jsonl")
_LICENSE_KEYS = ("license", "license_name", "license_link")


def hub_name_of(choice: str | Path) -> HubName | None:
    """The hub name that a user gave, or None where it is a file or a folder, or cannot be one.

    What exists here wins. A name with the ending of a file is a file that is missing.
    """
    text = str(choice)
    try:
        if Path(text).exists():
            return None
    except (OSError, ValueError):
        return None
    name = HubName.parse(text)
    if name is None or name.repository.lower().endswith(_FILE_SUFFIXES):
        return None
    return name


def fetch_prompt(
    name: HubName,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> SafetyPrompt:
    """Fetch a safety prompt from the hub; it is called as its repository.

    Raises:
        DemurError: as `SafetyPrompt.from_pretrained`.
    """
    folder, _ = fetch_files(
        name,
        lambda sizes: _choose(name, sizes),
        JSON_FILE,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
    )
    try:
        return replace(SafetyPrompt.load(folder), name=str(name))
    except DemurError as error:
        raise DemurError(f"{name} on the hub cannot be used: {error}") from error


def _choose(name: HubName, sizes: Mapping[str, int]) -> list[str]:
    if JSON_FILE not in sizes:
        raise DemurError(
            f"{name} on the hub holds no safety prompt ({JSON_FILE} is missing); "
            "give one that `demur push` wrote"
        )
    limits = {JSON_FILE: MOST_JSON_BYTES, TENSOR_FILE: MOST_TENSOR_BYTES}
    chosen = [file for file in limits if file in sizes]
    for file in chosen:
        if sizes[file] > limits[file]:
            raise DemurError(
                f"{name} on the hub cannot be used: its {file} is {sizes[file] / 1e6:.0f} MB, too "
                "large for a safety prompt"
            )
    return chosen


def push_prompt(
    prompt: SafetyPrompt,
    repo_id: str,
    card: Card,
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Push a safety prompt to the hub, in one commit, and return the commit's address.

    Raises:
        DemurError: as `SafetyPrompt.push_to_hub`.
    """
    name = HubName.require(repo_id)
    repository = HubRepository(name, token)
    repository.require_own((JSON_FILE,), "a safety prompt")
    card = replace(card, licenses=_licenses(repository))
    commit = repository.commit(
        published_files(prompt, name.repository, card),
        commit_message,
        replacing=PUBLISHED_FILES,
        private=private,
        branch=branch,
        create_pr=create_pr,
    )
    return f"{repository.address}/commit/{commit}"


def published_files(prompt: SafetyPrompt, repository: str, card: Card) -> dict[str, bytes]:
    """Every file that a repository of this prompt has: name and content."""
    shared = published(prompt)
    files = files_of(shared)
    figure = None
    if card.figure is not None:
        files[FIGURE_FILE] = card.figure
        figure = FIGURE_FILE
    text = model_card(
        shared, repository, card, figure, with_system_prompt=_had_system_prompt(prompt)
    )
    files[CARD_FILE] = text.encode()
    return files


def published(prompt: SafetyPrompt) -> SafetyPrompt:
    """The prompt as strangers may see it: without the application's system text and local paths."""
    metadata: dict[str, Any] = {
        key: prompt.metadata[key] for key in _PUBLISHED_METADATA if key in prompt.metadata
    }
    if isinstance(metadata.get("model"), dict):
        metadata["model"] = _without_path(metadata["model"])
    settings = metadata.get("settings")
    if isinstance(settings, dict):
        settings = {**settings, "system_prompt": None}
        if isinstance(settings.get("model"), dict):
            settings["model"] = _without_path(settings["model"])
        metadata["settings"] = settings
    return replace(prompt, metadata=metadata)


def _had_system_prompt(prompt: SafetyPrompt) -> bool:
    settings = prompt.metadata.get("settings")
    return isinstance(settings, dict) and settings.get("system_prompt") is not None


def _without_path(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's record, its name without the folders that it lies in."""
    name, identity = str(model.get("name", "")), str(model.get("identity", ""))
    if identity.startswith(("folder:", "gguf:")) or name.startswith(("/", "~", ".")):
        name = PureWindowsPath(PurePosixPath(name).name).name
    return {**model, "name": name}


def _licenses(repository: HubRepository) -> dict[str, str]:
    """What the owner wrote about the license into the page that is there."""
    text = repository.read(CARD_FILE)
    block = re.match(r"\s*---\r?\n(.*?)\r?\n---", text, re.DOTALL) if text else None
    if block is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(block[1])
    except yaml.YAMLError:
        return {}
    if not isinstance(found, dict):
        return {}
    known = {key: found.get(key) for key in _LICENSE_KEYS}
    return {
        key: value for key, value in known.items() if isinstance(value, str) and value.isprintable()
    }
