"""Push a safety prompt to the hub, with its results and a figure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from demur.arguments import require_common, require_kind
from demur.bars import default_progress
from demur.chat.catalog import hub_model_of
from demur.diagnosis.movement import draw_movement
from demur.errors import DemurError
from demur.files import new_folder, write_bytes
from demur.hub import HubName, HubRepository
from demur.optimization import Run
from demur.optimization.wording import WordingRun
from demur.optimization.wording.settings import KIND as WORDING
from demur.progress import Progress
from demur.prompts import SafetyPrompt
from demur.prompts.storage import JSON_FILE
from demur.records import SETTINGS, kind_of
from demur.sharing.card import Card, base_model_of
from demur.sharing.published import CARD_FILE, PUBLISHED_FILES, published_files

MESSAGE = "Push a safety prompt with demur"
_LICENSE_KEYS = ("license", "license_name", "license_link")


def push(
    source: Run | SafetyPrompt | str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    commit_message: str = MESSAGE,
    branch: str | None = None,
    create_pr: bool = False,
    progress: Progress | None = None,
) -> str:
    """Push a safety prompt to the hub, in one commit.

    The prompt, the settings, the measured rates and a model card leave this machine, and for a run
    a figure. Queries, responses, the application's own system text and local paths stay here.

    Args:
        source: run, folder of a finished run, safety prompt, or folder of a saved one. Only a run
            has a figure.
        repo_id: name of the repository, `organisation/name`; it is made where there is none.
        private: whether a new repository is private; None leaves that to the hub's settings.
        token: token for the hub; None takes the one that the user logged in with.
        license: license of the prompt as the hub writes it, for example `apache-2.0`; None keeps
            what the repository's page says.
        base_model: hub name of the model, where the prompt does not name it.
        commit_message: first line of the commit.
        branch: branch to commit to; None is the main one.
        create_pr: whether to open a pull request instead of committing.
        progress: receives the stages.

    Returns:
        The address of the commit.

    Raises:
        DemurError: the run is not finished, there is no token or no right to write, the name cannot
            be one, the repository holds something else, or the hub does not answer. Nothing is
            pushed then.
    """
    _require_arguments(source, repo_id, progress)
    progress = progress or default_progress()
    name = HubName.require(repo_id)
    prompt, card = _prepare(source, license, base_model, progress)
    with progress.stage(f"Pushing to {name}", 1) as stage:
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
        stage.advance()
    return f"{repository.address}/commit/{commit}"


def write_repository(
    source: Run | SafetyPrompt | str | Path,
    repo_id: str,
    folder: str | Path,
    *,
    license: str | None = None,
    base_model: str | None = None,
    progress: Progress | None = None,
) -> Mapping[str, int]:
    """Write the files that `push` would upload into a folder, and upload nothing.

    Args:
        source: as for `push`.
        repo_id: as for `push`; the card names it.
        folder: free place or empty folder.
        license: as for `push`.
        base_model: as for `push`.
        progress: receives the stages.

    Returns:
        The size of each file in bytes, by its name.

    Raises:
        DemurError: the run is not finished, or the folder holds something or cannot be written.
    """
    _require_arguments(source, repo_id, progress)
    require_kind("folder", folder, (str, PathLike), "the path of a new folder")
    name = HubName.require(repo_id)
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DemurError(f"{target} exists already: choose a new folder.")
    prompt, card = _prepare(source, license, base_model, progress or default_progress())
    files = published_files(prompt, name.repository, card)
    with new_folder(target) as new:
        for file, data in files.items():
            write_bytes(new / file, data)
    return {file: len(data) for file, data in files.items()}


def _require_arguments(source: object, repo_id: object, progress: object) -> None:
    require_kind("source", source, (str, Path, Run, SafetyPrompt), "a run, a prompt or a path")
    require_kind("repo_id", repo_id, str, "the name of a repository, organisation/name")
    require_common(progress=progress)


def _prepare(
    source: Run | SafetyPrompt | str | Path,
    license: str | None,
    base_model: str | None,
    progress: Progress,
) -> tuple[SafetyPrompt, Card]:
    if base_model is not None and HubName.require(base_model).revision is not None:
        raise DemurError(f"{base_model} has a revision: name the base model without one.")
    card = Card(license=license, base_model=base_model)
    if isinstance(source, str | Path):
        path = Path(source)
        source = _opened(path)
    if isinstance(source, SafetyPrompt):
        return _with_base_model(source), card
    with progress.stage("Drawing the figure", 1) as stage:
        figure = draw_movement(source)
        stage.advance()
    if figure is None:
        progress.message("The run has no representations any more: the card has no figure.")
    return _with_base_model(source.safety_prompt), replace(card, figure=figure)


def _opened(path: Path) -> Run | SafetyPrompt:
    if not (path / SETTINGS).is_file():
        return SafetyPrompt.load(path)
    if kind_of(path) == WORDING:
        return WordingRun.load(path).safety_prompt
    return Run.load(path)


def _with_base_model(prompt: SafetyPrompt) -> SafetyPrompt:
    """The prompt with the hub name of a catalog model."""
    known = prompt.provenance
    if base_model_of(known) is not None or known.model is None:
        return prompt
    named = hub_model_of(known.model.name, known.model.identity)
    if named is None:
        return prompt
    return replace(prompt, provenance=replace(known, base_model=named))


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
