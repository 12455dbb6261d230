"""How a safety prompt moves a group of queries, and how much of that lies along a direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demur.geometry.directions import Directions


@dataclass(frozen=True)
class Movement:
    """How a group of queries moves from one condition to another.

    Attributes:
        length: length of the mean movement, in the units of the representations.
        agreement: mean cosine of the single movements with their mean, in [-1, 1]; 1 where all
            queries move in the same direction.
        refusal: mean change of f_r, the logit of the refusal probability.
        refusal_error: standard error of that mean over the queries.
        harmfulness: mean change of f_h, the logit of being harmful.
        along_refusal: cosine of the mean movement with the refusal direction within the principal
            components, in [-1, 1].
        along_refusal_whole: cosine of the mean movement with the refusal direction in the whole
            space, in [-1, 1].
        within_components: share of the squared length of the mean movement that lies within the
            components, in [0, 1].
    """

    length: float
    agreement: float
    refusal: float
    refusal_error: float
    harmfulness: float
    along_refusal: float
    along_refusal_whole: float
    within_components: float


def movement(directions: Directions, before: Tensor, after: Tensor) -> Movement:
    """How a group of queries moves.

    Args:
        directions: directions of the model.
        before: (N, d), representations under the one condition; N is at least 1.
        after: (N, d), representations of the same queries under the other condition.
    """
    single = (after - before).double()
    mean = single.mean(dim=0)
    components, weight = directions.components.double(), directions.refusal_weight.double()
    inside = components.T @ mean
    refusal = directions.refusal(after) - directions.refusal(before)
    harmfulness = directions.harmfulness(after) - directions.harmfulness(before)
    error = float(refusal.std()) / math.sqrt(len(single)) if len(single) > 1 else 0.0
    whole = float(mean @ mean)
    return Movement(
        length=math.sqrt(whole),
        agreement=sum(cosine(one, mean) for one in single) / len(single),
        refusal=float(refusal.mean()),
        refusal_error=error,
        harmfulness=float(harmfulness.mean()),
        along_refusal=cosine(inside, weight),
        along_refusal_whole=cosine(mean, components @ weight),
        within_components=float(inside @ inside) / whole if whole > 0 else 0.0,
    )


def cosine(first: Tensor, second: Tensor) -> float:
    """The cosine of the angle between two vectors (d,); 0 where one of them is zero."""
    lengths = float(torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second))
    return float(first @ second) / lengths if lengths > 0 else 0.0
