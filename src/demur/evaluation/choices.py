"""What is evaluated: prompts and query sets, from what a caller names or hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.settings import BUILT_IN_SET
from demur.progress import Progress
from demur.prompts import Condition, SafetyPrompt, distinct_names, load_prompt
from demur.prompts.checks import shown
from demur.queries import (
    BUILT_IN_TOOLS,
    QueryChoice,
    QuerySet,
    as_query_set,
    in_turn,
    labelled,
    load_benchmark,
    load_suite,
    name_in_turn,
    of_both_labels,
    offering,
    read_tools,
)
from demur.records import NO_PROMPT, Conversation, Label, Queries, text_of

EVALUATIONS = Path("demur-evaluations")

PromptChoice = str | Path | SafetyPrompt | None
"""None or `none`, a name as `load_prompt` takes it, or a `SafetyPrompt`."""

QueryChoices = QueryChoice | Sequence[QueryChoice] | None
"""A query set, or several of them; a list of texts is one set."""


@dataclass(frozen=True)
class TestSet:
    """Queries under one name.

    Attributes:
        name: name of the benchmark, the built-in set or the file.
        sides: one or two sets, of different labels.
    """

    __test__ = False  # pytest would take it for a class of tests

    name: str
    sides: tuple[QuerySet, ...]

    @cached_property
    def queries(self) -> Queries:
        """All of them together."""
        return labelled(self.name, *self.sides)


def choose_prompts(choices: Sequence[PromptChoice]) -> tuple[SafetyPrompt | None, ...]:
    """The safety prompts that a caller chose.

    Args:
        choices: for each None or `none`, a built-in name (of `BASIC_PROMPTS`), a text file, a
            run's folder, a folder that `SafetyPrompt.save` wrote, a `.safetensors` file as the
            paper's authors release theirs, `organisation/name` on the hub, or a `SafetyPrompt`. A
            prompt from a file, a folder or the hub is called after it.

    Raises:
        DemurError: there is none, or one cannot be read.
    """
    if not choices:
        raise DemurError("There is no prompt to evaluate: give none, long or a file with --prompt.")
    return tuple(_prompt(choice) for choice in choices)


def choose_conditions(
    prompts: Sequence[SafetyPrompt | None],
    system_prompt: str | None,
    given: Sequence[PromptChoice] = (),
) -> tuple[list[Condition], list[str]]:
    """The conditions of an evaluation, and a name for each; no two names are the same.

    Args:
        prompts: safety prompts; None for none.
        system_prompt: the application's own system text, or None.
        given: what the caller named each of them by; by default their own names.

    Raises:
        DemurError: two prompts are the same; the message says both as the caller did.
    """
    conditions = [Condition(prompt, system_prompt) for prompt in prompts]
    known: dict[str, str] = {}
    for condition, choice in zip(conditions, given or prompts, strict=True):
        text = _text(choice)
        other = known.get(condition.fingerprint)
        if other == text:
            raise DemurError(f"The prompt {shown(text)} is given twice: leave one out.")
        if other is not None:
            raise DemurError(
                f"{shown(other)} and {shown(text)} are the same prompt: leave one out."
            )
        known[condition.fingerprint] = text
    return conditions, distinct_names(conditions)


def choose_sets(
    benchmarks: Sequence[str] = (),
    harmful: QueryChoices = None,
    harmless: QueryChoices = None,
    benchmark_dir: str | Path | None = None,
    progress: Progress | None = None,
    *,
    built_in: bool = True,
    suite: str | None = None,
    turns: Sequence[int] = (1,),
    tools: str | None = None,
    seed: int = 0,
) -> tuple[TestSet, ...]:
    """The query sets that a caller chose, or the built-in held-out queries where there are none.

    Args:
        benchmarks: names of public benchmarks.
        harmful: harmful queries: the name of a set as `load_query_set` takes it, a `QuerySet`, a
            list of texts, or a list of query sets, each of which has rates of its own.
        harmless: harmless queries, likewise; those from the same source (the same file, built-in
            name or dataset; of your own queries, the same name) make one set with both labels. Of
            several sets with one name, the second one is called `name (2)`.
        benchmark_dir: folder with the files of benchmarks; nothing is downloaded then.
        progress: reports downloads.
        built_in: whether the held-out queries stand in where no set is chosen.
        suite: name of a suite, whose sets come first.
        turns: turns of the conversation that the queries are measured in, of 1 and 3. In each turn
            a set is one of its own; in the third it is called, for example, `held-out, third turn`.
        tools: JSON file with the tools that the model is offered before every query, `built-in`
            for made-up ones, or None for none.
        seed: decides what stands before the queries of the third turn, and the built-in tools.

    Raises:
        DemurError: a set cannot be read or is given twice, or there is no such turn.
    """
    nothing = suite is None and not benchmarks and not _several(harmful)
    if built_in and nothing and not _several(harmless):
        harmful = harmless = BUILT_IN_SET
    sides = [
        *(() if suite is None else load_suite(suite)),
        *(as_query_set(choice, "harmful") for choice in _several(harmful)),
        *(as_query_set(choice, "harmless") for choice in _several(harmless)),
    ]
    for benchmark in benchmarks:
        sides += load_benchmark(benchmark, benchmark_dir, progress)
    if progress is not None:
        for remark in dict.fromkeys(side.remark for side in sides if side.remark):
            progress.message(remark)
        both = of_both_labels(sides)
        if both:
            progress.message(
                f"{len(both)} {'query is' if len(both) == 1 else 'queries are'} in a harmful set "
                f"and in a harmless one, for example {text_of(both[0])!r:.80}: each counts in "
                "both. Give the queries of each label a file or a column of their own."
            )
    if tools is not None:
        listed = None if tools == BUILT_IN_TOOLS else read_tools(tools)
        sides = [offering(side, listed, seed) for side in sides]
    together: list[list[QuerySet]] = []
    for side in sides:
        _join(side, together)
    chosen: list[TestSet] = []
    for parts in together:
        for turn in turns:
            wanted = name = name_in_turn(parts[0].name, turn, tools=tools is not None)
            number = 2
            while name in {one.name for one in chosen}:
                name, number = f"{wanted} ({number})", number + 1
            chosen.append(TestSet(name, tuple(in_turn(side, turn, seed) for side in parts)))
    return tuple(chosen)


def load_sets(names: Sequence[str], label: Label) -> list[QuerySet] | None:
    """Query sets by name, each on its own; None where there is no name."""
    return [as_query_set(name, label) for name in names] or None


def _join(side: QuerySet, together: list[list[QuerySet]]) -> None:
    """Put a set beside that of the other label from the same source, or on its own.

    Raises:
        DemurError: there is one with the same queries already.
    """
    origin = side.source or side.name
    place: list[QuerySet] | None = None
    for others in together:
        for other in others:
            if other.fingerprint == side.fingerprint:
                raise DemurError(
                    f"The {side.label} queries {side.name!r:.80} are given twice: leave one out."
                    if other.name == side.name
                    else f"{other.name!r:.80} and {side.name!r:.80} are the same {side.label} "
                    "queries: leave one out."
                )
        same = (others[0].source or others[0].name) == origin
        if place is None and same and all(other.label != side.label for other in others):
            place = others
    if place is None:
        together.append([side])
    else:
        place.append(side)


def _several(choices: QueryChoices) -> list[QueryChoice]:
    """The query sets of a choice; a list of texts and conversations is one of them."""
    if choices is None:
        return []
    if isinstance(choices, (str, QuerySet)) or not isinstance(choices, Sequence):
        return [choices]
    queries = [each for each in choices if isinstance(each, (str, Conversation))]
    if len(queries) == len(choices):
        return [queries]
    sets = [each for each in choices if not isinstance(each, Conversation)]
    if len(sets) < len(choices):
        raise DemurError(
            "A list holds query sets and single conversations: put the conversations into a "
            "QuerySet."
        )
    return sets


def _text(choice: PromptChoice) -> str:
    """What a caller named a prompt by."""
    if choice is None:
        return NO_PROMPT
    return choice.name if isinstance(choice, SafetyPrompt) else str(choice)


def _prompt(choice: PromptChoice) -> SafetyPrompt | None:
    if choice is None or choice == NO_PROMPT:
        return None
    return choice if isinstance(choice, SafetyPrompt) else load_prompt(choice)
