"""The loss of Directed Representation Optimization (DRO paper, section 4.2, equations 5 to 8)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from demur.geometry.directions import Directions


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts. 0 leaves a term out, as the paper's ablations do.

    Attributes:
        refusal: weight of L_r, at least 0.
        harmfulness: weight of L_h, at least 0.
        complement: weight of L_U, at least 0.
    """

    refusal: float = 1.0
    harmfulness: float = 0.01
    complement: float = 0.001


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss of B queries.

    Attributes:
        refusal: (B,), L_r. It falls as a harmful query moves along the refusal direction and a
            harmless one against it.
        harmfulness: (B,), L_h, the same along the harmfulness direction.
        complement: (B,), L_U, mean square of the movement outside the principal components.
    """

    refusal: Tensor
    harmfulness: Tensor
    complement: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """The weighted sum of the terms, (B,)."""
        return (
            weights.refusal * self.refusal
            + weights.harmfulness * self.harmfulness
            + weights.complement * self.complement
        )


def dro_terms(directions: Directions, moved: Tensor, start: Tensor, labels: Tensor) -> LossTerms:
    """Compare representations under the trained prompt with those under the basic prompt.

    Args:
        directions: directions of the model.
        moved: (B, d), representations under the trained prompt, x_t.
        start: (B, d), representations under the basic prompt, x_0.
        labels: (B,), 1.0 for harmful queries, 0.0 for harmless ones.
    """
    movement = moved - start
    # ||U^T v||^2 = ||v||^2 - ||V^T v||^2: the complement U of V is never built.
    along = movement @ directions.components
    outside = movement.square().sum(-1) - along.square().sum(-1)
    width, components = directions.components.shape
    # Biases and the mean cancel in f(x_t) - f(x_0).
    return LossTerms(
        refusal=binary_cross_entropy_with_logits(
            along @ directions.refusal_weight, labels, reduction="none"
        ),
        harmfulness=binary_cross_entropy_with_logits(
            along @ directions.harmfulness_weight, labels, reduction="none"
        ),
        complement=outside / (width - components),
    )
