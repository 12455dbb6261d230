"""Fetch a safety prompt from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from demur.errors import DemurError, did_you_mean
from demur.hub import HubName, fetch_files
from demur.prompts.safety_prompt import SafetyPrompt
from demur.prompts.storage import JSON_FILE, TENSOR_FILE

MOST_JSON_BYTES = 10_000_000
MOST_TENSOR_BYTES = 1_000_000_000

_FILE_SUFFIXES = (".txt", ".md", ".json", ".safetensors", ".pt", ".pth", ".bin", ".csv", ".jsonl")


def hub_name_of(choice: str | Path) -> HubName | None:
    """The hub name that a user gave; None where it is a file or a folder, or cannot be one.

    A file or folder that exists here comes first. A name that ends like a file is a file that is
    missing, and so is one in a folder of demur's own.

    Raises:
        DemurError: it is missing in a folder of runs or of other work.
    """
    text = str(choice)
    path = Path(text)
    try:
        if path.exists():
            return None
        beside = [one.name for one in path.parent.iterdir()] if _is_own(path.parent) else None
    except (OSError, ValueError):
        return None
    if beside is not None:
        near = did_you_mean(path.name, sorted(beside))
        raise DemurError(
            f"There is no {path.name!r:.200} in {path.parent}{near}: `demur show` lists what is "
            "here."
        )
    name = HubName.parse(text)
    if name is None or name.repository.lower().endswith(_FILE_SUFFIXES):
        return None
    return name


def _is_own(folder: Path) -> bool:
    """Whether a folder is one that demur keeps its work in."""
    return folder.name.startswith("demur-") and folder.is_dir()


def fetch_prompt(
    name: HubName,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> SafetyPrompt:
    """Fetch a safety prompt from the hub. Only JSON and safetensors are fetched; no code is run.

    Args:
        name: repository, and which state of it.
        token: token for the hub; None takes the one that the user logged in with.
        cache_dir: folder of the hub's cache; None is the hub's own.
        force_download: whether to fetch again what the cache has.
        local_files_only: whether to use the cache alone.

    Returns:
        The prompt, with the name of its repository.

    Raises:
        DemurError: there is no such prompt or no right to read it, the hub does not answer, or a
            file is damaged.
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
        raise DemurError(f"{name} on the hub cannot be used. {error}") from error


def _choose(name: HubName, sizes: Mapping[str, int]) -> list[str]:
    if JSON_FILE not in sizes:
        raise DemurError(
            f"{name} on the hub holds no safety prompt ({JSON_FILE} is missing): give one that "
            "`demur push` wrote."
        )
    limits = {JSON_FILE: MOST_JSON_BYTES, TENSOR_FILE: MOST_TENSOR_BYTES}
    chosen = [file for file in limits if file in sizes]
    for file in chosen:
        if sizes[file] > limits[file]:
            raise DemurError(
                f"{name} on the hub cannot be used, because its {file} is "
                f"{sizes[file] / 1e6:.0f} MB, too large for a safety prompt: give another one."
            )
    return chosen
