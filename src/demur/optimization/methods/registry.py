"""The methods by name, and users' own from `file.py:Class`."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, TypeAlias

from demur.arguments import described
from demur.errors import DemurError, did_you_mean
from demur.optimization.methods.protocol import Method, MethodSettings
from demur.optimization.wording import TEXT
from demur.plugins import is_plugin_spec, load_plugin
from demur.settings import options_in

BUILT_IN = {
    "likelihood": "demur.optimization.methods.likelihood:RefusalLikelihood",
    "dro": "demur.optimization.methods.dro:DirectedRepresentation",
    "vpt": "demur.optimization.methods.vpt:VanillaPromptTuning",
}
"""Module and class of each built-in method. A new method is one file and one line here."""

DEFAULT = next(iter(BUILT_IN))
"""The method that is used where none is chosen."""

MethodSpec: TypeAlias = "str | type[Method[Any]]"
"""Whatever is taken as a method: a name, `file.py:Class`, or a class."""


def method_names() -> tuple[str, ...]:
    """Names of the built-in methods."""
    return tuple(BUILT_IN)


def method_choices() -> str:
    """What may be given as a method on the command line, for help and messages."""
    return f"{', '.join(BUILT_IN)}, {TEXT} (the wording, for endpoints) or FILE.py:CLASS"


def get_method(method: MethodSpec) -> type[Method[Any]]:
    """The class of a method.

    Args:
        method: name of a built-in method, `FILE.py:CLASS`, or a subclass of `Method`.
            `FILE.py:CLASS` runs the file, so it must come from the user, never from a run's folder
            or the hub.

    Raises:
        DemurError: there is no such method, or what was given is no method.

    Example:
        >>> get_method("dro").title
        'Directed Representation Optimization'
    """
    if not isinstance(method, str):
        return _checked(method)
    if method == TEXT:
        raise DemurError(
            f"The method {TEXT!r} improves the wording for a model behind an endpoint and trains "
            "no embeddings: call optimize_wording with a Server."
        )
    if method in BUILT_IN:
        module, _, name = BUILT_IN[method].partition(":")
        return _checked(getattr(import_module(module), name))
    if is_plugin_spec(method):
        return _checked(load_plugin(method))
    raise DemurError(
        f"There is no method {method!r:.60}{did_you_mean(method, (*BUILT_IN, TEXT))}: choose "
        f"{', '.join((*BUILT_IN, TEXT))}, or give FILE.py:CLASS."
    )


def _checked(method: object) -> type[Method[Any]]:
    if not isinstance(method, type) or not issubclass(method, Method):
        raise DemurError(
            f"The method is {described(method)}, which is not a method: give a subclass of "
            "demur.optimization.methods.Method, or a name."
        )
    name = method.__name__
    if inspect.isabstract(method):
        missing = ", ".join(sorted(method.__abstractmethods__))
        raise DemurError(f"The method {name!r} is incomplete: define {missing}.")
    for attribute in ("name", "title", "terms"):
        if not getattr(method, attribute, None):
            raise DemurError(f"The method {name!r} has no {attribute}: set it in the class.")
    if "loss" in method.terms:
        raise DemurError(
            f"The method {name!r} has a term called 'loss', which is the name of the whole: rename "
            "the term."
        )
    scores = method.refusal_probabilities is not Method.refusal_probabilities
    if method.validated and not scores:
        raise DemurError(
            f"The method {name!r} has validated = True but scores no refusals: define "
            "refusal_probabilities."
        )
    if scores and not any("validated" in vars(one) for one in method.__mro__ if one is not Method):
        raise DemurError(
            f"The method {name!r} defines refusal_probabilities but does not say whether "
            "validation queries choose among the epochs: set validated in the class."
        )
    if not issubclass(method.Settings, MethodSettings):
        raise DemurError(
            f"The settings of the method {name!r} are not a MethodSettings: derive them from it."
        )
    if any(option.groups for option in options_in(method.Settings)):
        raise DemurError(
            f"The settings of the method {name!r} have a group: put them all into one model."
        )
    return method
