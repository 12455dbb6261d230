"""Directed Representation Optimization as an objective over the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demur.geometry import Directions, LossWeights, dro_terms


class DirectedRepresentation:
    """Moves harmful queries along the refusal direction and harmless ones against it.

    DRO paper, section 4.
    """

    def __init__(
        self,
        directions: Directions,
        start: Tensor,
        labels: Tensor,
        weights: LossWeights,
        weight_harmless: float = 1.0,
    ) -> None:
        """
        Args:
            directions: estimated from the anchors.
            start: (N, d), the training queries' representations under the basic prompt.
            labels: (N,), 1 harmful, 0 harmless.
            weights: of the three terms.
            weight_harmless: of a harmless query's loss against a harmful one's; 1 in the paper.
        """
        self.directions = directions
        self.start = start
        self.labels = labels
        self.weights = weights
        self.weight_harmless = weight_harmless

    def losses(
        self, representations: Tensor, rows: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each query, and its terms.

        Args:
            representations: (b, d) under the prompt that is trained.
            rows: which of the N training queries they belong to.

        Returns:
            (b,) losses, and the terms by name, each (b,).
        """
        chosen = torch.tensor(list(rows))
        moved = representations.cpu()
        terms = dro_terms(self.directions, moved, self.start[chosen], self.labels[chosen])
        weight = torch.where(self.labels[chosen] > 0, 1.0, self.weight_harmless)
        return weight * terms.total(self.weights), {
            "refusal": terms.refusal,
            "harmfulness": terms.harmfulness,
            "complement": terms.complement,
        }
