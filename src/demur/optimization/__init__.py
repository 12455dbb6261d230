"""Optimize a safety prompt. One method for now, DRO; the loop serves every method."""

from demur.optimization.pipeline import optimize
from demur.optimization.run import Run
from demur.optimization.settings import PRESETS, OptimizeSettings

__all__ = ["PRESETS", "OptimizeSettings", "Run", "optimize"]
