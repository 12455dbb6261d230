"""Stage one: read the anchor queries and find the directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from demur.chat import ChatModel, Condition
from demur.errors import DemurError
from demur.evaluation.borrowing import borrow, measurement_name
from demur.evaluation.measuring import measure
from demur.geometry import Directions, estimate_directions
from demur.judges import get_refusal_judge
from demur.optimization.settings import OptimizeSettings
from demur.progress import Progress
from demur.runs import Measurement, Queries, RunFolder

LEAST_OF_EACH = 10
"""How many readings must lean to refusing, and how many to complying, to fit a direction to."""


@dataclass(frozen=True)
class Anchoring:
    """What the anchors say.

    Attributes:
        measurements: one for each condition that was read.
        basic: the one under the basic prompt that is optimized.
        directions: estimated from all of them.
    """

    measurements: tuple[Measurement, ...]
    basic: Measurement
    directions: Directions


def read_anchors(
    model: ChatModel,
    anchors: Queries,
    conditions: Sequence[Condition],
    settings: OptimizeSettings,
    progress: Progress,
    folder: RunFolder,
    lenders: Sequence[Path] = (),
) -> Anchoring:
    """Measure the anchors under every condition and fit the directions.

    Args:
        model: whose directions are wanted.
        anchors: harmful and harmless.
        conditions: no prompt, other basic prompts, and last the one to optimize.
        settings: of sampling and fitting.
        progress: hears of it.
        folder: keeps the measurements and the directions.
        lenders: where diagnoses lie that may have some of the measurements already.

    Raises:
        DemurError: the model refuses (nearly) nothing or everything, or the settings ask for more
            components than there are dimensions.
    """
    names = [measurement_name(place, one.name) for place, one in enumerate(conditions)]
    for name, condition in zip(names, conditions, strict=True):
        borrow(lenders, folder, name, condition, anchors, progress)
    measurements = tuple(
        _read(model, anchors, condition, settings, progress, folder, name)
        for name, condition in zip(names, conditions, strict=True)
    )
    _require_both_verdicts(model, measurements)
    if settings.components >= min(len(anchors) * len(measurements), model.width):
        raise DemurError(
            f"--components {settings.components} is too many for {model.name} and these queries: "
            f"give less than {min(len(anchors) * len(measurements), model.width)}."
        )
    return _fit(measurements, measurements[-1], settings, folder)


def read_anchors_again(
    model: ChatModel,
    anchoring: Anchoring,
    condition: Condition,
    settings: OptimizeSettings,
    progress: Progress,
    folder: RunFolder,
    epoch: int,
) -> Anchoring:
    """Measure the anchors under the prompt so far too, and fit the directions to all that is known.

    The directions hold where they were estimated. The trained prompt moves the representations away
    from there, and what the model says there tells how refusal goes on.

    Args:
        condition: the prompt so far.
        epoch: how many epochs it was trained for.
    """
    name = f"anchors-epoch-{epoch}"
    anchors = anchoring.basic.queries
    again = _read(model, anchors, condition, settings, progress, folder, name)
    return _fit((*anchoring.measurements, again), anchoring.basic, settings, folder)


def _read(
    model: ChatModel,
    anchors: Queries,
    condition: Condition,
    settings: OptimizeSettings,
    progress: Progress,
    folder: RunFolder,
    name: str,
) -> Measurement:
    return measure(
        model,
        anchors,
        condition,
        settings.protocol,
        get_refusal_judge(settings.judge),
        progress,
        folder=folder,
        name=name,
        description="Reading the anchor queries",
    )


def _fit(
    measurements: tuple[Measurement, ...],
    basic: Measurement,
    settings: OptimizeSettings,
    folder: RunFolder,
) -> Anchoring:
    directions = estimate_directions(
        torch.cat([measurement.representations for measurement in measurements]),
        torch.cat([measurement.refusal_probabilities() for measurement in measurements]),
        basic.queries.labels().repeat(len(measurements)),
        components=settings.components,
        folds=settings.folds,
        seed=settings.seed,
    )
    folder.save_tensors("directions", directions.tensors())
    return Anchoring(measurements, basic, directions)


def _require_both_verdicts(model: ChatModel, measurements: Sequence[Measurement]) -> None:
    rates = [rate for measurement in measurements for rate in measurement.refusal_rates()]
    refusing = sum(rate > 0 for rate in rates)
    complying = sum(rate < 1 for rate in rates)
    if min(refusing, complying) >= LEAST_OF_EACH:
        return
    figures = "; ".join(_figures(measurement) for measurement in measurements)
    what = "refuses (almost) none" if refusing < LEAST_OF_EACH else "refuses (almost) all"
    raise DemurError(
        f"{model.name} {what} of the anchor queries, so there is no refusal direction to "
        f"estimate ({figures}): use a model that refuses some and answers some, or other queries."
    )


def _figures(measurement: Measurement) -> str:
    rates = measurement.refusal_rates()
    harmful = [rates[row] for row in measurement.queries.rows(harmful=True)]
    harmless = [rates[row] for row in measurement.queries.rows(harmful=False)]
    return (
        f"{measurement.condition}: harmful {sum(harmful) / len(harmful):.1%}, "
        f"harmless {sum(harmless) / len(harmless):.1%} refused"
    )
