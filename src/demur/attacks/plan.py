"""What is attacked, chosen and checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from demur.attacks.protocol import Attack
from demur.attacks.registry import NO_ATTACK, AttackChoice, choose_attacks
from demur.attacks.settings import AttackSettings
from demur.errors import DemurError
from demur.evaluation.choices import PromptChoice
from demur.evaluation.chosen import Chosen, choose
from demur.evaluation.chosen import Given as GivenToEvaluate
from demur.judges.protocol import JudgeSpec
from demur.optimization import Run
from demur.progress import Progress
from demur.prompts import BASIC_PROMPTS, Condition, SafetyPrompt
from demur.prompts.storage import JSON_FILE
from demur.queries import QueryChoice, as_query_set, join_query_sets, labelled
from demur.records import Queries, Query, identity_of, kind_of

_ASKED_TWICE = 10
"""Number of queries that an attack is given again, to see whether it makes the same of them."""


@dataclass(frozen=True)
class Given:
    """Objects that stand in for what the settings name; None leaves it to the settings.

    Attributes:
        run: finished run.
        attacks: attacks, by name or as objects.
        prompts: safety prompts.
        harmful: harmful queries.
        judge: judge of refusal.
        harm_judge: judge of harm.
    """

    run: Run | None = None
    attacks: Sequence[AttackChoice] | None = None
    prompts: Sequence[PromptChoice] | None = None
    harmful: QueryChoice | None = None
    judge: JudgeSpec | None = None
    harm_judge: JudgeSpec | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is given."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) is not None)


@dataclass(frozen=True)
class Template:
    """An attack with the queries that it makes.

    Attributes:
        name: name of the attack.
        source: where it is described.
        opening: what every answer is made to begin with, or None.
        disguises: whether the words of the queries are disguised.
        queries: the attacked queries.
    """

    name: str
    source: str
    opening: str | None
    disguises: bool
    queries: Queries


@dataclass(frozen=True)
class LeftOut:
    """An attack that was chosen and is not possible here.

    Attributes:
        attack: name of the attack.
        reason: why not, as a sentence.
    """

    attack: str
    reason: str


@dataclass(frozen=True)
class AttackPlan:
    """What is attacked, and how.

    Attributes:
        chosen: conditions, judges and sampling.
        queries: the harmful queries.
        templates: attacks that rewrite queries; the first one leaves them as they are.
        with_gcg: whether suffixes are searched as well.
        left_out: attacks that are not possible under these conditions.
        settings: the settings by name.
        run: the run that is attacked, or None.
        objects: names of the settings that were given as objects.
    """

    chosen: Chosen
    queries: Queries
    templates: tuple[Template, ...]
    with_gcg: bool
    left_out: tuple[LeftOut, ...]
    settings: AttackSettings
    run: Run | None
    objects: tuple[str, ...] = ()


def make_plan(
    settings: AttackSettings,
    default_prompts: Sequence[str],
    progress: Progress,
    given: Given | None = None,
) -> AttackPlan:
    """Read and check what the settings name, before anything slow.

    Args:
        settings: settings by name.
        default_prompts: prompts where neither a run nor any is chosen.
        progress: reports downloads.
        given: objects in place of what the settings name.

    Raises:
        DemurError: something cannot be read, or does not fit together.
    """
    given = given or Given()
    attacks, with_gcg = choose_attacks(
        settings.attack if given.attacks is None else tuple(given.attacks)
    )
    if with_gcg:
        from demur.attacks.gcg import require_nanogcg

        require_nanogcg()
    run = given.run or _run(settings.run)
    if run is not None and (settings.prompt or given.prompts is not None):
        raise DemurError("A run has its own prompts: leave out the run or --prompt.")
    limit = settings.queries.limit
    named = settings.queries.harmful if given.harmful is None else [given.harmful]
    harmful = join_query_sets([as_query_set(one, "harmful") for one in named], limit)
    queries = labelled(harmful.name, harmful)
    prompts = given.prompts if run is None else _prompts_of(run)
    chosen = choose(
        settings.as_evaluation,
        default_prompts,
        progress,
        GivenToEvaluate(
            prompts=prompts, harmful=harmful, judge=given.judge, harm_judge=given.harm_judge
        ),
    )
    templates, left_out = _templates(attacks, queries, chosen.conditions)
    return AttackPlan(
        chosen=chosen,
        queries=queries,
        templates=(Template(NO_ATTACK, "", None, False, queries), *templates),
        with_gcg=with_gcg,
        left_out=left_out,
        settings=settings,
        run=run,
        objects=given.names,
    )


def attacked(attack: Attack, queries: Queries) -> Queries:
    """Queries as an attack makes them.

    Raises:
        DemurError: the attack fails, makes one query of two, or changes from call to call.
    """
    texts: list[Query] = [attack.apply(query) for query in queries.texts]
    for query, text in zip(queries.texts[:_ASKED_TWICE], texts, strict=False):
        if identity_of(attack.apply(query)) != identity_of(text):
            raise DemurError(
                f"The attack {attack.name!r:.80} makes something else of the same query at each "
                "call, so that no work could go on: let the result depend on the query alone, "
                "for example by random.Random(str(query))."
            )
    if len({identity_of(text) for text in texts}) < len(texts):
        raise DemurError(
            f"The attack {attack.name!r:.80} makes the same conversation of two queries: let what "
            "it returns hold the query."
        )
    return Queries(attack.name, tuple(texts), queries.labels, queries.categories)


def _templates(
    attacks: Sequence[Attack], queries: Queries, conditions: Sequence[Condition]
) -> tuple[tuple[Template, ...], tuple[LeftOut, ...]]:
    """The attacks with the queries that they make, and those that the conditions do not allow.

    Raises:
        DemurError: an attack fails.
    """
    templates: list[Template] = []
    left_out: list[LeftOut] = []
    for attack in attacks:
        made = attacked(attack, queries)
        template = Template(attack.name, attack.source, attack.opening, attack.disguises, made)
        reason = _conflict(template, conditions)
        if reason is None:
            templates.append(template)
        else:
            left_out.append(LeftOut(attack.name, reason))
    return tuple(templates), tuple(left_out)


def _conflict(template: Template, conditions: Sequence[Condition]) -> str | None:
    """Why an attack is not possible under these conditions; None where it is."""
    own = any(
        not isinstance(text, str) and text.system_prompt is not None
        for text in template.queries.texts
    )
    if own and any(condition.system_prompt is not None for condition in conditions):
        return (
            "It writes the application's system text, and there is one already: give "
            "--system-prompt none."
        )
    return None


def _run(folder: str | None) -> Run | None:
    """The finished run in a folder.

    Raises:
        DemurError: the folder holds none.
    """
    if folder is None:
        return None
    if kind_of(Path(folder)) == "wording run":
        raise DemurError(
            f"{folder:.200} is the run of a wording for a model behind an endpoint: give its "
            "prompt with --prompt, and the server with --endpoint."
        )
    if _is_prompt(folder):
        raise DemurError(f"{folder:.200} is a safety prompt and not a run: give it with --prompt.")
    if not Path(folder).exists():  # a model's name, for other commands take it in this place
        raise DemurError(
            f"{folder:.200} is not the folder of a run: check the path, or give a model with "
            "--model."
        )
    return Run.load(folder)


def _is_prompt(name: str) -> bool:
    """Whether a name that was given for a run is a safety prompt as `--prompt` takes it."""
    path = Path(name)
    return name in ("none", *BASIC_PROMPTS) or path.is_file() or (path / JSON_FILE).exists()


def _prompts_of(run: Run) -> tuple[PromptChoice, ...]:
    """No prompt, the basic prompt of a run as far as it is text, and its optimized prompt."""
    basic = run.settings.basic_prompt
    first = [SafetyPrompt(basic.name, basic.text)] if basic.text and not basic.trained else []
    return (None, *first, str(run.path))
