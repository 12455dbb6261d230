"""Command lines that cannot be understood, in the one line that all mistakes have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import typer

from demur.cli.summaries import OPTIMIZE
from demur.cli.usage import PROGRAM
from demur.errors import DemurError, first_line

# Typer brings its own click in some versions and imports it in others, so that only the class that
# it exports itself can be named.
UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"
)
"""What typer raises where it does not understand a command line."""

_QUERY_FILES = (
    "give --harmful FILE for the queries that the model must refuse and --harmless FILE for those "
    "that it must answer"
)
_OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "harmful": (
        *("data", "dataset", "datasets", "data-file", "file", "files", "input", "inputs"),
        *("input-file", "queries", "query", "query-file", "questions", "question"),
    ),
    "output": ("o", "out", "out-dir", "output-dir", "output-folder", "dir", "folder", "save"),
    "tokens": ("max-tokens", "max-new-tokens", "max-length", "num-predict"),
    "samples": ("num-samples", "num-return-sequences"),
    "preset": ("quick", "fast", "standard", "thorough", "paper"),
    "learning-rate": ("lr",),
    "epochs": ("iterations", "num-epochs", "num-train-epochs", "steps"),
    "batch": ("bs", "batch-size", "per-device-train-batch-size"),
    "basic-prompt": ("prompt", "prompts", "safety-prompt", "text"),
    "prompt": ("basic-prompt", "prompts", "safety-prompt", "text"),
    "system-prompt": ("system", "sys", "system-message"),
    "device": ("gpu", "gpus", "cpu", "cuda"),
    "dtype": ("precision", "bf16", "fp16", "half", "torch-dtype"),
    "quantization": ("4bit", "8bit", "load-in-4bit", "load-in-8bit", "quantize"),
    "endpoint": ("api", "api-base", "url", "server"),
    "seed": ("random-state", "random-seed"),
}
"""Options, and the words that people try for them who know other tools."""

_NEAR = 0.75
"""How alike two names must be, of 1, for one to stand for a slip in the other."""


def explained(error: Exception, arguments: Sequence[str], verbs: Sequence[str]) -> DemurError:
    """The error for users.

    Args:
        error: a `UsageError`.
        arguments: the command line, without the name of the program.
        verbs: names of the commands.
    """
    context: Any = getattr(error, "ctx", None)
    verb = next(iter(arguments), "")
    command = f"{PROGRAM} {verb}" if verb in verbs else PROGRAM
    see = f"run '{command} --help' to see what there is"
    if verb not in verbs and not verb.startswith("-"):
        return DemurError(f"There is no command {verb!r:.60}: {_write(verb, verbs) or see}.")
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and isinstance(option, str):
        known = [] if context is None else _options(context.command)
        methods = _methods_with(option) if verb == OPTIMIZE else ()
        if methods:
            return DemurError(
                f"{command} has {option!r} only with --method {' or '.join(methods)}: give the "
                "method as well."
            )
        argument = None if context is None else _argument(context.command, option)
        fix = argument or _meant(option, known) or _write(option, known) or see
        return DemurError(f"{command} has no option {option!r:.60}: {fix}.")
    told = first_line(Exception(getattr(error, "message", "") or str(error)))
    if isinstance(option, str) and told == f"Option {option!r} requires an argument":
        told = f"{option} needs a value behind it"
    return DemurError(f"{told[:1].upper()}{told[1:]}: {see}.")


def _methods_with(option: str) -> tuple[str, ...]:
    from demur.cli.optimize import methods_with

    return methods_with(option)


def _write(given: str, known: Sequence[str]) -> str | None:
    near = get_close_matches(given, known, 1, _NEAR)
    return f"write {near[0]}" if near else None


def _meant(option: str, known: Sequence[str]) -> str | None:
    """What to write instead of a word that other tools use for one of the command's options."""
    word = option.lstrip("-").replace("_", "-").lower()
    for name, words in _OTHER_WORDS.items():
        if word in words and f"--{name}" in known:
            if name == "harmful" and "--harmless" in known:
                return _QUERY_FILES
            value = f" {word}" if name == "preset" and word != "fast" else ""
            return f"write --{name}{value}"
    return None


def _argument(command: Any, option: str) -> str | None:
    """What to write instead of an option that the command takes without its name."""
    name = option.lstrip("-").replace("-", "_").lower()
    of_arguments = {one.name for one in command.params if one.param_type_name == "argument"}
    return f"write {name.upper()} without {option}" if name in of_arguments else None


def _options(command: Any) -> list[str]:
    names = [name for one in command.params for name in (*one.opts, *one.secondary_opts)]
    return [name for name in names if name.startswith("-")]
