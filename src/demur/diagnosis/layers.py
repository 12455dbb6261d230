"""At which layer harmful and harmless part, and at which refusal becomes readable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray

from demur.diagnosis.readings import Readings
from demur.geometry import principal_components, separation

NEAR_THE_BEST = 0.02
"""How far below the best layer's AUC a layer may stay to count as the first good one."""


@dataclass(frozen=True)
class LayerSeparation:
    """What one layer's output at the last input token says, cross-validated.

    Attributes:
        layer: from 1 to the number of layers.
        harmfulness: for each condition the AUC of harmful against harmless.
        refusal: the AUC of refused against answered over all conditions; None where there are too
            few of one.
    """

    layer: int
    harmfulness: dict[str, float]
    refusal: float | None


def layer_separations(
    readings: Readings, components: int, folds: NDArray[numpy.int64]
) -> tuple[LayerSeparation, ...]:
    """Every layer's separations, on its own principal components over all conditions.

    Args:
        readings: with or without layers.
        components: m.
        folds: (N,), the fold of each query.
    """
    if readings.layers is None:
        return ()
    labels = readings.queries.labels()
    refusal = torch.cat([one.refusal_probabilities() for one in readings.anchors])
    count, found = len(labels), []
    for layer in range(readings.layers[0].shape[1]):
        points = principal_components(
            torch.cat([outputs[:, layer] for outputs in readings.layers]), components
        )
        harmfulness: dict[str, float] = {}
        for row, condition in enumerate(readings.conditions):
            parted = separation(points[row * count : (row + 1) * count], labels, folds)
            if parted is not None:
                harmfulness[condition] = parted.auc
        read = separation(points, refusal, numpy.tile(folds, len(readings.layers)))
        found.append(LayerSeparation(layer + 1, harmfulness, None if read is None else read.auc))
    return tuple(found)


def first_good_layer(scores: list[float | None]) -> int | None:
    """The first layer, from 1, whose AUC is within 0.02 of the best one's; None without any."""
    known = [score for score in scores if score is not None]
    if not known:
        return None
    return next(
        layer
        for layer, score in enumerate(scores, start=1)
        if score is not None and score >= max(known) - NEAR_THE_BEST
    )
