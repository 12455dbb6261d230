"""The model that a command loads where none is named: the one a trained prompt belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from demur.chat.catalog import is_public_name
from demur.chat.settings import LoadSettings
from demur.errors import DemurError
from demur.prompts import SafetyPrompt
from demur.records import SETTINGS, kind_of, read_record

Load = TypeVar("Load", bound=LoadSettings)

_RUN = "run"


def model_of_prompts(load: Load, prompts: Iterable[tuple[str, SafetyPrompt | None]]) -> Load:
    """The settings with the model that the first trained prompt was trained on.

    Args:
        load: which model was chosen, and how it computes; unchanged where a model is named.
        prompts: what each prompt is loaded by, and the prompt, None for no prompt.

    Returns:
        For the folder of a run also how its model computed, where nothing else was chosen.

    Raises:
        DemurError: the prompt was trained on a model that is neither in the catalog nor on the hub.
            A prompt may be a stranger's, so the name of its model is never taken for a path.
    """
    if load.model is not None:
        return load
    for spec, prompt in prompts:
        if prompt is None or not prompt.is_trained:
            continue
        folder = Path(spec)
        if kind_of(folder) == _RUN:
            from demur.optimization.recorded import RunRecord  # many settings, for runs alone

            return load.like(read_record(folder / SETTINGS, RunRecord, _RUN).load)
        model = prompt.provenance.model
        if model is None:
            continue
        if not is_public_name(model.name):
            raise DemurError(
                f"The safety prompt {prompt.name!r:.60} was trained on {model.name!r:.200}, which "
                "is neither in the catalog nor a hub name: give that model's folder or file."
            )
        return load.model_copy(update={"model": model.name})
    return load
