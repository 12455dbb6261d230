"""Fetch a model's files from the hub into the hub's own cache."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from demur.chat.checkpoint import missing_weights
from demur.errors import DemurError, did_you_mean, first_line
from demur.hub import HubModel
from demur.hub.failures import endpoint, explained_download, status_of
from demur.progress import Progress, Stage

_TEXT_FILES = (
    "*.json",
    "*.txt",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "additional_chat_templates/*",
)
_QUANTIZATION = re.compile(r"(?:^|[-_./])((?:I?Q\d|TQ\d|B?F(?:P)?\d|MXFP\d)\w*)$", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_SECONDS = 10.0


@dataclass(frozen=True)
class HubFiles:
    """Files of a model in the hub's cache.

    Attributes:
        path: folder of the model, or its GGUF file.
        commit: commit that they are of.
    """

    path: Path
    commit: str


def hub_snapshot(
    model: HubModel,
    trust_remote_code: bool,
    progress: Progress,
    before_weights: Callable[[Path], object] | None = None,
    *,
    instead: str = "a local model folder or GGUF file",
) -> HubFiles:
    """The files of a hub model, downloaded where needed.

    Weights are fetched as safetensors, or as one GGUF file. Without a connection, what the hub's
    cache has serves.

    Args:
        model: the model.
        trust_remote_code: also fetch the model's own Python files.
        progress: told about bytes.
        before_weights: looks at the folder with all files but the weights, before these are
            fetched; it is not called where they are there already.
        instead: what may be given where there is no connection.

    Raises:
        DemurError: no such model, a gated one, no connection, or no weights that demur reads.
    """
    from huggingface_hub import hf_hub_download

    with explained_download(str(model)):
        try:
            sizes = _sizes(model)
        except Exception as error:
            status = status_of(error)
            refused = type(error).__name__ in ("GatedRepoError", "RepositoryNotFoundError")
            if refused or (status is not None and status < 500):
                raise
            return _cached(model, trust_remote_code, error, instead)
        texts, weights = _select(model, list(sizes), trust_remote_code)
        # The first is asked for by its revision, so that the cache knows which commit that was and
        # finds it without a connection; the others follow by the commit, so that all are of one.
        revision = model.name.revision
        path = folder = Path()
        total = sum(sizes[file] for file in (*texts, *weights))
        title = f"Downloading {model}"
        with progress.stage(title, total, "bytes") as stage:
            for file in (*texts, *weights):
                is_first = texts and file == weights[0]
                if is_first and before_weights is not None and not (folder / file).exists():
                    before_weights(folder)
                stage.note(file)
                watcher = _Watcher(stage)
                path = Path(
                    hf_hub_download(
                        model.name.repository,
                        file,
                        revision=revision,
                        endpoint=endpoint(),
                        tqdm_class=watcher.bar_class(),
                    )
                )
                stage.advance(sizes[file] - watcher.seen)
                folder = path.parents[len(Path(file).parts) - 1]
                revision = folder.name
        return HubFiles(folder if texts else path, folder.name)


def weights_on_hub(model: HubModel) -> dict[str, int]:
    """The files with a model's weights, and the bytes of each; nothing is downloaded.

    Args:
        model: the model.

    Raises:
        DemurError: no such model, a gated one, no connection, or no weights that demur reads.
    """
    with explained_download(str(model)):
        sizes = _sizes(model)
        _, weights = _select(model, list(sizes), False)
    return {file: sizes[file] for file in weights}


def _sizes(model: HubModel) -> dict[str, int]:
    """The bytes of each file of a model, as the hub lists them."""
    from huggingface_hub import HfApi

    information = HfApi(endpoint=endpoint()).model_info(
        model.name.repository,
        revision=model.name.revision,
        files_metadata=True,
        timeout=_SECONDS,
    )
    return {file.rfilename: file.size or 0 for file in information.siblings or ()}


def _select(
    model: HubModel, files: Sequence[str], trust_remote_code: bool
) -> tuple[list[str], list[str]]:
    """The files that loading needs: texts, then weights. Of a GGUF model that file alone."""
    name = str(model)
    if model.file is not None or model.quantization is not None:
        return [], [_gguf_file(model, files)]
    if "model.safetensors" in files:
        weights = ["model.safetensors"]
    elif "model.safetensors.index.json" in files:
        weights = [file for file in files if fnmatch(file, "model*.safetensors")]
    else:
        known = _gguf_files(files)
        if len(known) == 1:
            return [], known
        if known:
            raise DemurError(
                f"{name} holds GGUF files: name one, for example {name}:{_quantizations(known)[0]} "
                f"({_listed(known)})."
            )
        raise missing_weights(name, files)
    patterns = (*_TEXT_FILES, "*.py") if trust_remote_code else _TEXT_FILES
    texts = [
        file
        for file in files
        if any(
            fnmatch(file, pattern) and file.count("/") == pattern.count("/") for pattern in patterns
        )
    ]
    return sorted(texts), sorted(weights)


def _gguf_file(model: HubModel, files: Sequence[str]) -> str:
    """The GGUF file that a name means.

    Raises:
        DemurError: there is none, or it is a part of a split model.
    """
    known = _gguf_files(files)
    if model.file is not None:
        if model.file in files:
            return _whole(model.file, model)
        hint = did_you_mean(model.file, known)
        raise DemurError(f"{model.name} has no file {model.file!r:.200}{hint}: check the name.")
    wanted = (model.quantization or "").lower()
    found = [file for file in known if wanted in _tags(file)]
    if not found:
        kinds = _quantizations(known)
        hint = did_you_mean(wanted, kinds)
        raise DemurError(
            f"{model.name} has no GGUF file {model.quantization}{hint}: "
            f"{'choose ' + _listed(known) if known else 'it has no GGUF files'}."
        )
    return _whole(min(found, key=len), model)


def _whole(file: str, model: HubModel) -> str:
    """The file, where it is no part of a split model, which transformers does not read."""
    parts = re.search(r"-\d{5}-of-(\d{5})\.gguf$", file)
    if parts is None:
        return file
    raise DemurError(
        f"{str(model)!r:.200} is split into {int(parts[1])} files: download all, merge them "
        "with `llama-gguf-split --merge FIRST-PART WHOLE.gguf` and give the whole file."
    )


def _gguf_files(files: Sequence[str]) -> list[str]:
    return sorted(file for file in files if file.endswith(".gguf") and not _NO_MODEL.search(file))


def _tags(file: str) -> set[str]:
    """What a GGUF file may be asked for by: the last parts of its name, and its folder."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", file.removesuffix(".gguf")).lower()
    folder, _, name = stem.rpartition("/")
    parts = re.split(r"(?<=[-.])", name)
    return {"".join(parts[place:]) for place in range(len(parts))} | {folder.rpartition("/")[2]}


def _quantizations(files: Sequence[str]) -> list[str]:
    """The quantizations of GGUF files, or their names where they do not tell."""
    found = []
    for file in files:
        stem = re.sub(r"-\d{5}-of-\d{5}$", "", file.removesuffix(".gguf"))
        match = _QUANTIZATION.search(stem)
        found.append(match[1] if match else stem)
    return list(dict.fromkeys(found))


def _listed(files: Sequence[str], most: int = 12) -> str:
    kinds = _quantizations(files)
    return ", ".join(kinds[:most]) + (", ..." if len(kinds) > most else "")


def _cached(model: HubModel, trust_remote_code: bool, failure: Exception, instead: str) -> HubFiles:
    """What the hub's cache has of a model."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                model.name.repository, revision=model.name.revision, local_files_only=True
            )
        )
    except Exception:
        raise DemurError(
            f"{str(model)!r:.200} is no catalog model, file or folder, and the hub does not answer "
            f"({first_line(failure)}); connect, or give {instead}."
        ) from failure
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    texts, weights = _select(model, files, trust_remote_code)
    return HubFiles(folder if texts else folder / weights[0], folder.name)


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
