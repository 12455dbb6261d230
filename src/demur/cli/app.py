"""The commands, and how they end."""

from __future__ import annotations

import os
import sys

import typer

from demur.cli.benchmarks import benchmarks_command
from demur.cli.chat import chat_command
from demur.cli.diagnose import diagnose_command
from demur.cli.evaluate import evaluate_command
from demur.cli.export import export_command
from demur.cli.optimize import optimize_command
from demur.cli.pull import pull_command
from demur.cli.push import push_command
from demur.cli.report import report_command
from demur.cli.screen import errors
from demur.cli.show import show_command
from demur.errors import DemurError

INTERRUPTED = 130

app = typer.Typer(
    help="Optimize a chat model's safety prompt; the weights never change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"demur {version('demur')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Optimize a chat model's safety prompt; the weights never change."""


app.command("optimize")(optimize_command)
app.command("evaluate")(evaluate_command)
app.command("diagnose")(diagnose_command)
app.command("chat")(chat_command)
app.command("export")(export_command)
app.command("report")(report_command)
app.command("show")(show_command)
app.command("push")(push_command)
app.command("pull")(pull_command)
app.command("benchmarks")(benchmarks_command)


def main() -> None:
    """Run `demur`; a mistake of the user's ends in one line and status 2."""
    try:
        app()
    except DemurError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        errors.print("\nInterrupted: run the same command again to go on.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader went away; what is left to flush must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str) -> None:
    line = " ".join(message.split())
    errors.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
