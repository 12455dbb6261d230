"""`SafetyPrompt`: the text or the trained embeddings that open a conversation, and its files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError
from demur.files import DISK_FULL
from demur.prompts.checks import (
    check_shape,
    check_text,
    checked_embeddings,
    plain_json,
    printable_name,
    shown,
)

if TYPE_CHECKING:
    import torch

_FORMAT = "demur safety prompt"
_VERSION = 1
JSON_FILE = "safety_prompt.json"
TENSOR_FILE = "safety_prompt.safetensors"
_TENSOR = "safety_prompt"
_RELEASED_TENSOR = "soft_prompt"
_FOLDER_IN_RUN = "safety_prompt"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, eq=False)
class SafetyPrompt:
    """The text or the trained embeddings that open a conversation. Two prompts are never equal.

    Raises `DemurError` where the parts do not make a prompt: neither text nor embeddings, blank
    text, embeddings that are not a finite L x d matrix, metadata that JSON cannot hold.
    """

    name: str
    """What tables and figures call the prompt: one printable line."""
    text: str | None
    """The prompt itself; of trained embeddings, the basic prompt whose place they take."""
    embeddings: torch.Tensor | None = None
    """The trained embeddings, L x d, float32, on the CPU; a copy of what was given."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON: model name and identity, chat template fingerprint, settings, results."""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise DemurError(
                f"the safety prompt's name {shown(self.name)} must be one line of printable text"
            )
        check_text(self.text, self.name)
        object.__setattr__(self, "metadata", plain_json(self.metadata, self.name))
        if self.embeddings is not None:
            object.__setattr__(self, "embeddings", checked_embeddings(self.embeddings, self.name))
        elif self.text is None:
            raise DemurError(
                f"the safety prompt {self.name!r} is empty; give it text or embeddings"
            )

    @property
    def is_trained(self) -> bool:
        """Whether the prompt is embeddings rather than text."""
        return self.embeddings is not None

    @property
    def rows(self) -> int:
        """L, the number of trained embeddings; 0 for text."""
        return 0 if self.embeddings is None else self.embeddings.shape[0]

    @property
    def width(self) -> int:
        """d, the length of each trained embedding; 0 for text."""
        return 0 if self.embeddings is None else self.embeddings.shape[1]

    def require_width(self, width: int) -> None:
        """Raise `DemurError` unless the prompt fits a model with embeddings of `width` numbers.

        Text fits every model.
        """
        if self.is_trained and self.width != width:
            raise DemurError(
                f"the safety prompt {self.name!r} was trained for a model with embeddings of "
                f"{self.width} numbers, this model's have {width}; use the model it was trained for"
            )

    @classmethod
    def load(cls, path: str | Path) -> SafetyPrompt:
        """Load a safety prompt from what `save` wrote, a run, or the paper's released format.

        `path` is a folder that `save` wrote, a run's folder (which holds one, `safety_prompt`),
        or a `.safetensors` file with the one tensor `soft_prompt` (L x d), as the paper's
        authors release theirs.

        Raises `DemurError` for anything else, and for files that are damaged or incomplete.
        """
        path = Path(path)
        try:
            return _load(path)
        except OSError as error:
            raise DemurError(
                f"cannot read a safety prompt from {shown(path)} ({error.strerror or error}); "
                "give a folder or file that can be read"
            ) from error

    def save(self, folder: str | Path) -> None:
        """Write the prompt to `folder`: all of it or, where that fails, none.

        Text and metadata go to `safety_prompt.json`, trained embeddings to
        `safety_prompt.safetensors`. A safety prompt that is already there is replaced.

        Raises `DemurError` where the disk is full, the place cannot be written, or the folder
        holds anything but a safety prompt.
        """
        folder = Path(folder)
        try:
            _save(self, folder)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise DemurError(
                    f"no space is left to save the safety prompt to {shown(folder)}; free some, "
                    "or choose a folder on another disk"
                ) from error
            raise DemurError(
                f"cannot save the safety prompt to {shown(folder)} ({error.strerror or error}); "
                "choose a folder that can be written"
            ) from error

    def save_pretrained(self, save_directory: str | Path) -> None:
        """The same as `save`, by the hub's name for it."""
        self.save(save_directory)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> SafetyPrompt:
        """Load a safety prompt from the hub, or from a folder or file as `load` does.

        Arguments are those of the hub's `ModelHubMixin.from_pretrained`. Only JSON and safetensors
        are fetched, and no code is run. What exists here wins; a prompt from the hub is called as
        its repository.

        Args:
            pretrained_model_name_or_path: `organisation/name[@revision]`, or a folder or file.
            revision: a branch, a tag or a commit, where the name has none.
            token, cache_dir, force_download, local_files_only: as for the mixin.

        Raises `DemurError` where there is no such prompt or no right to read it, the hub does not
        answer, or a file is damaged.
        """
        from demur.prompts.hub import fetch_prompt, hub_name_of

        path = str(pretrained_model_name_or_path)
        name = hub_name_of(path)
        if name is None:
            return cls.load(path)
        if revision is not None:
            name = replace(name, revision=revision)
        return fetch_prompt(
            name,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push a safety prompt with demur",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        license: str | None = None,
        base_model: str | None = None,
    ) -> str:
        """Push the safety prompt to the hub with a model card, in one commit.

        Arguments are those of the hub's `ModelHubMixin.push_to_hub`. The application's own system
        text and local paths stay here. `demur.push` does this for a run, and adds a figure.

        Args:
            repo_id: `organisation/name`; made where it is not there.
            private: whether a new repository is; None leaves that to the hub's settings.
            commit_message, token, branch, create_pr: as for the mixin.
            license: of the prompt, as the hub writes it; None keeps what its page says.
            base_model: the hub name of the model; None takes it from the metadata.

        Returns the address of the commit. Raises `DemurError` where there is no token or right,
        the name cannot be, the repository holds something else, or the hub does not answer.
        """
        from demur.prompts.card import Card
        from demur.prompts.hub import push_prompt

        return push_prompt(
            self,
            repo_id,
            Card(license=license, base_model=base_model),
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )


def _load(path: Path) -> SafetyPrompt:
    if "\0" in str(path) or not path.exists():
        raise DemurError(
            f"there is no safety prompt at {shown(path)}; give a folder that demur saved, a run, "
            "or a .safetensors file"
        )
    if path.is_dir():
        in_run = path / _FOLDER_IN_RUN
        is_run = in_run.is_dir() and not (path / JSON_FILE).exists()
        return _load_folder(in_run if is_run else path)

    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise DemurError(
            f"{shown(path)} is refused, for loading a {suffix} file can run any code it holds; "
            "convert it to .safetensors"
        )
    if path.name in (JSON_FILE, TENSOR_FILE) and (path.parent / JSON_FILE).exists():
        return _load_folder(path.parent)
    if suffix != ".safetensors":
        raise DemurError(
            f"{shown(path)} is not a safety prompt; give a folder that demur saved, a run, "
            "or a .safetensors file"
        )
    embeddings = _read_tensor(path, _RELEASED_TENSOR)
    return _from_file(path, printable_name(path.stem), None, embeddings, {})


def _load_folder(folder: Path) -> SafetyPrompt:
    file = folder / JSON_FILE
    if not file.is_file():
        raise DemurError(
            f"{shown(folder)} holds no safety prompt ({JSON_FILE} is missing); "
            "give a folder that demur saved or a run that is done"
        )
    try:
        saved = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DemurError(
            f"{shown(file)} is not valid JSON; save the safety prompt again"
        ) from error
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        raise DemurError(
            f"{shown(file)} was not saved by demur; give a folder that demur saved or a run"
        )
    if saved.get("version") != _VERSION:
        raise DemurError(f"{shown(file)} was saved by another version of demur; upgrade demur")
    expected: dict[str, tuple[type, ...]] = {
        "name": (str,),
        "text": (str, type(None)),
        "rows": (int,),
        "width": (int,),
        "metadata": (dict,),
    }
    for key, types in expected.items():
        if key not in saved or not isinstance(saved[key], types):
            raise DemurError(
                f"{shown(file)} lacks a valid field {key!r}; save the safety prompt again"
            )

    tensor_file = folder / TENSOR_FILE
    embeddings = _read_tensor(tensor_file, _TENSOR) if saved["rows"] else None
    if embeddings is not None and tuple(embeddings.shape) != (saved["rows"], saved["width"]):
        raise DemurError(
            f"{shown(tensor_file)} does not belong to the {JSON_FILE} beside it, which names "
            f"{saved['rows']} x {saved['width']} embeddings; save the safety prompt again"
        )
    return _from_file(folder, saved["name"], saved["text"], embeddings, saved["metadata"])


def _from_file(
    path: Path,
    name: str,
    text: str | None,
    embeddings: torch.Tensor | None,
    metadata: dict[str, Any],
) -> SafetyPrompt:
    try:
        return SafetyPrompt(name, text, embeddings, metadata)
    except DemurError as error:
        raise DemurError(f"{shown(path)} cannot be used: {error}") from error


def _read_tensor(file: Path, tensor_name: str) -> torch.Tensor:
    """The only tensor of `file`, which must be called `tensor_name` and be L x d."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise DemurError(
            f"{shown(file.parent)} is incomplete ({file.name} is missing); "
            "save the safety prompt again"
        )
    try:
        with safe_open(str(file), framework="pt") as tensors:
            names = list(tensors.keys())
            if names != [tensor_name]:
                raise DemurError(
                    f"{shown(file)} must hold one tensor, {tensor_name!r}, and holds "
                    f"{shown(', '.join(names[:5]))}; give a safety prompt's file, not a model's"
                )
            check_shape(tuple(tensors.get_slice(tensor_name).get_shape()), file.stem)
            tensor: torch.Tensor = tensors.get_tensor(tensor_name)
    except SafetensorError as error:
        raise DemurError(
            f"{shown(file)} is damaged or not a safetensors file; copy or save it again"
        ) from error
    return tensor


def _save(prompt: SafetyPrompt, folder: Path) -> None:
    target = folder.resolve()
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that renaming it into place neither copies nor stops half-way.
    workspace = Path(tempfile.mkdtemp(prefix=".demur-save-", dir=target.parent))
    new, old = workspace / "new", workspace / "old"
    try:
        new.mkdir()
        for name, data in files_of(prompt).items():
            _write(new / name, data)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        # Where even putting the old prompt back failed, its only copy is in the workspace.
        if target.exists() or not old.exists():
            shutil.rmtree(workspace, ignore_errors=True)


def _check_replaceable(target: Path) -> None:
    """Raise `DemurError` unless `target` is free, empty, or a safety prompt and nothing more."""
    if not target.exists():
        return
    if not target.is_dir():
        raise DemurError(f"{shown(target)} is a file; give a folder to save the safety prompt to")
    if target == Path.cwd():
        raise DemurError("a safety prompt cannot be saved over the current folder; name another")
    others = sorted({entry.name for entry in target.iterdir()} - {JSON_FILE, TENSOR_FILE})
    if others:
        raise DemurError(
            f"{shown(target)} holds more than a safety prompt ({shown(', '.join(others[:3]))}); "
            "give a new folder, or one that holds only a safety prompt"
        )


def files_of(prompt: SafetyPrompt) -> dict[str, bytes]:
    """The name and content of each file that a saved safety prompt consists of."""
    saved = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": prompt.name,
        "text": prompt.text,
        "rows": prompt.rows,
        "width": prompt.width,
        "metadata": prompt.metadata,
    }
    text = json.dumps(saved, indent=2, ensure_ascii=False, allow_nan=False)
    files = {JSON_FILE: f"{text}\n".encode()}
    if prompt.embeddings is not None:
        # Through bytes: writing them here says when the disk is full, safetensors would not.
        from safetensors.torch import save

        files[TENSOR_FILE] = save({_TENSOR: prompt.embeddings}, {"format": "pt"})
    return files


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
