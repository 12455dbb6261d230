"""The files of a safety prompt, each checked when it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.files import DISK_FULL
from demur.prompts.checks import check_shape, shown
from demur.prompts.provenance import Provenance
from demur.records import read_record, record_bytes, tensor_fingerprint
from demur.temporary import leftovers, remove_leftovers, temporary

if TYPE_CHECKING:
    import torch

JSON_FILE = "safety_prompt.json"
TENSOR_FILE = "safety_prompt.safetensors"
_FORMAT = "safety prompt"
_TENSOR = "safety_prompt"
_RELEASED_TENSOR = "soft_prompt"
_FOLDER_IN_RUN = "safety_prompt"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Content:
    """What `safety_prompt.json` holds.

    Attributes:
        name: name of the prompt.
        text: text of the prompt, or None.
        rows: L, the number of trained embeddings; 0 for text.
        width: d, the length of each; 0 for text.
        embeddings: fingerprint of the embeddings in the tensor file, or None for text.
        provenance: where the prompt comes from.
    """

    name: str
    text: str | None
    rows: int
    width: int
    embeddings: str | None
    provenance: Provenance

    @classmethod
    def of(
        cls, name: str, text: str | None, embeddings: torch.Tensor | None, provenance: Provenance
    ) -> Content:
        """The content for a prompt with these parts."""
        rows, width = (0, 0) if embeddings is None else embeddings.shape
        known = None if embeddings is None else tensor_fingerprint(embeddings)
        return cls(name, text, int(rows), int(width), known, provenance)

    def files(self, embeddings: torch.Tensor | None) -> dict[str, bytes]:
        """The name and the content of each file of the prompt."""
        files = {JSON_FILE: record_bytes(self, _FORMAT)}
        if embeddings is not None:
            from safetensors.torch import save

            files[TENSOR_FILE] = save({_TENSOR: embeddings}, {"format": "pt"})
        return files


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a failure to read below `path` into a `DemurError`."""
    try:
        yield
    except OSError as error:
        raise DemurError(
            f"Cannot read a safety prompt from {shown(path)} ({error.strerror or error}): give a "
            "folder or file that can be read."
        ) from error


def find_prompt(path: Path) -> Path:
    """The folder of a saved safety prompt, or the file of a released one, that a path means.

    Raises:
        DemurError: it is neither.
    """
    if "\0" in str(path) or not path.exists():
        raise DemurError(
            f"There is no safety prompt at {shown(path)}: give a folder that demur saved, a run, "
            "or a .safetensors file."
        )
    if path.is_dir():
        in_run = path / _FOLDER_IN_RUN
        is_run = in_run.is_dir() and not (path / JSON_FILE).exists()
        return in_run if is_run else path
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise DemurError(
            f"{shown(path)} is refused, because a {suffix} file can run any code when it is "
            "loaded: convert it to .safetensors."
        )
    if path.name in (JSON_FILE, TENSOR_FILE) and (path.parent / JSON_FILE).exists():
        return path.parent
    if suffix != ".safetensors":
        raise DemurError(
            f"{shown(path)} is not a safety prompt: give a folder that demur saved, a run, or a "
            ".safetensors file."
        )
    return path


def read_folder(folder: Path) -> tuple[Content, torch.Tensor | None]:
    """What a folder of a saved safety prompt holds, checked.

    Raises:
        DemurError: files are missing or damaged, or do not belong together.
    """
    file, tensor_file = folder / JSON_FILE, folder / TENSOR_FILE
    if not file.is_file():
        raise DemurError(
            f"{shown(folder)} holds no safety prompt ({JSON_FILE} is missing): give a folder that "
            "demur saved, or a finished run."
        )
    content = read_record(file, Content, _FORMAT)
    if content.embeddings is None:
        return content, None
    embeddings = _read_tensor(tensor_file, _TENSOR)
    shape = (content.rows, content.width)
    if tuple(embeddings.shape) != shape or tensor_fingerprint(embeddings) != content.embeddings:
        raise DemurError(
            f"{shown(tensor_file)} does not belong to the {JSON_FILE} beside it, or its numbers "
            f"were changed ({content.rows} x {content.width} embeddings are expected): save the "
            "safety prompt again."
        )
    return content, embeddings


def read_released(file: Path) -> torch.Tensor:
    """The embeddings in a file of the paper's authors.

    Raises:
        DemurError: it is not such a file.
    """
    return _read_tensor(file, _RELEASED_TENSOR)


def _read_tensor(file: Path, tensor_name: str) -> torch.Tensor:
    """The only tensor of a file, which must have this name and be a matrix."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise DemurError(
            f"{shown(file.parent)} is incomplete ({file.name} is missing): save the safety prompt "
            "again."
        )
    try:
        with safe_open(str(file), framework="pt") as tensors:
            names = list(tensors.keys())
            if names != [tensor_name]:
                raise DemurError(
                    f"{shown(file)} must hold one tensor, {tensor_name!r}, and holds "
                    f"{shown(', '.join(names[:5]))}: give the file of a safety prompt, not of a "
                    "model."
                )
            check_shape(tuple(tensors.get_slice(tensor_name).get_shape()), file.stem)
            tensor: torch.Tensor = tensors.get_tensor(tensor_name)
    except SafetensorError as error:
        raise DemurError(
            f"{shown(file)} is damaged or not a safetensors file: copy or save it again."
        ) from error
    return tensor


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a prompt into a folder: all of them or none.

    Args:
        folder: free place, empty folder, or folder of a safety prompt, which is replaced.
        files: name and content of each.

    Raises:
        DemurError: the disk is full, the place cannot be written, or the folder holds anything but
            a safety prompt.
    """
    try:
        _replace(folder.resolve(), files)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DemurError(
                f"No space is left to save the safety prompt to {shown(folder)}: free some, or "
                "choose a folder on another disk."
            ) from error
        raise DemurError(
            f"Cannot save the safety prompt to {shown(folder)} ({error.strerror or error}): choose "
            "a folder that can be written."
        ) from error


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _recover(target)

    def must_stay() -> bool:
        """Whether even putting the old prompt back failed, so that its only copy is in here."""
        return old.exists() and not target.exists()

    # Beside the target, so that renaming it into place neither copies nor stops half-way.
    old = target
    with temporary(target, is_folder=True, stays=must_stay) as workspace:
        new, old = workspace / "new", workspace / "old"
        new.mkdir()
        for name, data in files.items():
            _write(new / name, data)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise


def _recover(target: Path) -> None:
    """Put a prompt back that a process which was killed had moved away, and clean up after it."""
    for workspace in leftovers(target.parent, target.name):
        old = workspace / "old"
        if old.is_dir() and not target.exists():
            old.rename(target)
    remove_leftovers(target.parent, target.name)


def _check_replaceable(target: Path) -> None:
    """Check that a place is free, empty, or a safety prompt and nothing more."""
    if not target.exists():
        return
    if not target.is_dir():
        raise DemurError(f"{shown(target)} is a file: give a folder to save the safety prompt to.")
    if target == Path.cwd():
        raise DemurError(
            "A safety prompt cannot be saved over the current folder: name another folder."
        )
    others = sorted({entry.name for entry in target.iterdir()} - {JSON_FILE, TENSOR_FILE})
    if others:
        raise DemurError(
            f"{shown(target)} holds more than a safety prompt ({shown(', '.join(others[:3]))}): "
            "give a new folder, or one that holds only a safety prompt."
        )


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
