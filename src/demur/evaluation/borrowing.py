"""Measurements that a run and a diagnosis share: what one has sampled, the other does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from demur.chat import Condition
from demur.errors import DemurError
from demur.progress import Progress
from demur.prompts import BASIC_PROMPTS, load_basic_prompt
from demur.runs import Measurement, Queries, RunFolder

SETTINGS = (
    "system_prompt",
    "anchors",
    "samples",
    "kept_samples",
    "tokens_harmful",
    "tokens_harmless",
    "least_tokens",
    "cut_unfinished",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "judge",
)
"""The settings that must agree, beside the model, for responses to be the same."""

MODEL = ("identity", "dtype", "device", "chat_template")


def measurement_name(place: int, prompt: str) -> str:
    """What the anchors' measurement under the `place`-th condition is called in a folder."""
    return f"anchors-{place}-{prompt}"


def borrow(
    lenders: Sequence[Path],
    folder: RunFolder,
    name: str,
    condition: Condition,
    anchors: Queries,
    progress: Progress,
) -> None:
    """Copy a measurement of the anchors from another folder, where one has the very same.

    Does nothing where the measurement has begun already or no folder has it.

    Args:
        lenders: folders of runs and diagnoses, or folders that hold such folders.
        folder: takes the measurement; its settings say what the same is.
        name: of the measurement in `folder`.
        condition: what the anchors are read under; its prompt is a text, not trained.
        anchors: the queries.
        progress: hears where the measurement comes from.
    """
    prompt = condition.safety_prompt
    if (prompt is not None and prompt.is_trained) or folder.stored_measurement(name) is not None:
        return
    wanted = folder.settings()
    for lender in _folders(lenders):
        with suppress(DemurError, KeyError, TypeError):  # a folder that is not what it seems
            found = _find(lender, wanted, None if prompt is None else prompt.text, anchors)
            if found is not None:
                folder.save_measurement(name, replace(found, condition=condition.name))
                progress.message(
                    f"The anchor queries under {condition.name} were read in {lender.path} "
                    "already: taking them from there."
                )
                return


def _folders(places: Sequence[Path]) -> Iterator[RunFolder]:
    for place in places:
        candidates = [place, *sorted(place.iterdir())] if place.is_dir() else []
        for candidate in candidates:
            with suppress(DemurError):
                yield RunFolder.open(candidate)


def _find(
    lender: RunFolder, wanted: Mapping[str, Any], text: str | None, anchors: Queries
) -> Measurement | None:
    settings = lender.settings()
    if not _same(settings, wanted):
        return None
    for place, (name, prompt) in enumerate(_conditions(settings)):
        if prompt == text:
            found = lender.stored_measurement(measurement_name(place, name))
            if found is not None and found.queries == anchors:
                return found
    return None


def _same(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    theirs, ours = settings.get("model"), wanted["model"]
    if not isinstance(theirs, dict) or any(theirs.get(key) != ours[key] for key in MODEL):
        return False
    return all(key in settings and settings[key] == wanted[key] for key in SETTINGS)


def _conditions(settings: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Name and text of the conditions that the anchors were read under, in their order."""
    if "prompts" in settings:  # a diagnosis
        prompts = [
            (prompt["name"], "" if prompt["embeddings"] else prompt["text"])
            for prompt in settings["prompts"]
        ]
        return [("none", None), *prompts]
    basic = settings["basic_prompt"]
    others = [name for name in settings["anchor_prompts"] if name != basic["name"]]
    texts = [
        (name, load_basic_prompt(name).text if name in BASIC_PROMPTS else "") for name in others
    ]
    return [("none", None), *texts, (basic["name"], basic["text"])]
