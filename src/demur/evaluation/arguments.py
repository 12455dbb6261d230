"""The arguments of `evaluate` as settings by name, and as the objects that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from demur.arguments import require_common, require_path, require_several
from demur.evaluation.choices import PromptChoice, QueryChoices
from demur.evaluation.chosen import Given
from demur.evaluation.instructions import InstructionChoice
from demur.evaluation.settings import EvaluateSettings
from demur.judges.preference import PairwiseJudge
from demur.judges.protocol import JudgeSpec
from demur.prompts import SafetyPrompt
from demur.queries import QuerySet
from demur.queries.choosing import OWN_NAME
from demur.records import NO_PROMPT
from demur.settings import build


@dataclass(frozen=True)
class Arguments:
    """The arguments of `evaluate` that say what is measured and how; None for the default."""

    prompts: Sequence[PromptChoice] | None
    suite: str | None
    benchmarks: Sequence[str]
    harmful: QueryChoices
    harmless: QueryChoices
    turns: Sequence[int] | None
    tools: str | Path | None
    system_prompt: str | Path | None
    judge: JudgeSpec | None
    other_judges: Sequence[JudgeSpec]
    harm_judge: JudgeSpec | None
    instructions: InstructionChoice | None
    preference_judge: PairwiseJudge | str | None
    base_url: str | None
    samples: int | None
    tokens: int | None
    seed: int | None
    benchmark_dir: str | Path | None

    @property
    def sampled(self) -> dict[str, object]:
        """What only an answerer that is asked can take, by the argument's name."""
        judging = ("judge", "other_judges", "harm_judge", "base_url")
        given = {name: value for name, value in vars(self).items() if name not in judging}
        return {
            name: value
            for name, value in given.items()
            if value is not None and not (name == "benchmarks" and not value)
        }

    def check(self) -> None:
        """Check the types of those that are lists, paths or texts.

        Raises:
            DemurError: one has another type.
        """
        require_several("prompts", self.prompts, "prompts, such as ['none', 'long']")
        require_several("benchmarks", self.benchmarks, "names of benchmarks")
        require_several("other_judges", self.other_judges, "judges, such as ['paper']")
        require_several("turns", self.turns, "turns, such as [1, 3]")
        require_path("tools", self.tools, "a JSON file with tools, or built-in")
        require_common(system_prompt=self.system_prompt)
        require_path("benchmark_dir", self.benchmark_dir, "a folder of benchmarks")

    def settings(self) -> EvaluateSettings:
        """The settings by name; what is an object is described by its name.

        Raises:
            DemurError: a value is of the wrong type or out of its range.
        """
        values: dict[str, object] = {
            "prompt": _prompt_names(self.prompts),
            "suite": self.suite,
            "benchmark": tuple(self.benchmarks),
            "harmful": _set_names(self.harmful),
            "harmless": _set_names(self.harmless),
            "turn": None if self.turns is None else tuple(self.turns),
            "tools": _text(self.tools),
            "system_prompt": _text(self.system_prompt),
            "judge": _name(self.judge),
            "other_judge": tuple(_name(one) or "" for one in self.other_judges),
            "harm_judge": _name(self.harm_judge),
            "preference_judge": _name(self.preference_judge),
            "instructions": ", ".join(_set_names(self.instructions)) or None,
            "base_url": self.base_url,
            "samples": self.samples,
            "tokens": self.tokens,
            "seed": self.seed,
            "benchmark_dir": _text(self.benchmark_dir),
        }
        known = {name: value for name, value in values.items() if value is not None}
        return build(EvaluateSettings, known)

    def given(self) -> Given:
        """The objects."""
        preference = self.preference_judge
        return Given(
            prompts=None if _are_names(self.prompts) else self.prompts,
            harmful=_unnamed(self.harmful),
            harmless=_unnamed(self.harmless),
            judge=None if isinstance(self.judge, str) else self.judge,
            other_judges=None
            if all(isinstance(one, str) for one in self.other_judges)
            else tuple(self.other_judges),
            harm_judge=None if isinstance(self.harm_judge, str) else self.harm_judge,
            instructions=None
            if isinstance(self.instructions, (str, PathLike))
            else self.instructions,
            preference_judge=None if isinstance(preference, str) else preference,
        )


def _are_names(prompts: Sequence[PromptChoice] | None) -> bool:
    """Whether a command can name the prompts; no prompt at all is a mistake to be found."""
    if prompts is None:
        return True
    return bool(prompts) and not any(isinstance(each, SafetyPrompt) for each in prompts)


def _prompt_names(prompts: Sequence[PromptChoice] | None) -> tuple[str, ...]:
    return tuple(
        each.name if isinstance(each, SafetyPrompt) else NO_PROMPT if each is None else str(each)
        for each in prompts or ()
    )


def _unnamed(choices: QueryChoices) -> QueryChoices:
    return None if isinstance(choices, (str, PathLike)) else choices


def _set_names(choices: QueryChoices) -> tuple[str, ...]:
    if choices is None:
        return ()
    if isinstance(choices, (str, PathLike)):
        return (fspath(choices),)
    given = choices if isinstance(choices, Sequence) else [choices]
    sets = [each for each in given if isinstance(each, QuerySet)]
    return tuple(each.name for each in sets) or (OWN_NAME,)


def _name(judge: object) -> str | None:
    if judge is None or isinstance(judge, str):
        return judge
    name = getattr(judge, "name", None) or getattr(judge, "__name__", None)
    return name if isinstance(name, str) else type(judge).__name__


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
