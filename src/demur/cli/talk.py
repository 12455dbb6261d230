"""A chat in the terminal. Answers are shown as text, without control characters."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demur.chat import Dialogue
from demur.cli.interrupts import own_handling
from demur.cli.plain import plain
from demur.cli.screen import errors, printable, show_error
from demur.errors import DemurError
from demur.limits import MOST_QUERY_CHARACTERS
from demur.prompts import (
    BUILT_IN_PROMPTS,
    Condition,
    SafetyPrompt,
    distinct_names,
    load_prompt,
    trained_behind,
)
from demur.records import NO_PROMPT

NARROWEST = 28
"""Columns that an answer needs to stand beside others; with fewer they stand below each other."""

_COMMANDS = (
    ("/prompt", "list the prompts; a star marks the current one"),
    (
        "/prompt NAME",
        "switch: none, run (the first trained prompt that was given), a file, a folder, org/name "
        f"on the hub, or one of {BUILT_IN_PROMPTS}",
    ),
    ("/compare", "answer the last question under each prompt, and under none"),
    ("/compare QUESTION", "the same for another question, which does not join the conversation"),
    ("/clear", "forget the conversation"),
    ("/exit", "leave, as Ctrl-D does; Ctrl-C stops an answer"),
)
HELP = "\n".join(
    textwrap.fill(about, 80, initial_indent=name.ljust(19), subsequent_indent=" " * 19)
    for name, about in _COMMANDS
)


class Talk:
    """Reads lines, answers them and obeys commands.

    Attributes:
        dialogue: the conversation.
        console: where answers are shown.
        prompts: safety prompts to switch between, by a name of their own.

    Args:
        dialogue: the conversation, under the first of the prompts.
        prompts: at least one safety prompt; None is no prompt.
        console: where answers are shown.

    Attributes:
        failed: number of lines that could not be answered or obeyed.
    """

    def __init__(
        self, dialogue: Dialogue, prompts: Sequence[SafetyPrompt | None], console: Console
    ) -> None:
        self.dialogue = dialogue
        self.console = console
        self.prompts: dict[str, SafetyPrompt | None] = {}
        self._watched = False
        self.failed = 0
        self._current = next(iter([self._know(prompt) for prompt in prompts]))
        self._asked: str | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/prompt": self._prompt,
            "/compare": self._compare,
            "/clear": self._clear,
            "/help": lambda _: self._say(HELP),
        }

    def run(self) -> None:
        """Answer until the input ends, or `/exit`."""
        watched = self._watched = sys.stdin.isatty()
        if watched:
            with suppress(ImportError):  # arrow keys and history, where the system has it
                import readline  # noqa: F401
            model, prompt = self.dialogue.model.name, self._current
            self._say(
                f"{printable(model)}, safety prompt: {printable(prompt)}. Type /help for help."
            )
        with own_handling() if watched else nullcontext():
            self._obey(_lines(watched))

    def _obey(self, lines: Iterator[str]) -> None:
        for line in lines:
            text = line.strip()
            if text in ("/exit", "/quit") or (self._watched and text in ("exit", "quit")):
                return
            if self._watched and text == "help":
                text = "/help"
            if text:
                try:
                    self._take(text)
                except DemurError as error:
                    self.failed += 1
                    show_error(str(error))

    def _take(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name in self._commands:
            self._commands[name](rest.strip())
        elif text.startswith("/") and name[1:].isalpha():
            raise DemurError(f"There is no command {name}: type /help for the commands.")
        else:
            self._answer(text)

    def _answer(self, query: str) -> None:
        self._asked = query
        pieces = self.dialogue.ask(query)
        try:
            for piece in pieces:
                self.console.out(plain(piece), end="")
                self.console.file.flush()
        except KeyboardInterrupt:
            if not self._watched:  # it ends the command, not one of many answers
                raise
            pieces.close()  # type: ignore[attr-defined]
            self.console.out(" (stopped)", end="")
        self.console.out("\n")

    def _prompt(self, name: str) -> None:
        if name:
            self._switch(self._find(name))
            return
        for known in self.prompts:
            mark = "*" if known == self._current else " "
            self._say(f"{mark} {printable(known)}")

    def _switch(self, name: str) -> None:
        system = self.dialogue.condition.system_prompt
        self.dialogue.condition = Condition(self.prompts[name], system)
        self._current = name
        self._say(f"Safety prompt: {printable(name)}, for the whole conversation.")

    def _find(self, name: str) -> str:
        """The name of a known prompt, which is loaded where it is new."""
        if name in self.prompts:
            return name
        if name == NO_PROMPT:
            return self._know(None)
        trained = [
            known for known, one in self.prompts.items() if one is not None and one.is_trained
        ]
        if name == "run":
            if not trained:
                raise DemurError(
                    "There is no run to switch to: start with `demur chat --prompt RUN`, or give "
                    "the run's folder."
                )
            return trained[0]
        prompt = load_prompt(name)
        prompt.require_width(self.dialogue.model.width)
        behind = trained_behind(name)
        if behind is not None and behind != self.dialogue.condition.system_prompt:
            self._say("It was trained behind another system text than this conversation has.")
        return self._know(prompt)

    def _know(self, prompt: SafetyPrompt | None) -> str:
        """The prompt's name here; one that is taken by another prompt gets a number."""
        known = [(name, Condition(one)) for name, one in self.prompts.items()]
        for name, condition in known:
            if condition.fingerprint == Condition(prompt).fingerprint:
                return name
        new = distinct_names([Condition(None), *(one for _, one in known), Condition(prompt)])[-1]
        self.prompts[new] = prompt
        return new

    def _compare(self, question: str) -> None:
        query, history = question or self._asked, self.dialogue.history
        if query is None:
            raise DemurError("There is nothing to compare yet: ask something first.")
        if not question and history and history[-1][0] == query:
            history = history[:-1]
        prompts = {NO_PROMPT: None, **self.prompts}
        if len(prompts) == 1:
            prompts["long"] = load_prompt("long")
        answers: dict[str, str] = {}
        try:
            for name, prompt in prompts.items():
                with errors.status(Text(f"Answering under {printable(name)}")):
                    condition = Condition(prompt, self.dialogue.condition.system_prompt)
                    one = Dialogue(self.dialogue.model, condition, self.dialogue.settings, history)
                    answers[name] = "".join(one.ask(query))
        except KeyboardInterrupt:
            if not self._watched:
                raise
            self._say("(stopped)")
        self._show(query, answers)

    def _show(self, query: str, answers: dict[str, str]) -> None:
        self.console.print(Text(printable(query), style="italic"))
        if self.console.width < NARROWEST * len(answers):
            for name, answer in answers.items():
                self.console.print(Text(f"\n{printable(name)}", style="bold"))
                self.console.print(Text(printable(answer)))
            return
        table = Table(show_edge=False, pad_edge=False, expand=True)
        for name in answers:
            table.add_column(Text(printable(name), style="bold"), ratio=1, overflow="fold")
        table.add_row(*(Text(printable(answer)) for answer in answers.values()))
        self.console.print(table)

    def _clear(self, _: str) -> None:
        self.dialogue.history.clear()
        self._asked = None
        self._say("The conversation is forgotten.")

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"), soft_wrap=True)


def _lines(watched: bool) -> Iterator[str]:
    """Lines that are typed, or come through a pipe, until the input ends."""
    if not watched:
        while line := sys.stdin.readline(MOST_QUERY_CHARACTERS + 1):
            if len(line) > MOST_QUERY_CHARACTERS:
                raise DemurError(
                    f"A line of the input has more than {MOST_QUERY_CHARACTERS} characters: give "
                    "one question a line."
                )
            yield line
        return
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
