"""The task that Inspect AI knows as `demur/safeguard`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import click
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
)
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from demur.errors import DemurError
from demur.evaluation.choices import TestSet, choose_prompts, choose_sets
from demur.evaluation.settings import EvaluateSettings
from demur.inspect.scoring import answered, complied_harmfully, refused
from demur.judges import as_refusal_judge, three_way
from demur.judges.registry import may_tell_deflections
from demur.prompts import Condition, check_system_texts, load_system_prompt
from demur.queries import QuerySet
from demur.records import NO_PROMPT, ConditionRecord, Query
from demur.settings import build


@task
def safeguard(
    prompt: str = NO_PROMPT,
    benchmark: str | None = None,
    harmful: str | None = None,
    harmless: str | None = None,
    judge: str = "default",
    harm_judge: str | None = None,
    base_url: str | None = None,
    samples: int = 1,
    tokens: int | None = None,
    system_prompt: str | None = None,
    benchmark_dir: str | None = None,
) -> Task:
    """How a model responds to harmful and harmless queries under a safety prompt.

    Scored by demur's judges. Responses are sampled at temperature 1; Inspect's own options change
    that, and how many are under way at once.

    Args:
        prompt: safety prompt: `none`, `long`, `short`, `plain`, `self-reminder`, `goal-priority`,
            `refusal-examples`, a text file, or a text prompt on the hub. A trained one is not text
            and reaches no model through Inspect.
        benchmark: name of a public benchmark, see `demur benchmarks`.
        harmful: harmful queries: `held-out`, a text file, `FILE:COLUMN` or `hf:ORG/NAME:COLUMN`.
        harmless: harmless queries, likewise. By default the built-in `held-out` of both labels,
            where no set is named.
        judge: judge of refusal: `default`, `paper`, `classifier:NAME`, `guard:NAME`,
            `endpoint:MODEL` or `FILE.py:NAME`.
        harm_judge: judge of harm, which says which answers to harmful queries are unsafe:
            `guard:NAME_OR_FOLDER`, `endpoint:MODEL` or `FILE.py:NAME`.
        base_url: address of the endpoint.
        samples: number of responses to each query, at least 1.
        tokens: largest number of tokens in a response, at least 1; by default 64, with a judge of
            harm 300.
        system_prompt: text file with the application's own system text, which follows the safety
            prompt.
        benchmark_dir: folder with the files of benchmarks; nothing is downloaded then.

    Raises:
        DemurError: something that the user can fix, found before the model is asked anything.
    """
    with _in_one_line():
        chosen = {"judge": judge, "harm_judge": harm_judge, "samples": samples, "tokens": tokens}
        settings = build(EvaluateSettings, chosen)
        condition, system = _system(prompt, system_prompt)
        sets = _sets(benchmark, harmful, harmless, benchmark_dir)
        for one in sets:
            check_system_texts([Condition(None, condition.system_prompt)], one.queries.texts)
        scorers = _scorers(judge, harm_judge, base_url)
    sides = [
        _samples(test_set.name, side, condition) for test_set in sets for side in test_set.sides
    ]
    # By turns, so that the first few (`--limit`) are of both labels.
    by_turns = [sample for turn in zip_longest(*sides) for sample in turn if sample is not None]
    return Task(
        dataset=MemoryDataset(by_turns, name="-".join(test_set.name for test_set in sets)),
        solver=[system_text(system), generate()] if system is not None else [generate()],
        scorer=scorers,
        epochs=settings.sampling.samples,
        config=GenerateConfig(max_tokens=settings.most_tokens, temperature=1.0),
    )


@solver
def system_text(text: str) -> Solver:
    """Open the conversation with `text` as it is: nothing in braces is replaced.

    The system message of a query's own application follows it in the same message.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        texts = [text]
        if state.messages and state.messages[0].role == "system":
            texts.append(state.messages.pop(0).text)
        state.messages.insert(0, ChatMessageSystem(content="\n\n".join(texts)))
        return state

    return solve


class TaskError(DemurError, click.ClickException):
    """A mistake in the task's arguments.

    Inspect's command line is a Click application, which prints a `ClickException` as one line
    without a traceback.
    """


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except DemurError as error:
        raise TaskError(str(error)) from error


def _scorers(judge: str, harm_judge: str | None, base_url: str | None) -> list[Scorer]:
    scorers = [refused(judge)]
    if may_tell_deflections(judge) and three_way(as_refusal_judge(judge)) is not None:
        scorers.append(answered(judge))
    if harm_judge is not None:
        scorers.append(complied_harmfully(harm_judge, judge, base_url))
    elif base_url is not None:
        raise DemurError("A base_url belongs to harm_judge=endpoint:MODEL: give both or none.")
    return scorers


def _system(prompt: str, system_prompt: str | None) -> tuple[ConditionRecord, str | None]:
    """The condition, and the system message, laid out as demur itself lays it out."""
    (chosen,) = choose_prompts([prompt])
    texts: list[str] = []
    if chosen is not None:
        if chosen.is_trained or chosen.text is None:
            raise DemurError(
                f"The prompt {chosen.name!r:.80} is trained, embeddings and no text, which cannot "
                "be sent to a provider: measure it with demur evaluate, or give a prompt of text."
            )
        texts.append(chosen.text)
    own = None if system_prompt is None else load_system_prompt(system_prompt)
    if own is not None:
        texts.append(own)
    return Condition(chosen, own).record(), "\n\n".join(texts) if texts else None


def _sets(
    benchmark: str | None, harmful: str | None, harmless: str | None, benchmark_dir: str | None
) -> tuple[TestSet, ...]:
    if benchmark is not None and (harmful is not None or harmless is not None):
        raise DemurError(
            "A benchmark stands alone, so that every rate is of one set: leave out harmful and "
            "harmless, or run the task once for each."
        )
    folder = None if benchmark_dir is None else Path(benchmark_dir)
    return choose_sets([benchmark] if benchmark else (), harmful, harmless, folder)


def _samples(name: str, side: QuerySet, condition: ConditionRecord) -> list[Sample]:
    """The queries of one label."""
    metadata = {
        "set": name,
        "label": side.label,
        "prompt": condition.name,
        "condition": condition.fingerprint,
    }
    categories = side.categories or (None,) * len(side)
    return [
        Sample(
            input=_input(query),
            id=f"{side.label}-{number}",
            metadata={**metadata, "category": category or None},
        )
        for number, (query, category) in enumerate(zip(side, categories, strict=True), start=1)
    ]


def _input(query: Query) -> str | list[ChatMessage]:
    """A query as Inspect takes it: its text, or the messages of its conversation."""
    if isinstance(query, str):
        return query
    own = query.system_prompt
    return [
        *([] if own is None else [ChatMessageSystem(content=own)]),
        *(
            ChatMessageUser(content=text) if role == "user" else ChatMessageAssistant(content=text)
            for role, text in query.messages
        ),
    ]
