"""Load a safety prompt by the name that a user gives, wherever one is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from demur.errors import DemurError
from demur.prompts.basic import BASIC_PROMPTS, load_basic_prompt
from demur.prompts.checks import printable_name
from demur.prompts.fetching import fetch_prompt, hub_name_of
from demur.prompts.safety_prompt import SafetyPrompt


def load_prompt(
    choice: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> SafetyPrompt:
    """Load a safety prompt by name.

    Args:
        choice: built-in name (one of `BASIC_PROMPTS`), text file, folder of a run, folder that
            `SafetyPrompt.save` wrote, `.safetensors` file in the format of the paper's authors, or
            `organisation/name[@revision]` on the hub. What exists here comes before the hub.
        revision: branch, tag or commit on the hub, where `choice` names none.
        token: token for the hub; None takes the one that the user logged in with.
        cache_dir: folder of the hub's cache; None is the hub's own.
        force_download: whether to fetch again what the cache has.
        local_files_only: whether to ask the hub's cache alone.

    Returns:
        The prompt, with the name of its file, folder or repository.

    Raises:
        DemurError: there is no such prompt, or it cannot be read.

    Example:
        >>> load_prompt("short").is_trained
        False
    """
    text = str(choice)
    if text in BASIC_PROMPTS:
        return load_basic_prompt(text)
    name = hub_name_of(text)
    if name is not None:
        if revision is not None and name.revision not in (None, revision):
            raise DemurError(f"{name} names another revision than {revision!r}: give one of them.")
        return fetch_prompt(
            name if revision is None else replace(name, revision=revision),
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
    path = Path(text)
    try:
        is_folder = bool(text) and path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = False
    if not is_folder and path.suffix.lower() not in (".safetensors", ".json"):
        return load_basic_prompt(text)
    # The prompt of every run has the same name, so the folder gives the name here.
    called = path.resolve().name if is_folder else path.stem
    return replace(SafetyPrompt.load(path), name=printable_name(called))
