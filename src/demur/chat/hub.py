"""Fetch a model's files from the hub into the hub's own cache."""

from __future__ import annotations

import importlib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from demur.chat.checkpoint import missing_weights
from demur.errors import DemurError, first_line
from demur.progress import Progress, Stage

_TEXT_FILES = (
    "*.json",
    "*.txt",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "additional_chat_templates/*",
)


def hub_snapshot(name: str, trust_remote_code: bool, progress: Progress) -> tuple[Path, str]:
    """The folder of a hub model's files and their commit, downloaded where needed.

    Weights are fetched as safetensors only. Without a connection, what the hub's cache has serves.

    Args:
        name: `organisation/model`.
        trust_remote_code: also fetch the model's own Python files.
        progress: told about bytes.

    Raises:
        DemurError: no such model, a gated one, no connection, or no safetensors weights.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        information = HfApi().model_info(name, files_metadata=True, timeout=10)
        sizes = {file.rfilename: file.size or 0 for file in information.siblings or ()}
        wanted = _select(name, list(sizes), trust_remote_code)
        total = sum(sizes[file] for file in wanted)
        # The first is asked for as the newest, so that the cache knows which commit that was and
        # finds it without a connection; the others follow by the commit, so that all are of one.
        commit: str | None = None
        with progress.stage(f"Downloading {name} from the model hub", total, "bytes") as stage:
            for file in wanted:
                stage.note(file)
                watcher = _Watcher(stage)
                path = hf_hub_download(name, file, revision=commit, tqdm_class=watcher.bar_class())
                stage.advance(sizes[file] - watcher.seen)
                folder = Path(path).parents[len(Path(file).parts) - 1]
                commit = folder.name
        return folder, folder.name
    except (DemurError, MemoryError):
        raise
    except GatedRepoError as error:
        raise DemurError(
            f"{name} is gated: accept its terms on the hub and log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DemurError(
            f"{name!r} is neither a catalog model, a file, a folder nor a model on the hub; "
            "check the spelling (private models need `hf auth login`)."
        ) from error
    except Exception as error:
        # The hub's client raises its HTTP library's errors, which differ between its versions.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return _cached_snapshot(name, error)


def _select(name: str, files: list[str], trust_remote_code: bool) -> list[str]:
    """The files that loading needs, of all that the repository has."""
    if "model.safetensors" in files:
        weights = ["model.safetensors"]
    elif "model.safetensors.index.json" in files:
        weights = [file for file in files if fnmatch(file, "model*.safetensors")]
    else:
        raise missing_weights(name, files)
    patterns = (*_TEXT_FILES, "*.py") if trust_remote_code else _TEXT_FILES
    texts = [
        file
        for file in files
        if any(
            fnmatch(file, pattern) and file.count("/") == pattern.count("/") for pattern in patterns
        )
    ]
    return sorted(texts) + sorted(weights)


def _cached_snapshot(name: str, failure: Exception) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except Exception:
        raise DemurError(
            f"{name!r} is no catalog model, file or folder, and the hub does not answer "
            f"({first_line(failure)}); connect, or give a local model folder or GGUF file."
        ) from failure
    return folder, folder.name


class _Watcher:
    """Counts the bytes of one file for a stage, in place of the hub's own bar."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seen = 0

    def bar_class(self) -> Any:
        tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm
        watcher = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **options: Any) -> None:
                options.pop("name", None)
                super().__init__(*args, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> None:
                watcher.seen += int(n or 0)
                watcher.stage.advance(int(n or 0))

        return Bar
