"""The last lines of a command: whether a prompt is better, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TypeVar

from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from demur.chat.settings import LoadSettings
from demur.cli.screen import printable
from demur.evaluation.answerers.protocol import MODEL_PROMPTS
from demur.evaluation.comparison import Comparison
from demur.evaluation.verdict import EXPORTED, OPTIMIZE, Kind, Verdict
from demur.optimization import Run
from demur.queries import own_files
from demur.records import NO_PROMPT
from demur.settings import command_line, item_of, options_of

Source = TypeVar("Source", bound=BaseModel)

_STYLES: dict[Kind, str] = {
    "better": "green",
    "mixed": "yellow",
    "no difference": "yellow",
    "unknown": "yellow",
    "worse": "red",
    "harmful": "red",
}
_BEST_FIRST: tuple[Kind, ...] = tuple(_STYLES)


def print_verdict_of_run(console: Console, run: Run) -> None:
    """Print whether the optimized prompt is better than the basic one, and the next command."""
    from demur.report.steps import own_queries_of  # slow, and not needed for a mistake

    verdict = run.verdict
    _print_sentence(console, verdict)
    if run.remark:
        console.print(Text(printable(run.remark)))
    export = ("export", [str(run.path), EXPORTED])
    _print_next(console, verdict.advice, export)
    if verdict.kind == "better" and verdict.advice:
        _print_command(console, "Or use it as it is:", export)
    own = own_queries_of(run)
    if own:
        console.print(
            "Your own queries were trained on; no figure above is about them. Measure them:"
        )
        console.print(Text(printable(own), style="bold"), soft_wrap=True)


def print_verdicts(console: Console, comparison: Comparison) -> None:
    """Print whether each prompt is better than none, and what to do next with the best.

    Where there is only one prompt, how to compare it is printed.
    """
    found = comparison.verdicts
    if not found:
        _print_second_prompt(console, comparison)
        return
    for verdict in found:
        _print_sentence(console, verdict)
    best = min(found, key=lambda one: (_BEST_FIRST.index(one.kind), -_apart(comparison, one.after)))
    command = _command(comparison, best)
    training, ending, _ = best.advice.partition(f": {OPTIMIZE}")
    if ending and command is not None:
        if _own_queries(comparison):
            training = "train a prompt for this model, on your queries and built-in ones"
        _print_command(console, f"Next: {printable(training)}:", command)
    else:
        _print_next(console, best.advice, command)


def _print_second_prompt(console: Console, comparison: Comparison) -> None:
    """Print how to compare the only prompt of an evaluation with another one."""
    from demur.report.again import evaluation_again  # slow, and not needed for a mistake

    record = comparison.settings
    if record is None or record.objects or len(record.settings.prompt) != 1:
        return
    (only,) = record.settings.prompt
    pair, what = MODEL_PROMPTS, "a prompt"
    if only != NO_PROMPT:
        pair, what = (NO_PROMPT, only), "no prompt"
    settings = record.settings.model_copy(update={"prompt": pair})
    both = replace(record, settings=settings, source=_without_dtype(record.source))
    console.print(Text(f"Next: compare it with {what}:"))
    console.print(Text(printable(evaluation_again(both).command), style="bold"), soft_wrap=True)


def _apart(comparison: Comparison, prompt: str) -> float:
    """How much more a prompt refuses of harmful queries than of harmless ones, in [-1, 1]."""
    apart = 0.0
    for label, sign in (("harmful", 1), ("harmless", -1)):
        rates = [
            one.refused.value
            for one in comparison.rates
            if (one.prompt, one.label, one.category) == (prompt, label, None)
            and one.refused is not None
        ]
        apart += sign * fmean(rates) if rates else 0.0
    return apart


def _print_sentence(console: Console, verdict: Verdict) -> None:
    text = Text(printable(verdict.sentence))
    opening = text.plain.find(": ")
    text.stylize(f"bold {_STYLES[verdict.kind]}", 0, max(0, opening + 1))
    console.print(text)


def _print_next(console: Console, advice: str, command: tuple[str, list[str]] | None) -> None:
    """Print the advice; the command where there is none, because the prompt can be used."""
    if advice or command is None:
        advice = advice or "use it as the first system message."
        console.print(Text(f"Next: {printable(advice)}"))
    else:
        _print_command(console, "Next:", command)


def _print_command(console: Console, opening: str, command: tuple[str, list[str]]) -> None:
    console.print(Text(opening))
    console.print(Text(printable(command_line(*command)), style="bold"), soft_wrap=True)


def _command(comparison: Comparison, best: Verdict) -> tuple[str, list[str]] | None:
    """What makes the prompt usable: its export, or for a text a training that starts from it."""
    record = comparison.settings
    if record is None or "prompts" in record.objects:
        return None
    named: Sequence[str] = record.settings.prompt
    names = [one.name for one in record.conditions]
    if best.after not in names or len(named) != len(names):
        return None
    place = names.index(best.after)
    if record.conditions[place].trained:
        return "export", [named[place], EXPORTED]
    if not isinstance(record.source, LoadSettings) or record.conditions[place].is_bare:
        return None
    prompt = item_of("--basic-prompt", named[place])
    own = _own_queries(comparison)
    return "optimize", [*prompt, *own, *options_of(_without_dtype(record.source))]


def _without_dtype(source: Source) -> Source:
    """The number format is on record also where the machine chose it, as it will again."""
    if not isinstance(source, LoadSettings):
        return source
    return source.model_copy(update={"dtype": LoadSettings().dtype})


def _own_queries(comparison: Comparison) -> list[str]:
    """Items by which a training also reads the user's own files; empty where there are none."""
    if comparison.settings is None:
        return []
    queries = comparison.settings.settings.queries
    items: list[str] = []
    for label, given in (("harmful", queries.harmful), ("harmless", queries.harmless)):
        own = own_files(given)
        for one in ["training", *own] if own else []:
            items += item_of(f"--{label}", one)
    return items
