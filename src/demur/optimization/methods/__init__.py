"""Methods: how a safety prompt is trained. Each method is one file."""

from demur.optimization.methods.protocol import (
    Context,
    Losses,
    Method,
    MethodSettings,
    TrainingExample,
)
from demur.optimization.methods.registry import (
    DEFAULT,
    MethodSpec,
    get_method,
    method_choices,
    method_names,
)

__all__ = [
    "DEFAULT",
    "Context",
    "Losses",
    "Method",
    "MethodSettings",
    "MethodSpec",
    "TrainingExample",
    "get_method",
    "method_choices",
    "method_names",
]
