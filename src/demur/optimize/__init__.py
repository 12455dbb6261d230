"""Optimize a safety prompt. One method for now, DRO; the loop serves every method."""

from demur.optimize.pipeline import optimize
from demur.optimize.run import Run
from demur.optimize.settings import PRESETS, OptimizeSettings

__all__ = ["PRESETS", "OptimizeSettings", "Run", "optimize"]
