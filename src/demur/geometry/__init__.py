"""Directions in the space of representations, and the losses along them."""

from demur.geometry.directions import Directions, estimate_directions, require_readings
from demur.geometry.losses import LossTerms, LossWeights, dro_terms
from demur.geometry.movement import Movement, cosine, movement
from demur.geometry.separation import Separation, paired_folds, principal_components, separation

__all__ = [
    "Directions",
    "LossTerms",
    "LossWeights",
    "Movement",
    "Separation",
    "cosine",
    "dro_terms",
    "estimate_directions",
    "movement",
    "paired_folds",
    "principal_components",
    "require_readings",
    "separation",
]
