"""The command line: one verb a command; parses, calls one function, prints."""

from __future__ import annotations


def main() -> None:
    """Run `demur` as a program: the entry point of the command.

    From the first moment on, Ctrl-C and a request to end (SIGTERM) stop it within two seconds.
    """
    from demur.cli.interrupts import Interrupts

    with Interrupts() as interrupts:
        try:
            from demur.cli.app import main as run
            from demur.cli.plain import make_streams_plain

            make_streams_plain()
            run()
        except BaseException:
            # The interruption itself, while packages were imported, or what came of it: Python and
            # packages turn one into other errors.
            if interrupts.status is not None:
                interrupts.end()
            raise
