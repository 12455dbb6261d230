"""Fetch a few small files of a repository into the hub's own cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.hub.failures import endpoint, explained_download, status_of
from demur.hub.name import HubName

Choice = Callable[[Mapping[str, int]], Sequence[str]]
"""Takes the size in bytes of every file in a repository; returns the names of those to fetch."""

_SECONDS = 10.0


def fetch_files(
    name: HubName,
    choose: Choice,
    first: str,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> tuple[Path, str]:
    """Fetch some files of a repository, all of one commit.

    Where the hub cannot be reached, files that were fetched before are used.

    Args:
        name: repository, and which state of it.
        choose: chooses the files; may raise `DemurError` for a repository of another kind.
        first: name of the file that the others are of no use without.
        token: token for the hub; None takes the one that the user logged in with.
        cache_dir: folder of the hub's cache; None is the hub's own.
        force_download: whether to fetch again what the cache has.
        local_files_only: whether to use the cache alone.

    Returns:
        The folder with the files, and the commit that they are of.

    Raises:
        DemurError: there is no such repository or revision, no right to read it, or no connection.
    """
    options: dict[str, Any] = {
        "token": token,
        "cache_dir": cache_dir,
        "endpoint": endpoint(),
    }
    if local_files_only:
        return _from_cache(name, first, options, None)
    from huggingface_hub import HfApi, hf_hub_download

    with explained_download(str(name)):
        try:
            information = HfApi(endpoint=endpoint(), token=token).model_info(
                name.repository, revision=name.revision, files_metadata=True, timeout=_SECONDS
            )
        except Exception as error:
            status = status_of(error)
            if status is not None and status < 500:
                raise
            return _from_cache(name, first, options, error)
        sizes = {file.rfilename: file.size or 0 for file in information.siblings or ()}
        options |= {"force_download": force_download, "tqdm_class": _silent_bar()}
        # Asked for by its revision, so that the cache knows which commit that was. The others
        # follow by the commit, so that all are of one.
        wanted = choose(sizes)
        path = hf_hub_download(name.repository, first, revision=name.revision, **options)
        folder = Path(path).parent
        for file in wanted:
            if file != first:
                hf_hub_download(name.repository, file, revision=folder.name, **options)
        return folder, folder.name


def _from_cache(
    name: HubName, first: str, options: Mapping[str, Any], failure: Exception | None
) -> tuple[Path, str]:
    """The newest state of the repository that the cache has."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            name.repository, first, revision=name.revision, local_files_only=True, **options
        )
    except Exception as error:
        if failure is not None and type(failure).__name__ != "OfflineModeIsEnabled":
            raise failure from None
        raise DemurError(
            f"{str(name)!r} is no file or folder here, and the hub's cache does not have it: "
            "fetch it once with a connection (HF_HUB_OFFLINE unset)."
        ) from error
    folder = Path(path).parent
    return folder, folder.name


def _silent_bar() -> Any:
    """A bar that is not shown, since the files are small."""
    tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

    return Bar
