"""Publish a run's safety prompt on the hub, with its results and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from demur.chat.catalog import hub_model_of
from demur.diagnosis.movement import draw_movement
from demur.errors import DemurError
from demur.files import new_folder, write_bytes
from demur.hub import HubName
from demur.optimization import Run
from demur.progress import Progress, SilentProgress
from demur.prompts import SafetyPrompt
from demur.prompts.card import Card, base_model_of
from demur.prompts.hub import published_files, push_prompt
from demur.runs.folder import SETTINGS

MESSAGE = "Push a safety prompt with demur"


def push(
    run: str | Path | Run,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Push the safety prompt of a finished run to the hub, in one commit.

    What leaves this machine: the prompt, the settings, the measured rates, and a model card with a
    figure. Queries, responses, the application's own system text and local paths stay here.

    Args:
        run: a `Run`, its folder, or the folder of a saved safety prompt (which has no figure).
        repo_id: `organisation/name`; made where it is not there.
        private: whether a new repository is; None leaves that to the hub's settings.
        token: of the hub; None takes the one that the user logged in with.
        license: of the prompt, as the hub writes it; None keeps what its page says.
        base_model: the hub name of the model, where the run does not say it.
        progress: hears of every stage.

    Returns:
        The address of the commit.

    Raises:
        DemurError: the run is not finished; no token or right, a name that cannot be, something
            else in the repository, no connection. Nothing is pushed then.
    """
    progress = progress or SilentProgress()
    name = HubName.require(repo_id)
    prompt, card = _prepare(run, license, base_model, progress)
    with progress.stage(f"Pushing to {name}", 1) as stage:
        address = push_prompt(
            prompt, str(name), card, commit_message=MESSAGE, private=private, token=token
        )
        stage.advance()
    return address


def write_repository(
    run: str | Path | Run,
    repo_id: str,
    folder: str | Path,
    *,
    license: str | None = None,
    base_model: str | None = None,
    progress: Progress | None = None,
) -> Mapping[str, int]:
    """Write the files that `push` would upload into a folder, and upload nothing.

    Args:
        run: as in `push`.
        repo_id: as in `push`; the card names it.
        folder: a free place or an empty folder.
        license: as in `push`.
        base_model: as in `push`.
        progress: hears of every stage.

    Returns:
        The name of each file and its size in bytes.

    Raises:
        DemurError: the run is not finished, the folder holds something or cannot be written.
    """
    name = HubName.require(repo_id)
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DemurError(f"{target} is there already: choose a new folder.")
    prompt, card = _prepare(run, license, base_model, progress or SilentProgress())
    files = published_files(prompt, name.repository, card)
    with new_folder(target) as new:
        for file, data in files.items():
            write_bytes(new / file, data)
    return {file: len(data) for file, data in files.items()}


def _prepare(
    run: str | Path | Run, license: str | None, base_model: str | None, progress: Progress
) -> tuple[SafetyPrompt, Card]:
    if base_model is not None and "@" in str(HubName.require(base_model)):
        raise DemurError(f"{base_model}: name the base model without a revision.")
    card = Card(license=license, base_model=base_model)
    if not isinstance(run, Run):
        path = Path(run)
        if path.is_dir() and not (path / SETTINGS).is_file():
            return _with_base_model(SafetyPrompt.load(path)), card
        run = Run.load(path)
    with progress.stage("Drawing the figure", 1) as stage:
        figure = draw_movement(run)
        stage.advance()
    if figure is None:
        progress.message("The run lacks its representations: the card has no figure.")
    return _with_base_model(run.safety_prompt), replace(card, figure=figure)


def _with_base_model(prompt: SafetyPrompt) -> SafetyPrompt:
    """The prompt with the hub name of a catalog model, which runs do not record."""
    model = prompt.metadata.get("model")
    if base_model_of(prompt) is not None or not isinstance(model, dict):
        return prompt
    named = hub_model_of(str(model.get("name", "")), str(model.get("identity", "")))
    return (
        prompt
        if named is None
        else replace(prompt, metadata={**prompt.metadata, "base_model": named})
    )
