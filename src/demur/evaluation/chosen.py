"""Everything that an evaluation needs beside an answerer, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

from demur.errors import DemurError
from demur.evaluation.choices import (
    PromptChoice,
    QueryChoices,
    TestSet,
    choose_conditions,
    choose_prompts,
    choose_sets,
    load_sets,
)
from demur.evaluation.instructions import InstructionChoice, Instructions, choose_instructions
from demur.evaluation.judging import Judges
from demur.evaluation.settings import EvaluateSettings
from demur.judges import as_harm_judge, as_refusal_judge, get_preference_judge
from demur.judges.preference import PairwiseJudge
from demur.judges.protocol import Judge, JudgeSpec
from demur.progress import Progress
from demur.prompts import Condition, check_system_texts, system_text_for

if TYPE_CHECKING:
    from demur.evaluation.protocol import Protocol

CheckChosen: TypeAlias = Callable[[Sequence[Condition], Sequence[str], Sequence[TestSet]], None]
"""A check of the conditions, their names, and the query sets; it raises a `DemurError`."""

_ENDPOINT = "endpoint:"


@dataclass(frozen=True)
class Chosen:
    """What is evaluated, and how.

    Attributes:
        conditions: conditions to compare; none for files of responses.
        names: name of each condition, no two the same.
        sets: query sets.
        instructions: ordinary instructions, or None.
        judges: judges of refusal and harm.
        preference_judge: judge of pairs of outputs, or None.
        settings: the settings by name.
        other_judges: further judges of refusal, whose agreement is counted.
        objects: names of the settings that were given as objects.
    """

    conditions: tuple[Condition, ...]
    names: tuple[str, ...]
    sets: tuple[TestSet, ...]
    instructions: Instructions | None
    judges: Judges
    preference_judge: PairwiseJudge | None
    settings: EvaluateSettings
    other_judges: tuple[Judge, ...] = ()
    objects: tuple[str, ...] = ()

    @property
    def protocol(self) -> Protocol:
        """How responses to queries are sampled."""
        settings = self.settings
        return _protocol(
            settings.sampling.samples,
            settings.most_tokens,
            settings.sampling.seed,
            whole=self.judges.harm is not None or bool(self.other_judges),
        )

    @property
    def output_protocol(self) -> Protocol:
        """How outputs for instructions are sampled: one each, whole."""
        return _protocol(1, self.settings.output_tokens, self.settings.sampling.seed, whole=True)


@dataclass(frozen=True)
class Given:
    """Objects that stand in for what the settings name; None leaves it to the settings.

    Attributes:
        prompts: safety prompts.
        harmful: harmful queries.
        harmless: harmless queries.
        judge: judge of refusal.
        other_judges: further judges of refusal.
        harm_judge: judge of harm.
        instructions: ordinary instructions.
        preference_judge: judge of pairs of outputs.
    """

    prompts: Sequence[PromptChoice] | None = None
    harmful: QueryChoices = None
    harmless: QueryChoices = None
    judge: JudgeSpec | None = None
    other_judges: tuple[JudgeSpec, ...] | None = None
    harm_judge: JudgeSpec | None = None
    instructions: InstructionChoice | None = None
    preference_judge: PairwiseJudge | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is given, as arguments of `evaluate`."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) is not None)


def named_for(
    bare_name: str, conditions: Sequence[Condition], names: Sequence[str]
) -> tuple[str, ...]:
    """The names of conditions, with an answerer's own name for that without a safety prompt.

    Args:
        bare_name: the answerer's own name.
        conditions: the conditions.
        names: name of each, no two the same.
    """
    found: list[str] = []
    for condition, given in zip(conditions, names, strict=True):
        name = bare_name if condition.safety_prompt is None else given
        wanted, number = name, 2
        others = {bare_name} if condition.safety_prompt is not None else set()
        while name in {*found, *others}:
            name, number = f"{wanted} ({number})", number + 1
        found.append(name)
    return tuple(found)


def choose(
    settings: EvaluateSettings,
    default_prompts: Sequence[str],
    progress: Progress,
    given: Given | None = None,
    check: CheckChosen | None = None,
) -> Chosen:
    """Read and check what the settings name, before anything slow.

    Args:
        settings: settings by name.
        default_prompts: prompts where none is chosen; empty for an answerer that is not asked.
        progress: reports downloads.
        given: objects in place of what the settings name.
        check: called with the conditions, their names and the query sets before any judge, which
            may be a model, is loaded.

    Raises:
        DemurError: something cannot be read, or does not fit together.
    """
    given = given or Given()
    named: Sequence[PromptChoice] = ()
    if default_prompts:
        named = settings.prompt or tuple(default_prompts)
        named = named if given.prompts is None else given.prompts
    prompts = choose_prompts(named) if default_prompts else ()
    system = system_text_for(settings.system_prompt, named if default_prompts else (), prompts)
    if system.remark:
        progress.message(system.remark)
    conditions, names = choose_conditions(prompts, system.text, named)
    _check_base_url(settings)
    compared = given.preference_judge is not None or settings.judges.preference_judge is not None
    named_instructions = settings.queries.instructions
    asked = choose_instructions(
        named_instructions if given.instructions is None else given.instructions,
        prompts,
        compared=compared,
    )
    sets = _sets(settings, given, progress, built_in=asked is None) if default_prompts else ()
    for one in sets:
        check_system_texts(conditions, one.queries.texts)
    _check_harm_judge(settings, given, sets)
    if check is not None:
        check(conditions, names, sets)
    preference = _preference_judge(settings, given)
    judges = _judges(settings, given, progress)  # last: one may be a model that is loaded
    return Chosen(
        conditions=tuple(conditions),
        names=tuple(names),
        sets=sets,
        instructions=asked,
        judges=judges,
        preference_judge=preference,
        settings=settings,
        other_judges=_other_judges(settings, given, judges.refusal, progress),
        objects=given.names,
    )


def _sets(
    settings: EvaluateSettings, given: Given, progress: Progress, *, built_in: bool
) -> tuple[TestSet, ...]:
    queries = settings.queries
    harmful, harmless = given.harmful, given.harmless
    return choose_sets(
        queries.benchmark,
        load_sets(queries.harmful, "harmful") if harmful is None else harmful,
        load_sets(queries.harmless, "harmless") if harmless is None else harmless,
        queries.benchmark_dir,
        progress,
        built_in=built_in,
        suite=queries.suite,
        turns=queries.turn,
        tools=queries.tools,
        seed=settings.sampling.seed,
    )


def _check_harm_judge(settings: EvaluateSettings, given: Given, sets: Sequence[TestSet]) -> None:
    """Check that a judge of harm has something to read: files say that only in their rows."""
    is_given = given.harm_judge is not None or settings.judges.harm_judge is not None
    if is_given and sets and all(one.label != "harmful" for each in sets for one in each.sides):
        raise DemurError(
            "A judge of harm reads answers to harmful queries, and none are chosen: give "
            "--harmful, or leave out --harm-judge."
        )


def _judges(settings: EvaluateSettings, given: Given, progress: Progress) -> Judges:
    named = settings.judges
    refusal, harm = given.judge, given.harm_judge
    if refusal is None:
        refusal = named.judge
    if harm is None:
        harm = named.harm_judge
    return Judges(
        as_refusal_judge(refusal, base_url=_url(refusal, settings), progress=progress),
        None
        if harm is None
        else as_harm_judge(harm, base_url=_url(harm, settings), progress=progress),
    )


def _other_judges(
    settings: EvaluateSettings, given: Given, first: Judge, progress: Progress
) -> tuple[Judge, ...]:
    """The further judges of refusal.

    Raises:
        DemurError: one cannot be used, or judges as another one does.
    """
    specs = settings.judges.other_judge if given.other_judges is None else given.other_judges
    found: list[Judge] = []
    for spec in specs:
        judge = as_refusal_judge(spec, base_url=_url(spec, settings), progress=progress)
        if judge.fingerprint in {one.fingerprint for one in (first, *found)}:
            raise DemurError(f"The judge {judge.name!r:.100} is given twice: leave one out.")
        found.append(judge)
    return tuple(found)


def _preference_judge(settings: EvaluateSettings, given: Given) -> PairwiseJudge | None:
    own: object = given.preference_judge
    if own is not None:
        texts = [getattr(own, name, None) for name in ("name", "fingerprint")]
        if not all(isinstance(text, str) for text in texts) or not hasattr(own, "prefer"):
            raise DemurError(
                f"{type(own).__name__!r:.60} is not a judge of pairs: give an object with the "
                "texts 'name' and 'fingerprint' and a method prefer(instructions, firsts, seconds, "
                "progress)."
            )
        return given.preference_judge
    spec = settings.judges.preference_judge
    return None if spec is None else get_preference_judge(spec, base_url=settings.judges.base_url)


def _url(judge: JudgeSpec, settings: EvaluateSettings) -> str | None:
    """The base URL, for a judge behind an endpoint."""
    is_endpoint = isinstance(judge, str) and judge.startswith(_ENDPOINT)
    return settings.judges.base_url if is_endpoint else None


def _check_base_url(settings: EvaluateSettings) -> None:
    named = settings.judges
    specs = (named.judge, *named.other_judge, named.harm_judge, named.preference_judge)
    if named.base_url is not None and not any(spec and _ENDPOINT in spec for spec in specs):
        raise DemurError("--base-url belongs to a judge endpoint:MODEL: give both or none of them.")


def _protocol(samples: int, tokens: int, seed: int, *, whole: bool) -> Protocol:
    from demur.chat.engine import SamplingSettings
    from demur.evaluation.protocol import Protocol

    return Protocol(
        sampling=SamplingSettings(samples=samples, most_tokens=tokens, seed=seed),
        tokens_harmful=tokens,
        tokens_harmless=tokens,
        kept=samples,
        cut_unfinished=False,
        whole=whole,
    )
