"""What commands there are. A command's module is imported when the command is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from demur.cli.summaries import OPTIMIZE

if TYPE_CHECKING:
    from demur.cli.command import Command

MEASURE, USE, LOOK = "Make and measure", "Use a prompt", "Look at results, and fetch files"


@dataclass(frozen=True)
class Verb:
    """A command by its name.

    Attributes:
        name: the verb.
        group: title under which the help lists it.
        module: module of the command, below `demur.cli`.
        command: name there of the command, or of a function that returns it.
        aliases: other words for it that people try.
    """

    name: str
    group: str
    module: str
    command: str
    aliases: tuple[str, ...] = ()

    def load(self, *settings: str) -> Command[Any]:
        """The command itself.

        Args:
            settings: what its function takes: of `optimize` the name of the method.

        Raises:
            DemurError: there is no such method.
        """
        found = getattr(import_module(f"demur.cli.{self.module}"), self.command)
        command: Command[Any] = found(*settings) if callable(found) else found
        return command


VERBS = (
    Verb(OPTIMIZE, MEASURE, "optimize", "optimize_command", ("train", "tune", "run", "optimise")),
    Verb("evaluate", MEASURE, "evaluate", "evaluate_command", ("eval", "measure", "test", "judge")),
    Verb("diagnose", MEASURE, "diagnose", "diagnose_command", ("diagnosis", "analyze", "analyse")),
    Verb("attack", MEASURE, "attack", "attack_command", ("redteam", "red-team", "jailbreak")),
    Verb("capability", MEASURE, "capability", "CAPABILITY", ("capabilities", "lm-eval")),
    Verb("compare", MEASURE, "compare", "COMPARE", ("diff",)),
    Verb("study", MEASURE, "study", "STUDY", ("sweep", "grid")),
    Verb("init", MEASURE, "init", "INIT", ("new", "start", "setup")),
    Verb("chat", USE, "chat", "CHAT", ("talk",)),
    Verb("export", USE, "export", "EXPORT", ("convert", "save")),
    Verb("serve", USE, "serve", "SERVE", ("proxy", "server")),
    Verb("push", USE, "push", "PUSH", ("upload", "publish", "share")),
    Verb("show", LOOK, "show", "SHOW", ("list", "ls", "print", "results")),
    Verb("report", LOOK, "report", "REPORT", ("html",)),
    Verb("pull", LOOK, "pull", "PULL", ("download", "fetch")),
    Verb("benchmarks", LOOK, "benchmarks", "BENCHMARKS_COMMAND", ("benchmark", "datasets")),
)
"""All commands, in the order of the help."""


def verb_of(word: str) -> str:
    """The name of the command that a word stands for; the word itself where there is none."""
    return next((verb.name for verb in VERBS if word in verb.aliases), word)
