"""The commands, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from demur import processes
from demur.cli.interrupts import INTERRUPTED, MESSAGE, Interrupts
from demur.cli.screen import errors
from demur.cli.summaries import OPTIMIZE, SUMMARIES
from demur.cli.together import quiet_others, require_together, show_failure
from demur.cli.usage import PROGRAM, without_types
from demur.cli.verbs import VERBS, Verb, verb_of
from demur.errors import DemurError, is_text

if TYPE_CHECKING:
    from demur.cli.command import Command

COMPLETION = f"_{PROGRAM.upper()}_COMPLETE"
HELP = "Optimize a chat model's safety prompt; the weights never change."
START = (
    "To begin: `demur evaluate` measures the default model, and `demur optimize` trains a prompt "
    "for it."
)


def _print_version(asked: bool) -> None:
    if asked:
        from demur.records.versions import version_of

        typer.echo(f"demur {version_of('demur')}")
        raise typer.Exit


class _Root(TyperGroup):
    """The group of all commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The switches of `demur` itself."""
        return without_types(super().get_params(ctx))


def commands() -> tuple[Command[Any], ...]:
    """All commands, in the order of the help; `optimize` with the options of its default method."""
    return tuple(verb.load() for verb in VERBS)


def build_app(*whole: str, method: str | None = None) -> typer.Typer:
    """The application with all its commands.

    Args:
        whole: names of the commands that are asked for. Of the others only the names and what the
            list of commands says are there, because their modules take time to import. All where
            none is named.
        method: method whose settings are options of `optimize`: a name, or `FILE.py:CLASS`. None
            means the default one.

    Raises:
        DemurError: there is no such method.
    """
    app = typer.Typer(
        cls=_Root,
        help=HELP,
        epilog=START,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"], "color": False},
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ) -> None: ...

    for verb in VERBS:
        if whole and verb.name not in whole:
            _list(app, verb)
            continue
        settings = [method] if method is not None and verb.name == OPTIMIZE else []
        verb.load(*settings).add_to(app, verb.group)
    return app


def _list(app: typer.Typer, verb: Verb) -> None:
    """Make a command a line in the list of commands, and no more."""

    @app.command(verb.name, help=SUMMARIES[verb.name], rich_help_panel=verb.group)
    def _() -> None: ...


def main() -> None:
    """Run the command line in `sys.argv`, and exit with its status.

    A gate that fails ends in status 1, a mistake of the user's in one line and status 2, an
    interruption in one line and 130.
    """
    arguments = sys.argv[1:] or ["--help"]
    try:
        quiet_others()
        _require_text(arguments)
        status = _run(arguments)
    except DemurError as error:
        if Interrupts.current is None or Interrupts.current.status is None:  # else it came of that
            show_failure(f"error: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader went away; what is left to flush must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        show_failure(f"error: {_explained_system_error(error)}")
        sys.exit(2)
    except MemoryError:
        show_failure("error: The memory is full: give smaller settings or inputs, or free some.")
        sys.exit(2)
    except RuntimeError as error:
        if not processes.is_lost(error):
            raise
        show_failure("error: Another process of this command has ended: see what it said.")
        sys.exit(2)
    processes.leave()
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
    if arguments[0] == "help":
        arguments = [*arguments[1:], "-h"]
    elif arguments == ["version"]:
        arguments = ["--version"]
    verb = verb_of(arguments[0])
    require_together(verb)
    if verb != arguments[0]:
        errors.print(f"`demur {arguments[0]}` is `demur {verb}`.", highlight=False)
    arguments = [verb, *arguments[1:]]
    method = None
    if verb == OPTIMIZE:
        from demur.cli.optimize import method_in

        method = method_in(arguments)
    completes = COMPLETION in os.environ  # a shell asks what can follow, and runs `demur` alone
    app = build_app(*([] if completes else [verb]), method=method)
    try:
        status = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except Exception as error:
        from demur.cli.mistakes import UsageError, explained

        if not isinstance(error, UsageError):
            raise
        raise explained(error, arguments, [one.name for one in VERBS]) from None
    return status if isinstance(status, int) else 0
