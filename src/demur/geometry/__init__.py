"""Directions in the space of representations, and the losses along them."""

from demur.geometry.directions import Directions, estimate_directions, require_readings
from demur.geometry.losses import LossTerms, LossWeights, dro_terms
from demur.geometry.movement import Movement, cosine, movement
from demur.geometry.probe import LEAST_FITTED, Probe, fit_probe
from demur.geometry.separation import (
    ALLOWED,
    Separation,
    area_under_curve,
    found_at,
    paired_folds,
    principal_components,
    separation,
)

__all__ = [
    "ALLOWED",
    "LEAST_FITTED",
    "Directions",
    "LossTerms",
    "LossWeights",
    "Movement",
    "Probe",
    "Separation",
    "area_under_curve",
    "cosine",
    "dro_terms",
    "estimate_directions",
    "fit_probe",
    "found_at",
    "movement",
    "paired_folds",
    "principal_components",
    "require_readings",
    "separation",
]
