"""Errors of the hub's client as one line that says how to fix them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from demur.errors import DemurError, first_line
from demur.files import DISK_FULL

LOGIN = "`hf auth login`, or HF_TOKEN"


def endpoint() -> str:
    """The address of the hub: `HF_ENDPOINT`, or the hub's own."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` rules the hub out."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the hub answered with, or None where it did not answer."""
    # Not by the classes of an HTTP library, which differ between versions of the client.
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


@contextmanager
def explained_download(name: str) -> Iterator[None]:
    """Turn a failure to read from the repository `name` into a `DemurError`."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except (DemurError, MemoryError):
        raise
    except GatedRepoError as error:
        raise DemurError(
            f"{name} is gated: accept its terms on the hub and log in with {LOGIN}."
        ) from error
    except RevisionNotFoundError as error:
        raise DemurError(
            f"{name} names a revision that the repository does not have: give a branch, a tag or a "
            "commit of it."
        ) from error
    except Exception as error:
        _raise_disk_error(error)
        status = status_of(error)
        unknown = isinstance(error, (RepositoryNotFoundError, HFValidationError))
        if unknown or status in (401, 403, 404):
            raise DemurError(
                f"{name!r} is no file or folder here, and no repository on the hub that you may "
                f"read: check the spelling (private ones need {LOGIN})."
            ) from error
        here = f"{name!r} is no file or folder here, and cannot be read from the hub"
        raise DemurError(_no_answer(here, status, error)) from error


@contextmanager
def explained_upload(name: str) -> Iterator[None]:
    """Turn a failure to write to the repository `name` into a `DemurError`."""
    try:
        yield
    except (DemurError, MemoryError):
        raise
    except Exception as error:
        _raise_disk_error(error)
        status = status_of(error)
        organisation = name.split("/", maxsplit=1)[0]
        fixes = {
            401: f"the hub does not accept your token: log in again with {LOGIN}",
            403: f"your token may not write to {organisation}: use one with write permission",
            404: f"the hub has no such place: check that {organisation} exists and is yours",
            409: "it was changed at the same time: push again",
            412: "it was changed at the same time: push again",
            413: "it is too large for the hub: push a smaller prompt",
            429: "the hub asks for fewer requests: push again in some minutes",
        }
        if status in fixes:
            raise DemurError(f"Cannot push to {name}, because {fixes[status]}.") from error
        raise DemurError(_no_answer(f"Cannot push to {name}", status, error)) from error


def _no_answer(what: str, status: int | None, error: Exception) -> str:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return f"{what}, because HF_HUB_OFFLINE is set: unset it to ask the hub."
    if status is None:
        return (
            f"{what}, because the hub does not answer ({first_line(error)}): check the connection "
            "and HF_ENDPOINT."
        )
    said = getattr(error, "server_message", None) or first_line(error)
    return (
        f"{what}, because the hub answered with status {status} ({str(said)[:200]}): try again "
        "later."
    )


def _raise_disk_error(error: Exception) -> None:
    """Tell failures to write into the hub's cache from those of the network."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        raise DemurError(
            "No space is left in the hub's cache: free some, or point HF_HOME at another disk."
        ) from error
    if isinstance(error, PermissionError):
        raise DemurError(
            f"Cannot write to the hub's cache ({error.strerror or error}): point HF_HOME at a "
            "folder that can be written."
        ) from error
