"""The engine: representations, scores, gradients and samples over a shared prefix.

Every conversation of a condition opens with the same tokens, so the keys and values of that opening
are computed once and shared. The results are those of the plain path; `Engine` checks that once per
model and takes the plain path where it does not hold.
"""

from demur.chat.engine.capability import PrefixSharing, Verdict
from demur.chat.engine.decoding import Sampled
from demur.chat.engine.engine import Engine
from demur.chat.engine.finite import NotFiniteError
from demur.chat.engine.gradient import PartialLoss
from demur.chat.engine.inputs import Inputs
from demur.chat.engine.sampler import Sample, SamplingSettings, drawn_log_probability
from demur.chat.engine.targets import Read, TargetTokens, TokenReader, log_probability

__all__ = [
    "Engine",
    "Inputs",
    "NotFiniteError",
    "PartialLoss",
    "PrefixSharing",
    "Read",
    "Sample",
    "Sampled",
    "SamplingSettings",
    "TargetTokens",
    "TokenReader",
    "Verdict",
    "drawn_log_probability",
    "log_probability",
]
