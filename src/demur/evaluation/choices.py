"""What is evaluated: prompts and query sets, from what a caller names or hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.settings import BUILT_IN_SET
from demur.progress import Progress
from demur.prompts import Condition, SafetyPrompt, distinct_names, load_prompt
from demur.queries import QueryChoice, QuerySet, as_query_set, labelled, load_benchmark
from demur.records import NO_PROMPT, Label, Queries

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
        choices: for each None or `none`, a built-in name (`long`, `short`, `plain`), a text file, a
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
            raise DemurError(f"The prompt {text!r:.80} is given twice: leave one out.")
        if other is not None:
            raise DemurError(f"{other!r:.80} and {text!r:.80} are the same prompt: leave one out.")
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
) -> tuple[TestSet, ...]:
    """The query sets that a caller chose, or the built-in held-out queries where there are none.

    Args:
        benchmarks: names of public benchmarks.
        harmful: harmful queries: the name of a set as `load_query_set` takes it, a `QuerySet`, a
            list of texts, or a list of query sets, each of which has rates of its own.
        harmless: harmless queries, likewise; a set of the same name makes one set with both labels.
        benchmark_dir: folder with the files of benchmarks; nothing is downloaded then.
        progress: reports downloads.
        built_in: whether the held-out queries stand in where no set is chosen.

    Raises:
        DemurError: a set cannot be read, or is named twice.
    """
    if built_in and not benchmarks and not _several(harmful) and not _several(harmless):
        harmful = harmless = BUILT_IN_SET
    sides = [
        *(as_query_set(choice, "harmful") for choice in _several(harmful)),
        *(as_query_set(choice, "harmless") for choice in _several(harmless)),
    ]
    for benchmark in benchmarks:
        sides += load_benchmark(benchmark, benchmark_dir, progress)
    together: dict[str, list[QuerySet]] = {}
    for side in sides:
        others = together.setdefault(side.name, [])
        if any(side.label == other.label for other in others):
            raise DemurError(
                f"Two sets of {side.label} queries are called {side.name!r:.80}: leave one out."
            )
        others.append(side)
    return tuple(TestSet(name, tuple(parts)) for name, parts in together.items())


def load_sets(
    harmful: Sequence[str], harmless: Sequence[str]
) -> tuple[list[QuerySet], list[QuerySet]]:
    """Query sets by name, each on its own: the harmful ones, and the harmless ones.

    Files of one name in different folders are different sets: the second one is called
    `name (2)`.
    """
    names: dict[Path, str] = {}

    def load(spec: str, label: Label) -> QuerySet:
        found, source = as_query_set(spec, label), Path(spec).resolve()
        if source not in names:
            name, number = found.name, 2
            while name in names.values():
                name, number = f"{found.name} ({number})", number + 1
            names[source] = name
        return replace(found, name=names[source])

    return [load(spec, "harmful") for spec in harmful], [
        load(spec, "harmless") for spec in harmless
    ]


def _several(choices: QueryChoices) -> list[QueryChoice]:
    """The query sets of a choice; a list of texts is one of them."""
    if choices is None:
        return []
    if isinstance(choices, (str, QuerySet)) or not isinstance(choices, Sequence):
        return [choices]
    texts = [each for each in choices if isinstance(each, str)]
    return [texts] if len(texts) == len(choices) else list(choices)


def _text(choice: PromptChoice) -> str:
    """What a caller named a prompt by."""
    if choice is None:
        return NO_PROMPT
    return choice.name if isinstance(choice, SafetyPrompt) else str(choice)


def _prompt(choice: PromptChoice) -> SafetyPrompt | None:
    if choice is None or choice == NO_PROMPT:
        return None
    return choice if isinstance(choice, SafetyPrompt) else load_prompt(choice)
