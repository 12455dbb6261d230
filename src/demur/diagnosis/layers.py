"""At which layer harmful and harmless part, and at which refusal becomes readable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray

from demur.diagnosis.readings import Readings
from demur.geometry import Separation, principal_components, separation

NEAR_THE_BEST = 0.02
"""Distance in AUC below the best layer within which a layer counts as a good one."""


@dataclass(frozen=True)
class LayerSeparation:
    """What one layer's output at the last input token says, cross-validated.

    Attributes:
        layer: number of the layer, from 1.
        harmfulness: AUC of harmful against harmless queries for each condition, in their order;
            None where there are too few of one.
        refusal: AUC of refused against answered queries over all conditions; None where there are
            too few of one.

    Raises:
        ValueError: an AUC is out of [0, 1].
    """

    layer: int
    harmfulness: tuple[float | None, ...]
    refusal: float | None

    def __post_init__(self) -> None:
        for auc in (*self.harmfulness, self.refusal):
            if auc is not None and not 0 <= auc <= 1:
                raise ValueError(f"{auc} is no AUC")


def layer_separations(
    readings: Readings, components: int, folds: NDArray[numpy.int64]
) -> tuple[LayerSeparation, ...]:
    """Every layer's separations, on its own principal components over all conditions.

    Args:
        readings: readings, with or without layers.
        components: number of principal components, m.
        folds: (N,), fold of each query.
    """
    if readings.layers is None:
        return ()
    labels = readings.queries.label_tensor()
    refusal = torch.cat([one.refusal_probabilities() for one in readings.anchors])
    count, found = len(labels), []
    for layer in range(readings.layers[0].shape[1]):
        points = principal_components(
            torch.cat([outputs[:, layer] for outputs in readings.layers]), components
        )
        parted = [
            separation(points[row * count : (row + 1) * count], labels, folds)
            for row in range(len(readings.layers))
        ]
        read = separation(points, refusal, numpy.tile(folds, len(readings.layers)))
        found.append(LayerSeparation(layer + 1, tuple(map(_auc, parted)), _auc(read)))
    return tuple(found)


def _auc(found: Separation | None) -> float | None:
    return None if found is None else found.auc


def first_good_layer(scores: Sequence[float | None]) -> int | None:
    """The first layer, from 1, whose AUC is within 0.02 of the best one's; None without any."""
    known = [score for score in scores if score is not None]
    if not known:
        return None
    return next(
        layer
        for layer, score in enumerate(scores, start=1)
        if score is not None and score >= max(known) - NEAR_THE_BEST
    )
