"""How the help of demur and of its commands is written."""

from __future__ import annotations

import shlex
from typing import Any

import typer
from typer.core import TyperCommand

from demur.cli.plain import plain

PROGRAM = "demur"
MORE = "More options"
"""Title of the options that are in no group and that few people need."""

_SWITCHES = ("help", "short_help", "version", "install_completion", "show_completion")
_SHORT, _GIVEN = "demur.short", "demur.given"


class HelpedCommand(TyperCommand):
    """A command whose help ends with examples, and whose `-h` shows what most people need.

    Attributes:
        required: metavars of the arguments without which there is nothing to do.
        common: names of the options that `-h` shows, which come first in `--help`; where there are
            none, both show all.
        examples: command lines.
    """

    required: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    # Typer takes all arguments for optional, since a file may have them.
    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        pieces = super().collect_usage_pieces(ctx)
        return [one.strip("[]") if one.strip("[]") in self.required else one for one in pieces]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, and keep it for the help."""
        ctx.meta[_GIVEN] = list(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters that are read, or those that the short help shows."""
        found = without_types(super().get_params(ctx))
        for one in found:
            if one.name == "help" and self.common:
                vars(one).update(help="Show all options and exit.")
        return [one for one in found if self._is_shown(one)] if _SHORT in ctx.meta else found

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, and behind it the examples and where the other options are."""
        super().format_help(ctx, formatter)
        lines = ["Examples:", *(f"  {one}" for one in self.examples)] if self.examples else []
        if self.common:
            count = sum(
                one.param_type_name == "option"
                and not getattr(one, "hidden", False)
                and one.name not in _SWITCHES
                for one in self.params
            )
            short = _SHORT in ctx.meta
            other = f"All {count} options" if short else "The most used options"
            given = [one for one in ctx.meta[_GIVEN] if one not in ("-h", "--help")]
            line = shlex.join([*given, "--help" if short else "-h"])
            lines += ["", f"{other}: {ctx.command_path} {plain(line)}"]
        for line in lines:
            typer.echo(f" {line}".rstrip())

    def _is_shown(self, parameter: Any) -> bool:
        return parameter.param_type_name == "argument" or parameter.name in (
            *self.common,
            *_SWITCHES,
        )


def show_short_help(context: typer.Context, asked: bool) -> None:
    """Show the options that most people need, and end."""
    if asked and not context.resilient_parsing:
        context.meta[_SHORT] = True
        typer.echo(context.get_help())
        raise typer.Exit


def without_types(parameters: list[Any]) -> list[Any]:
    """Parameters of typer whose help leaves out types that say nothing.

    An argument is shown by its name, and a switch takes no value.
    """
    for one in parameters:
        if one.param_type_name == "argument" or one.name in _SWITCHES:
            vars(one).update(display_type_rich=lambda ctx: None)
    return parameters
