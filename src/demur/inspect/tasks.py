"""The task that Inspect AI knows as `demur/safeguard`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import click
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, GenerateConfig
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from demur.errors import DemurError
from demur.evaluation.choices import NONE, EvaluateSettings, TestSet, choose_prompts, choose_sets
from demur.inspect.scoring import complied_harmfully, refused
from demur.prompts import load_system_prompt
from demur.queries import QuerySet


@task
def safeguard(
    prompt: str = NONE,
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
        prompt: the safety prompt: `none`, `long`, `short`, `plain`, a text file, or a text prompt
            on the hub. A trained one is no text and reaches no model through Inspect.
        benchmark: the name of a public benchmark, see `demur benchmarks`.
        harmful: harmful queries: `held-out`, a text file, `file.csv:column`, `file.jsonl:column` or
            `hf:org/name:column`.
        harmless: harmless ones. The built-in `held-out` of both labels where no set is named.
        judge: the refusal judge, `default` or `paper`.
        harm_judge: `guard:NAME_OR_FOLDER` or `endpoint:MODEL`: which answers to harmful queries are
            unsafe.
        base_url: of the endpoint.
        samples: responses for each query.
        tokens: of a response at most; by default 64, with a harm judge 300.
        system_prompt: a text file with the application's own system text, which follows the safety
            prompt.
        benchmark_dir: a folder with the benchmarks' files; nothing is fetched then.

    Raises:
        DemurError: something the user can mend, found before the model is asked anything.
    """
    with _in_one_line():
        settings = EvaluateSettings.of(judge, samples, tokens, harm_judged=harm_judge is not None)
        name, system = _system(prompt, system_prompt)
        sets = _sets(benchmark, harmful, harmless, benchmark_dir)
        scorers = _scorers(settings.judge, harm_judge, base_url)
    sides = [_samples(test_set.name, side, name) for test_set in sets for side in test_set.sides]
    # By turns, so that the first few (`--limit`) are of both labels.
    by_turns = [sample for turn in zip_longest(*sides) for sample in turn if sample is not None]
    return Task(
        dataset=MemoryDataset(by_turns, name="-".join(test_set.name for test_set in sets)),
        solver=[system_text(system), generate()] if system is not None else [generate()],
        scorer=scorers,
        epochs=settings.samples,
        config=GenerateConfig(max_tokens=settings.tokens, temperature=1.0),
    )


@solver
def system_text(text: str) -> Solver:
    """Let `text` open the conversation, as it is: whatever stands in braces stays there."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.messages.insert(0, ChatMessageSystem(content=text))
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
    if harm_judge is not None:
        scorers.append(complied_harmfully(harm_judge, judge, base_url))
    elif base_url is not None:
        raise DemurError("base_url belongs to harm_judge=endpoint:MODEL: give both or none")
    return scorers


def _system(prompt: str, system_prompt: str | None) -> tuple[str, str | None]:
    """The safety prompt's name, and the system message, laid out as demur itself lays it out."""
    (chosen,) = choose_prompts([prompt])
    texts: list[str] = []
    if chosen is not None:
        if chosen.is_trained or chosen.text is None:
            raise DemurError(
                f"the prompt {chosen.name!r} is trained, embeddings and no text, which cannot be "
                "sent to a provider: measure it with demur evaluate, or give a prompt of text"
            )
        texts.append(chosen.text)
    if system_prompt is not None:
        texts.append(load_system_prompt(system_prompt))
    return NONE if chosen is None else chosen.name, "\n\n".join(texts) if texts else None


def _sets(
    benchmark: str | None, harmful: str | None, harmless: str | None, benchmark_dir: str | None
) -> tuple[TestSet, ...]:
    if benchmark is not None and (harmful is not None or harmless is not None):
        raise DemurError(
            "a benchmark stands alone, so that every rate is of one set: leave out harmful and "
            "harmless, or run the task once for each"
        )
    folder = None if benchmark_dir is None else Path(benchmark_dir)
    return choose_sets([benchmark] if benchmark else (), harmful, harmless, folder)


def _samples(name: str, side: QuerySet, prompt: str) -> list[Sample]:
    """The queries of one label."""
    metadata = {"set": name, "label": side.label, "prompt": prompt}
    categories = side.categories or (None,) * len(side)
    return [
        Sample(
            input=query,
            id=f"{side.label}-{number}",
            metadata={**metadata, "category": category or None},
        )
        for number, (query, category) in enumerate(zip(side, categories, strict=True), start=1)
    ]
