"""The model that a user chose: by settings, or as an object."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from demur.arguments import described
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.naming import model_place
from demur.chat.settings import LoadSettings, WorkLoadSettings
from demur.errors import DemurError
from demur.progress import Progress

if TYPE_CHECKING:
    from demur.chat import ChatModel


def load_chosen(settings: LoadSettings, progress: Progress) -> ChatModel:
    """Load the model that settings name, for a process that does nothing else.

    Args:
        settings: which model, and how it computes.
        progress: reports downloads and the choice of dtype.

    Raises:
        DemurError: the model cannot be found, read or used.
    """
    name = settings.model or DEFAULT_MODEL
    model_place(name)
    from demur.chat import ChatModel  # slow: behind a misspelled name
    from demur.chat.served import reached
    from demur.chat.served_check import checked

    sample_at = settings.sample_at if isinstance(settings, WorkLoadSettings) else None
    server = None if sample_at is None else reached(sample_at, progress)
    model = ChatModel.load(
        name,
        dtype=settings.dtype,
        device=None if settings.device == "best" else settings.device,
        quantization=settings.quantization,
        trust_remote_code=settings.trust_remote_code,
        prefix_sharing=settings.prefix_sharing,
        chat_template=settings.chat_template,
        keep_freed_memory=True,
        progress=progress,
    )
    return model if server is None else checked(model, server, progress)


def require_model(model: object) -> None:
    """Check that something is a loaded model.

    Raises:
        DemurError: it is something else, such as the name of a model.
    """
    from demur.chat import ChatModel

    if isinstance(model, ChatModel):
        return
    text = str(model) if isinstance(model, (str, PathLike)) else "NAME"
    raise DemurError(
        f"'model' is {described(model)}, not a ChatModel: give ChatModel.load({text[:100]!r})."
    )
