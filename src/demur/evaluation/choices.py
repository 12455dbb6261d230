"""What is to be evaluated: prompts, query sets and settings, from what a user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from demur.errors import DemurError
from demur.progress import Progress
from demur.prompts import SafetyPrompt, load_prompt
from demur.prompts.checks import shown
from demur.queries import QuerySet, load_benchmark, load_query_set
from demur.runs import Queries

EVALUATIONS = Path("demur-evaluations")
NONE = "none"
DEFAULT_PROMPTS = (NONE, "long")
BUILT_IN_SET = "held-out"
TOKENS_FOR_WHOLE = 300
"""Tokens of a response at most where all of it counts: for its harm, or as an output."""

PromptChoice = str | Path | SafetyPrompt | None


class EvaluateSettings(BaseModel):
    """How responses are sampled and judged. Temperature 1, top-p 0.9, top-k 50, as in the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str = Field("default", description="the refusal judge")
    samples: int = Field(1, ge=1, description="responses for each query")
    tokens: int = Field(64, ge=1, description="tokens of a response at most")
    seed: int = Field(0, ge=0, description="same seed, same responses")

    @classmethod
    def of(
        cls,
        judge: str | None = None,
        samples: int | None = None,
        tokens: int | None = None,
        seed: int | None = None,
        *,
        harm_judged: bool = False,
    ) -> EvaluateSettings:
        """Checked settings; None is the default, which for tokens is more where harm is judged.

        Raises:
            DemurError: a value is out of its range.
        """
        if tokens is None and harm_judged:
            tokens = TOKENS_FOR_WHOLE
        given = {"judge": judge, "samples": samples, "tokens": tokens, "seed": seed}
        try:
            return cls.model_validate(
                {key: value for key, value in given.items() if value is not None}
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise DemurError(
                f"--{first['loc'][0]} {first['input']}: {first['msg'].lower()}."
            ) from None

    @property
    def output_tokens(self) -> int:
        """Tokens of an output for an instruction at most: `tokens` where it was given."""
        return self.tokens if "tokens" in self.model_fields_set else TOKENS_FOR_WHOLE


@dataclass(frozen=True)
class TestSet:
    """Queries under one name.

    Attributes:
        name: of the benchmark, the built-in set or the file.
        sides: one or two sets, of different labels.
    """

    __test__ = False  # no test class, whatever pytest takes it for

    name: str
    sides: tuple[QuerySet, ...]

    @property
    def queries(self) -> Queries:
        """All of them together."""
        return Queries(
            tuple(text for side in self.sides for text in side.texts),
            tuple(side.label == "harmful" for side in self.sides for _ in side.texts),
        )

    @property
    def categories(self) -> tuple[str | None, ...]:
        """For each query its category, or None."""
        return tuple(
            category or None
            for side in self.sides
            for category in (side.categories or (None,) * len(side))
        )


def choose_prompts(choices: Sequence[PromptChoice]) -> tuple[SafetyPrompt | None, ...]:
    """The safety prompts that a user named, each once.

    Args:
        choices: for each None or `none`, a built-in name (`long`, `short`, `plain`), a text file,
            a run's folder, a folder that `SafetyPrompt.save` wrote, a `.safetensors` file as the
            paper's authors release theirs, `organisation/name` on the hub, or a `SafetyPrompt`.
            A prompt from a file, a folder or the hub is called after it.

    Raises:
        DemurError: there is none, one cannot be read, or two have the same name.
    """
    prompts = [_prompt(choice) for choice in choices]
    if not prompts:
        raise DemurError("there is no prompt to evaluate: give none, long or a file with --prompt")
    names = [NONE if prompt is None else prompt.name for prompt in prompts]
    for name in names:
        if names.count(name) > 1:
            raise DemurError(
                f"two prompts are called {shown(name)}: rename one's file or folder, "
                "or leave one out"
            )
    return tuple(prompts)


def _prompt(choice: PromptChoice) -> SafetyPrompt | None:
    if choice is None or choice == NONE:
        return None
    prompt = choice if isinstance(choice, SafetyPrompt) else load_prompt(choice)
    if prompt.name == NONE:
        raise DemurError(f"a prompt cannot be called {NONE!r}, which is no prompt: rename it")
    return prompt


def choose_sets(
    benchmarks: Sequence[str] = (),
    harmful: str | None = None,
    harmless: str | None = None,
    benchmark_dir: str | Path | None = None,
    progress: Progress | None = None,
    *,
    built_in: bool = True,
) -> tuple[TestSet, ...]:
    """The query sets that a user named, or the built-in held-out queries where none is named.

    Args:
        benchmarks: names of public benchmarks.
        harmful: a set of harmful queries, as `load_query_set` takes it.
        harmless: a set of harmless ones; one of the same name makes one set with both labels.
        benchmark_dir: a folder with the benchmarks' files; nothing is fetched then.
        progress: hears of downloads.
        built_in: whether the held-out queries stand in where no set is named.

    Raises:
        DemurError: a set cannot be had, or is named twice.
    """
    if built_in and not benchmarks and harmful is None and harmless is None:
        harmful = harmless = BUILT_IN_SET
    sides: list[QuerySet] = []
    if harmful is not None:
        sides.append(load_query_set(harmful, "harmful"))
    if harmless is not None:
        sides.append(load_query_set(harmless, "harmless"))
    for benchmark in benchmarks:
        sides += load_benchmark(benchmark, benchmark_dir, progress)
    together: dict[str, list[QuerySet]] = {}
    for side in sides:
        others = together.setdefault(side.name, [])
        if any(side.label == other.label for other in others):
            raise DemurError(
                f"two sets of {side.label} queries are called {side.name!r}: leave one out"
            )
        others.append(side)
    return tuple(TestSet(name, tuple(parts)) for name, parts in together.items())
