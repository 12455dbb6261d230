"""Where a safety prompt comes from: its model, the method and its settings, and what was measured.

All texts are for people. A prompt may come from a stranger, so nothing here is trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from demur.records import ModelRecord, Rate

Role = Literal["none", "basic", "this"]
"""What a measured prompt is: no prompt, the basic prompt, or the safety prompt itself."""


@dataclass(frozen=True)
class Fact:
    """A setting or a circumstance, in words for people.

    Attributes:
        name: name of the setting, for example `learning rate`.
        text: value as text, for example `0.001`.
    """

    name: str
    text: str


@dataclass(frozen=True)
class MeasuredPrompt:
    """What was measured on the held-out queries under one prompt: a row of the card's table.

    Attributes:
        role: what the prompt is.
        prompt: name of the prompt.
        harmful_refused: mean rate at which harmful queries are refused.
        harmless_refused: mean rate at which harmless queries are refused.
        divergence: KL divergence of the next token from the model without a prompt, in nats, mean
            over the harmless queries; None where it was not measured.
        changed: share of the harmless queries whose likeliest first token is another than without
            a prompt; None where it was not measured.

    Raises:
        ValueError: a rate is not a rate, or the divergence is not finite.
    """

    role: Role
    prompt: str
    harmful_refused: Rate
    harmless_refused: Rate
    divergence: float | None = None
    changed: Rate | None = None

    def __post_init__(self) -> None:
        if self.divergence is not None and not math.isfinite(self.divergence):
            raise ValueError("a divergence must be finite")


@dataclass(frozen=True)
class Provenance:
    """Where a safety prompt comes from. Everything is optional.

    The application's own system text is never part of it.

    Attributes:
        model: model that the prompt was trained on.
        base_model: name of that model on the hub, `organisation/name`.
        method: title of the method, for example `Directed Representation Optimization`.
        paper: address of the paper that describes the method, for example
            `https://arxiv.org/abs/2401.18018`.
        settings: settings of the training.
        measured: how the results were measured: judge, responses for each query, tokens, seed.
        results: what was measured on held-out queries: no prompt, the basic prompt, this one.
        with_system_prompt: whether an application's own system text stood after the safety prompt.

    Example:
        >>> Provenance(settings=(Fact("epochs", "3"),)).settings[0].text
        '3'
    """

    model: ModelRecord | None = None
    base_model: str | None = None
    method: str | None = None
    paper: str | None = None
    settings: tuple[Fact, ...] = ()
    measured: tuple[Fact, ...] = ()
    results: tuple[MeasuredPrompt, ...] = ()
    with_system_prompt: bool = False
