"""The commands, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from demur.cli.attack import attack_command
from demur.cli.benchmarks import BENCHMARKS_COMMAND
from demur.cli.capability import CAPABILITY
from demur.cli.chat import CHAT
from demur.cli.command import Command, without_types
from demur.cli.compare import COMPARE
from demur.cli.diagnose import diagnose_command
from demur.cli.evaluate import evaluate_command
from demur.cli.export import EXPORT
from demur.cli.interrupts import INTERRUPTED, MESSAGE, Interrupts
from demur.cli.mistakes import PROGRAM, UsageError, explained
from demur.cli.optimize import method_in, optimize_command
from demur.cli.pull import PULL
from demur.cli.push import PUSH
from demur.cli.report import REPORT
from demur.cli.screen import errors, show_error
from demur.cli.show import SHOW
from demur.cli.study import STUDY
from demur.errors import DemurError, is_text
from demur.optimization.methods import DEFAULT

HELP = "Optimize a chat model's safety prompt; the weights never change."


def _print_version(asked: bool) -> None:
    if asked:
        from demur.records.versions import version_of

        typer.echo(f"demur {version_of('demur')}")
        raise typer.Exit


def commands(method: str = DEFAULT) -> tuple[Command[Any], ...]:
    """All commands, in the order of the help.

    Args:
        method: method whose settings are options of `optimize`: a name, or `FILE.py:CLASS`.

    Raises:
        DemurError: there is no such method.
    """
    return (
        optimize_command(method),
        evaluate_command(),
        diagnose_command(),
        attack_command(),
        CAPABILITY,
        STUDY,
        CHAT,
        EXPORT,
        REPORT,
        SHOW,
        COMPARE,
        PUSH,
        PULL,
        BENCHMARKS_COMMAND,
    )


class _Root(TyperGroup):
    """The group of all commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The switches of `demur` itself."""
        return without_types(super().get_params(ctx))


def build_app(method: str = DEFAULT) -> typer.Typer:
    """The application with all its commands.

    Args:
        method: as for `commands`.

    Raises:
        DemurError: there is no such method.
    """
    app = typer.Typer(
        cls=_Root,
        help=HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ) -> None: ...

    for command in commands(method):
        command.add_to(app)
    return app


app = build_app()


def main() -> None:
    """Run the command line in `sys.argv`, and exit with its status.

    A gate that fails ends in status 1, a mistake of the user's in one line and status 2, an
    interruption in one line and 130.
    """
    arguments = sys.argv[1:] or ["--help"]
    try:
        _require_text(arguments)
        status = _run(arguments)
    except DemurError as error:
        if Interrupts.current is None or Interrupts.current.status is None:  # else it came of that
            show_error(f"error: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader went away; what is left to flush must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        show_error(f"error: {_explained_system_error(error)}")
        sys.exit(2)
    except MemoryError:
        show_error("error: The memory is full: give smaller settings or inputs, or free some.")
        sys.exit(2)
    if status == INTERRUPTED and Interrupts.current is None:
        errors.print(f"\n{MESSAGE}")
    sys.exit(status)


def _require_text(arguments: Sequence[str]) -> None:
    """Refuse what cannot be written into settings and results, and what some packages cannot open.

    Raises:
        DemurError: an argument is such a text.
    """
    for one in arguments:
        if not is_text(one):
            raise DemurError(
                f"The argument {one!r:.300} is no UTF-8: rename that file or folder, or choose a "
                "UTF-8 locale."
            )


def _explained_system_error(error: OSError) -> str:
    """What the operating system refused; mistakes in paths end here wherever they are noticed."""
    reason = error.strerror or str(error) or type(error).__name__
    name = error.filename if error.filename is not None else error.filename2
    if name is None:
        return f"The system refused an operation ({reason}): check its limits, and run this again."
    path = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    return f"Cannot use {path!r:.300} ({reason}): give another path."


def _run(arguments: list[str]) -> int:
    """Run a command line, and return its status."""
    method = method_in(arguments)
    chosen = app if method == DEFAULT else build_app(method)
    try:
        status = chosen(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except UsageError as error:
        verbs = [str(one.name) for one in chosen.registered_commands]
        raise explained(error, arguments, verbs) from None
    return status if isinstance(status, int) else 0
