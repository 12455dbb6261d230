"""How the help of demur and of its commands is written."""

from __future__ import annotations

from typing import Any

PROGRAM = "demur"
_SWITCHES = ("help", "version", "install_completion", "show_completion")


def without_types(parameters: list[Any]) -> list[Any]:
    """Parameters of typer whose help leaves out types that say nothing.

    An argument is shown by its name, and a switch takes no value.
    """
    for one in parameters:
        if one.param_type_name == "argument" or one.name in _SWITCHES:
            vars(one).update(display_type_rich=lambda ctx: None)
    return parameters
