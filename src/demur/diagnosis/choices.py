"""What is to be diagnosed: a model with query sets and settings, or one of its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.chat import ChatModel
from demur.errors import DemurError
from demur.evaluation.choices import PromptChoice, choose_prompts
from demur.optimization import OptimizeSettings, Run
from demur.prompts import SafetyPrompt, load_system_prompt
from demur.queries import load_query_set, require
from demur.runs import Measurement, Queries, RunFolder

DEFAULT_PROMPTS = ("long", "short", "plain")

FIELDS = (
    "components",
    "folds",
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
"""The settings of an optimization that say how anchors are read."""


@dataclass(frozen=True)
class Subject:
    """What is diagnosed.

    Attributes:
        anchors: the labelled queries.
        prompts: the safety prompts beside none.
        system_prompt: the application's own system text.
        settings: of sampling and fitting.
        preset: that they started from.
        run: the folder of a finished run, whose optimized prompt is shown too, or None.
    """

    anchors: Queries
    prompts: tuple[SafetyPrompt, ...]
    system_prompt: str | None
    settings: OptimizeSettings
    preset: str
    run: RunFolder | None = None

    @property
    def held_out(self) -> tuple[Measurement, ...]:
        """The run's held-out queries under no prompt, the basic one and the optimized one.

        Raises:
            DemurError: the run's files are incomplete.
        """
        if self.run is None:
            return ()
        basic = self.run.settings()["basic_prompt"]["name"]
        found = [
            self.run.stored_measurement(f"held-out-{name}") for name in ("none", basic, "optimized")
        ]
        return tuple(_require(one, self.run) for one in found)

    def recorded(self, model: ChatModel) -> Mapping[str, Any]:
        """Every setting, and the model it belongs to, as plain JSON."""
        return {
            "model": {
                "name": model.name,
                "identity": model.identity,
                "dtype": str(model.dtype).removeprefix("torch."),
                "device": str(model.device),
                "chat_template": model.renderer.fingerprint,
            },
            "prompts": [_recorded(prompt) for prompt in self.prompts],
            "system_prompt": self.system_prompt,
            "anchors": self.anchors.fingerprint,
            "run": None if self.run is None else self.run.path.resolve().name,
            "preset": self.preset,
            **self.settings.model_dump(mode="json", include=set(FIELDS)),
        }


def choose_subject(
    prompts: Sequence[PromptChoice] | None,
    harmful: str,
    harmless: str,
    system_prompt: str | None,
    preset: str,
    settings: Mapping[str, Any],
) -> Subject:
    """A model's own anchors.

    Raises:
        DemurError: something cannot be read or is out of its range.
    """
    chosen = OptimizeSettings.preset(preset, **settings)
    sets = [
        require(load_query_set(harmful, "harmful")),
        require(load_query_set(harmless, "harmless")),
    ]
    if chosen.most_anchors is not None:
        sets = [queries.head(chosen.most_anchors) for queries in sets]
    return Subject(
        anchors=Queries.of(*sets),
        prompts=_prompts(DEFAULT_PROMPTS if prompts is None else prompts),
        system_prompt=load_system_prompt(system_prompt) if system_prompt is not None else None,
        settings=chosen,
        preset=preset,
    )


def subject_of_run(path: str | Path, prompts: Sequence[PromptChoice] | None) -> Subject:
    """The anchors and settings of a finished run; its basic prompt comes first.

    Raises:
        DemurError: there is no finished run, or its files are incomplete.
    """
    run = Run.load(path)
    folder = RunFolder(run.path)
    recorded = run.settings
    basic = SafetyPrompt(recorded["basic_prompt"]["name"], recorded["basic_prompt"]["text"])
    chosen = _prompts(DEFAULT_PROMPTS if prompts is None else prompts)
    others = tuple(prompt for prompt in chosen if prompt.name != basic.name)
    fields = {name: recorded[name] for name in FIELDS if name in recorded}
    preset = recorded.get("preset", "standard")
    return Subject(
        anchors=_require(folder.stored_measurement("anchors-0-none"), folder).queries,
        prompts=(basic, *others),
        system_prompt=recorded.get("system_prompt"),
        settings=OptimizeSettings.preset(preset, **fields),
        preset=preset,
        run=folder,
    )


def require_model_of_run(model: ChatModel, run: RunFolder) -> None:
    """Make sure that a run's measurements are of this model.

    Raises:
        DemurError: they are of another one.
    """
    recorded = run.settings()["model"]
    if recorded["identity"] != model.identity:
        raise DemurError(
            f"The run in {run.path} is one of {recorded['name']}, not of {model.name}: "
            "diagnose it with its own model."
        )


def _prompts(choices: Sequence[PromptChoice]) -> tuple[SafetyPrompt, ...]:
    named = [choice for choice in choices if choice not in (None, "none")]
    if not named:
        raise DemurError(
            "There is no prompt to diagnose: give one with --prompt, for example long."
        )
    return tuple(prompt for prompt in choose_prompts(named) if prompt is not None)


def _require(measurement: Measurement | None, folder: RunFolder) -> Measurement:
    if measurement is None:
        raise DemurError(
            f"The run in {folder.path} lacks some of its responses or representations: "
            "run its command again in another folder."
        )
    return measurement


def _recorded(prompt: SafetyPrompt) -> dict[str, Any]:
    rows = None if prompt.embeddings is None else prompt.embeddings.numpy().tobytes()
    return {
        "name": prompt.name,
        "text": prompt.text,
        "embeddings": None if rows is None else hashlib.sha256(rows).hexdigest(),
    }
