"""`attack`: attacks against safety prompts in one call."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from demur.arguments import require_common, require_kind, require_several
from demur.attacks.plan import Given, make_plan
from demur.attacks.registry import AttackChoice
from demur.attacks.results import Robustness
from demur.attacks.settings import AttackSettings
from demur.attacks.work import carry_out
from demur.bars import default_progress
from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answerer
from demur.evaluation.choices import PromptChoice
from demur.evaluation.evaluate import as_answerer
from demur.judges.protocol import JudgeSpec
from demur.optimization import Run
from demur.progress import Progress
from demur.prompts import SafetyPrompt
from demur.queries import QueryChoice
from demur.records import NO_PROMPT
from demur.settings import build

if TYPE_CHECKING:
    from demur.chat import ChatModel


def attack(
    answerer: ChatModel | Answerer,
    *,
    run: str | Path | Run | None = None,
    attacks: Sequence[AttackChoice] | None = None,
    prompts: Sequence[PromptChoice] | None = None,
    harmful: QueryChoice | None = None,
    system_prompt: str | Path | None = None,
    judge: JudgeSpec | None = None,
    harm_judge: JudgeSpec | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
    **settings: object,
) -> Robustness:
    """Measure how often attacked harmful queries are answered, under several prompts.

    Every attack is a set of rewritten queries; short responses are sampled and judged as `evaluate`
    does, and judges read the original queries. Every judged response is stored at once: the same
    call goes on where an earlier one stopped.

    Args:
        answerer: a `ChatModel`, or a `Server`, on which attacks are left out that only whoever
            controls the decoding can make.
        run: finished run, or its folder: no prompt, its basic and its optimized prompt are
            attacked.
        attacks: for each the name of a template, `gcg`, `file.py:Class`, or an object with a method
            `apply(query)`. By default all templates.
        prompts: prompts in place of a run, as for `evaluate`. By default none and `long`.
        harmful: harmful queries: name of a set, `QuerySet` or list of texts. By default `test`.
        system_prompt: text file with the application's own system text, or `none`.
        judge: judge of refusal as `as_refusal_judge` takes it; by default `default`.
        harm_judge: judge of harm as `as_harm_judge` takes it, which says which answers are unsafe.
        output: folder of the results; by default one below `demur-attacks`.
        progress: reports progress; by default nothing is reported.
        **settings: other settings by name, for example `limit=20`, `tokens=64` or `gcg_steps=100`;
            see `AttackSettings`.

    Returns:
        Success rates with their intervals; `str()` gives the table.

    Raises:
        DemurError: something that the user can fix; what was measured before is kept.

    Example:
        >>> print(attack(ChatModel.load(), prompts=["none", "long"], limit=20))  # doctest: +SKIP
    """
    require_common(output, progress, system_prompt=system_prompt)
    require_several("prompts", prompts, "prompts, such as ['none', 'long']")
    require_several("attacks", attacks, "attacks, such as ['prefill', 'base64']")
    require_kind("run", run, (str, Path, Run, type(None)), "a finished run or its folder")
    answers = as_answerer(answerer)
    if not answers.takes_queries:
        raise DemurError("Responses that exist already cannot be attacked: give a ChatModel.")
    progress = progress or default_progress()
    values: dict[str, object] = {
        "run": None if run is None else str(run.path if isinstance(run, Run) else run),
        "attack": tuple(map(_name_of, attacks or ())),
        "prompt": tuple(map(_name_of, prompts or ())),
        "harmful": None if harmful is None else (_name_of(harmful),),
        "system_prompt": None if system_prompt is None else str(system_prompt),
        "judge": None if judge is None else _name_of(judge),
        "harm_judge": None if harm_judge is None else _name_of(harm_judge),
        **settings,
    }
    known = {name: value for name, value in values.items() if value not in (None, ())}
    if "run" in known:  # its prompts are those of the run
        known.pop("prompt", None)
    plan = make_plan(
        build(AttackSettings, known),
        answers.default_prompts,
        progress,
        Given(
            run=run if isinstance(run, Run) else None,
            attacks=None if _are_texts(attacks) else attacks,
            prompts=None if _are_texts(prompts) else prompts,
            harmful=None if isinstance(harmful, (str, PathLike)) else harmful,
            judge=None if isinstance(judge, str) else judge,
            harm_judge=None if isinstance(harm_judge, str) else harm_judge,
        ),
    )
    return carry_out(plan, answers, output, progress)


def _are_texts(choices: Sequence[object] | None) -> bool:
    """Whether a command can name them all."""
    return choices is None or all(isinstance(one, (str, PathLike)) for one in choices)


def _name_of(choice: object) -> str:
    """What describes a choice in the settings."""
    if choice is None:
        return NO_PROMPT
    if isinstance(choice, (str, PathLike)):
        return str(choice)
    if isinstance(choice, SafetyPrompt):
        return choice.name
    name = getattr(choice, "name", None) or getattr(choice, "__name__", None)
    return name if isinstance(name, str) else type(choice).__name__
