"""The engine: representations, gradients and samples over a shared prefix.

Every conversation of a condition opens with the same tokens, so the keys and values of that opening
are computed once and shared. The results are those of the plain path; `Engine` checks that once per
model and takes the plain path where it does not hold.
"""

from demur.chat.engine.engine import Engine
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.sampler import Sample, SamplingSettings

__all__ = ["Engine", "Inputs", "Sample", "SamplingSettings"]
