"""A chat in the terminal. What the model says is shown without control characters, as text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from demur.chat import Condition, Dialogue
from demur.cli.screen import errors, printable, without_controls
from demur.errors import DemurError
from demur.prompts import SafetyPrompt, load_prompt

NONE = "none"
NARROWEST = 28
"""Columns that an answer needs to stand beside others; with less they stand below each other."""

HELP = """\
/prompt            the prompts there are, and which is in force
/prompt NAME       switch: none, long, short, plain, run, a file, a folder, or org/name on the hub
/compare           answer the last question once under each prompt, side by side
/compare QUESTION  the same for another question; it does not become part of the conversation
/clear             forget the conversation
/exit              leave, as Ctrl-D does; Ctrl-C stops an answer"""


class Talk:
    """Reads lines, answers them, obeys commands.

    Args:
        dialogue: answers.
        prompts: that were named when it began; the first is in force.
        console: shows the answers.
    """

    def __init__(
        self, dialogue: Dialogue, prompts: Sequence[SafetyPrompt | None], console: Console
    ) -> None:
        self.dialogue = dialogue
        self.console = console
        self.prompts: dict[str, SafetyPrompt | None] = {}
        for prompt in prompts:
            self._know(prompt)
        self._asked: str | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/prompt": self._prompt,
            "/compare": self._compare,
            "/clear": self._clear,
            "/help": lambda _: self._say(HELP),
        }

    def run(self) -> None:
        """Until there is nothing more to read, or `/exit`."""
        watched = sys.stdin.isatty()
        if watched:
            with suppress(ImportError):  # arrow keys and history, where the system has it
                import readline  # noqa: F401
            self._say(f"{self.dialogue.model.name}, safety prompt: {self._in_force}. /help helps.")
        for line in _lines(watched):
            text = line.strip()
            if text in ("/exit", "/quit"):
                return
            if text:
                try:
                    self._take(text)
                except DemurError as error:
                    errors.print(f"[red]{escape(' '.join(str(error).split()))}[/]", soft_wrap=True)

    @property
    def _in_force(self) -> str:
        return printable(self.dialogue.condition.name)

    def _take(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name in self._commands:
            self._commands[name](rest.strip())
        elif text.startswith("/") and name[1:].isalpha():
            raise DemurError(f"There is no command {name}: /help shows them.")
        else:
            self._answer(text)

    def _answer(self, query: str) -> None:
        self._asked = query
        pieces = self.dialogue.ask(query)
        try:
            for piece in pieces:
                self.console.out(without_controls(piece), end="", highlight=False)
                self.console.file.flush()
        except KeyboardInterrupt:
            pieces.close()  # type: ignore[attr-defined]
            self.console.out(" (stopped)", end="")
        self.console.out("\n")

    def _prompt(self, name: str) -> None:
        if name:
            prompt = self._find(name)
            system = self.dialogue.condition.system_prompt
            self.dialogue.condition = Condition(prompt, system)
            self._know(prompt)
            self._say(f"Safety prompt: {self._in_force}, for the whole conversation.")
            return
        for known in self.prompts:
            mark = "*" if known == self.dialogue.condition.name else " "
            self._say(f"{mark} {printable(known)}")

    def _find(self, name: str) -> SafetyPrompt | None:
        if name in self.prompts:
            return self.prompts[name]
        if name == NONE:
            return None
        trained = [one for one in self.prompts.values() if one is not None and one.is_trained]
        if name == "run":
            if not trained:
                raise DemurError(
                    "No run was given: begin with `demur chat --prompt RUN`, or name its folder."
                )
            return trained[0]
        return load_prompt(name)

    def _know(self, prompt: SafetyPrompt | None) -> None:
        self.prompts[NONE if prompt is None else prompt.name] = prompt

    def _compare(self, question: str) -> None:
        query, history = question or self._asked, self.dialogue.history
        if query is None:
            raise DemurError("There is nothing to compare yet: ask something first.")
        if not question and history and history[-1][0] == query:
            history = history[:-1]
        prompts = {NONE: None, **self.prompts}
        if len(prompts) == 1:
            prompts["long"] = load_prompt("long")
        answers: dict[str, str] = {}
        try:
            for name, prompt in prompts.items():
                with errors.status(f"answering under {escape(printable(name))}"):
                    condition = Condition(prompt, self.dialogue.condition.system_prompt)
                    one = Dialogue(self.dialogue.model, condition, self.dialogue.settings, history)
                    answers[name] = "".join(one.ask(query))
        except KeyboardInterrupt:
            self._say("(stopped)")
        self._show(query, answers)

    def _show(self, query: str, answers: dict[str, str]) -> None:
        self.console.print(Text(printable(query), style="italic"))
        beside = self.console.width >= NARROWEST * len(answers)
        table = Table(show_edge=False, pad_edge=False, expand=True, show_lines=not beside)
        if beside:
            for name in answers:
                table.add_column(Text(printable(name), style="bold"), ratio=1, overflow="fold")
            table.add_row(*(Text(printable(answer)) for answer in answers.values()))
        else:
            table.show_header = False
            table.add_column(overflow="fold")
            table.add_column(overflow="fold")
            for name, answer in answers.items():
                table.add_row(Text(printable(name), style="bold"), Text(printable(answer)))
        self.console.print(table)

    def _clear(self, _: str) -> None:
        self.dialogue.history.clear()
        self._asked = None
        self._say("The conversation begins anew.")

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"), soft_wrap=True)


def _lines(watched: bool) -> Iterator[str]:
    """What is typed, or comes through a pipe, until it ends."""
    if not watched:
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
