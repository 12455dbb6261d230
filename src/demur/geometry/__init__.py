"""Directions in representation space, and the losses along them. Tensors in, numbers out."""

from demur.geometry.directions import Directions, estimate_directions
from demur.geometry.losses import LossTerms, LossWeights, dro_terms

__all__ = ["Directions", "LossTerms", "LossWeights", "dro_terms", "estimate_directions"]
