"""The command line: one verb a command; parses, calls one function, prints."""

from demur.cli.app import main

__all__ = ["main"]
