"""Safety prompts as users name them, wherever one is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from demur.prompts.basic import BASIC_PROMPTS, load_basic_prompt
from demur.prompts.checks import printable_name
from demur.prompts.hub import fetch_prompt, hub_name_of
from demur.prompts.safety_prompt import SafetyPrompt


def load_prompt(choice: str | Path) -> SafetyPrompt:
    """The safety prompt that a user named.

    Args:
        choice: a built-in name (`long`, `short`, `plain`), a text file, a run's folder, a folder
            that `SafetyPrompt.save` wrote, a `.safetensors` file as the paper's authors release
            theirs, or `organisation/name` on the hub, with `@revision` for a certain state of it.
            What exists here wins over the hub. The prompt is called after its file, folder or
            repository.

    Raises:
        DemurError: there is no such prompt, or it cannot be read.
    """
    text = str(choice)
    if text in BASIC_PROMPTS:
        return load_basic_prompt(text)
    name = hub_name_of(text)
    if name is not None:
        return fetch_prompt(name)
    path = Path(text)
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = False
    if not is_folder and path.suffix.lower() not in (".safetensors", ".json"):
        return load_basic_prompt(text)
    # The prompt of every run is called `optimized`: the folders tell them apart.
    called = path.resolve().name if is_folder else path.stem
    return replace(SafetyPrompt.load(path), name=printable_name(called))
