"""What is to be optimized and how: everything that a caller chose, read and checked.

All of it happens before a model is loaded, so that mistakes are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from demur.arguments import described, require_common
from demur.chat.settings import WorkLoadSettings
from demur.errors import DemurError
from demur.evaluation.record import JudgeRecord
from demur.judges import Judge, JudgeSpec, as_refusal_judge
from demur.optimization.given import Given
from demur.optimization.methods import Method, MethodSpec, get_method
from demur.optimization.recorded import MethodRecord, QueriesRecord, RunRecord, TermRecord
from demur.optimization.settings import OptimizeSettings, StoredSettings, method_for
from demur.plugins import source_fingerprint
from demur.prompts import (
    Condition,
    SafetyPrompt,
    check_system_texts,
    load_basic_prompt,
    load_system_prompt,
)
from demur.queries import (
    QueryChoice,
    QuerySet,
    as_query_set,
    join_query_sets,
    labelled_pair,
    mix_conversations,
    queries_in_turn,
    require,
)
from demur.queries.turns import THIRD
from demur.records import Label, ModelRecord, Queries, text_of

if TYPE_CHECKING:
    from demur.chat import ChatModel

PromptChoice: TypeAlias = "str | PathLike[str] | SafetyPrompt"
"""A basic prompt: its name, a text file, or the object."""

_LABELS: dict[str, Label] = {
    "harmful": "harmful",
    "harmless": "harmless",
    "validation_harmful": "harmful",
    "validation_harmless": "harmless",
    "held_out_harmful": "harmful",
    "held_out_harmless": "harmless",
}


@dataclass(frozen=True)
class Plan:
    """What is to be optimized and how.

    Attributes:
        settings: every setting.
        method: class of the method.
        basic: the basic prompt, and the application's own system text.
        anchors: queries to train on, the harmful ones first.
        validation: queries that choose among the epochs; None where the method scores no refusals.
        held_out: queries of the final measurement, the harmful ones first.
        names: for `harmful`, `validation_harmless` and so on the name of the set.
        judge: judge of refusal.
        objects: names of the settings that were given as objects.
    """

    settings: OptimizeSettings[Any]
    method: type[Method[Any]]
    basic: Condition
    anchors: Queries
    validation: Queries | None
    held_out: Queries
    names: Mapping[str, str]
    judge: Judge
    objects: tuple[str, ...]

    @cached_property
    def third_turn(self) -> Queries | None:
        """Some of the held-out queries in the third turn of a conversation; None for none."""
        most = self.settings.queries.third_turn
        if not most:
            return None
        some = self.held_out.select(self.held_out.spread(most))
        return queries_in_turn(some, THIRD, self.settings.seed)

    @property
    def shared_queries(self) -> int:
        """How many held-out queries are among those to train on."""
        return _shared(self.held_out, self.anchors)

    @property
    def shared_with_validation(self) -> int:
        """How many held-out queries are among those that choose among the epochs."""
        return 0 if self.validation is None else _shared(self.held_out, self.validation)

    @property
    def shared_validation(self) -> int:
        """How many validation queries are among those to train on."""
        return 0 if self.validation is None else _shared(self.validation, self.anchors)

    def for_model(self, model: ChatModel) -> Plan:
        """The same plan, with tools before some queries to train on if the model can list them.

        Args:
            model: model that the prompt is for.
        """
        return self._with_tools() if model.renderer.lists_tools else self

    def as_in(self, record: RunRecord) -> Plan:
        """The same plan, with tools before some queries if a run has them there.

        Args:
            record: what is recorded of the run, whose model need not be loaded.
        """
        mixed = self._with_tools()
        return mixed if mixed.anchors.fingerprint == record.anchors.fingerprint else self

    def _with_tools(self) -> Plan:
        share = self.settings.queries.tools
        if not share:
            return self
        anchors = mix_conversations(self.anchors, tools=share, seed=self.settings.seed)
        return replace(self, anchors=anchors)

    def new_method(self) -> Method[Any]:
        """A method that has not done anything yet."""
        return self.method(self.settings.method_settings)

    def record(self, model: ModelRecord, load: WorkLoadSettings) -> RunRecord:
        """What is recorded of the run.

        Args:
            model: what is recorded of the model.
            load: how the model is loaded.
        """
        method = self.method
        built_in = method.__module__.startswith("demur.")
        return RunRecord(
            model=model,
            load=load,
            basic_prompt=self.basic.record(),
            anchors=self._queries("", self.anchors),
            validation=None
            if self.validation is None
            else self._queries("validation_", self.validation),
            held_out=self._queries("held_out_", self.held_out),
            method=MethodRecord(
                name=method.name,
                title=method.title,
                paper=method.paper,
                source=None if built_in else source_fingerprint(method),
                content=self.new_method().content(),
                terms=tuple(TermRecord(*term) for term in method.terms.items()),
            ),
            judge=JudgeRecord(self.judge.name, self.judge.fingerprint),
            settings=StoredSettings.model_validate(self.settings.model_dump(mode="json")),
            objects=self.objects,
        )

    def _queries(self, prefix: str, queries: Queries) -> QueriesRecord:
        names = self.names[f"{prefix}harmful"], self.names[f"{prefix}harmless"]
        return QueriesRecord(*names, queries.fingerprint)


def plan_of(settings: OptimizeSettings[Any]) -> Plan:
    """Read and check what settings name.

    Args:
        settings: every setting, for example from the command line.

    Raises:
        DemurError: something cannot be read or does not fit; the message says how to fix it.
    """
    return _resolved(settings, settings.method, Given())


def make_plan(
    *,
    basic_prompt: PromptChoice | None = None,
    harmful: QueryChoice | None = None,
    harmless: QueryChoice | None = None,
    validation_harmful: QueryChoice | None = None,
    validation_harmless: QueryChoice | None = None,
    held_out: QuerySet | Sequence[QuerySet] | None = None,
    held_out_harmful: QueryChoice | None = None,
    held_out_harmless: QueryChoice | None = None,
    system_prompt: str | PathLike[str] | None = None,
    judge: JudgeSpec | None = None,
    method: MethodSpec | None = None,
    preset: str = "standard",
    **settings: object,
) -> Plan:
    """Read and check what a caller chose, as names or as objects.

    Args:
        basic_prompt: as for `optimize`, and so are all others.

    Raises:
        DemurError: something cannot be read or does not fit; the message says how to fix it.
    """
    require_common(preset=preset, system_prompt=system_prompt)
    chosen: dict[str, QueryChoice | None] = {
        "harmful": harmful,
        "harmless": harmless,
        "validation_harmful": validation_harmful,
        "validation_harmless": validation_harmless,
        "held_out_harmful": held_out_harmful,
        "held_out_harmless": held_out_harmless,
    }
    for one in _held_out_sets(held_out):
        name = f"held_out_{one.label}"
        if chosen[name] is not None:
            raise DemurError(
                f"There are two sets of {one.label} held-out queries: give one, or join them with "
                "join_query_sets."
            )
        chosen[name] = one
    choices = {
        "basic_prompt": basic_prompt,
        "system_prompt": system_prompt,
        "judge": judge,
        **chosen,
    }
    named = {name: str(one) for name, one in choices.items() if isinstance(one, (str, PathLike))}
    used = method_for(preset, method)
    found = OptimizeSettings.from_preset(preset, used, **settings, **named)
    given = Given(
        basic_prompt=None if isinstance(basic_prompt, (str, PathLike)) else basic_prompt,
        judge=None if isinstance(judge, (str, PathLike)) else judge,
        method=None if isinstance(method, str) else method,
        sets={name: one for name, one in chosen.items() if one is not None and name not in named},
    )
    return _resolved(found, used, given)


def _resolved(settings: OptimizeSettings[Any], method: MethodSpec, given: Given) -> Plan:
    queries = settings.queries
    own = given.basic_prompt
    basic = _basic_prompt(settings.basic_prompt if own is None else own)
    judge = as_refusal_judge(
        settings.judge if given.judge is None else given.judge, base_url=settings.base_url
    )
    system = settings.system_prompt
    chosen = get_method(method)
    sets: dict[str, QuerySet] = {}
    for name, label in _LABELS.items():
        kind = name.removesuffix(f"_{label}") if name != label else "anchors"
        if kind == "validation" and not chosen.validated:
            continue
        most = getattr(queries, f"most_{kind}")
        found = (
            as_query_set(given.sets[name], label, most)
            if name in given.sets
            else _named_sets(getattr(queries, name), label, most, by_set=kind == "held_out")
        )
        sets[name] = require(found, most)
    plan = Plan(
        settings=settings.model_copy(update=given.described(queries, basic, judge, sets)),
        method=chosen,
        basic=Condition(basic, None if system is None else load_system_prompt(system)),
        anchors=mix_conversations(
            labelled_pair(sets["harmful"], sets["harmless"]),
            histories=queries.histories,
            applications=queries.applications if system is None else 0.0,
            seed=settings.seed,
        ),
        validation=labelled_pair(sets["validation_harmful"], sets["validation_harmless"])
        if chosen.validated
        else None,
        held_out=labelled_pair(sets["held_out_harmful"], sets["held_out_harmless"]),
        names={name: one.name for name, one in sets.items()},
        judge=judge,
        objects=given.names,
    )
    for one in sets.values():
        check_system_texts([plan.basic], one.texts)
    plan.new_method().check_queries(plan.anchors, plan.basic)
    return plan


def _shared(some: Queries, others: Queries) -> int:
    """How many queries two have in common, whatever stands before them."""
    return len({*map(text_of, some.texts)} & {*map(text_of, others.texts)})


def _basic_prompt(choice: object) -> SafetyPrompt:
    if isinstance(choice, str):
        return load_basic_prompt(choice)
    if not isinstance(choice, SafetyPrompt):
        raise DemurError(
            f"A basic prompt is a name, a text file or a SafetyPrompt, not {choice!r:.60}: give "
            "one of these."
        )
    if choice.is_trained or choice.text is None:
        raise DemurError(
            f"The safety prompt {choice.name!r} is trained already, and a basic prompt is text: "
            "give SafetyPrompt(name, text)."
        )
    return choice


def _named_sets(names: Sequence[str], label: Label, most: int | None, *, by_set: bool) -> QuerySet:
    """The query sets with some names, joined to at most `most` queries.

    Args:
        names: names of the sets.
        label: label of their queries.
        most: number of queries, at most; None for all of them.
        by_set: whether the set of a query takes the place of its category, where there are several,
            so that what is measured of each set is seen by itself.
    """
    sets = [as_query_set(name, label) for name in names]
    if by_set and len(sets) > 1:
        sets = [replace(one, categories=(one.name,) * len(one)) for one in sets]
    return join_query_sets(sets, most)


def _held_out_sets(held_out: object) -> list[QuerySet]:
    if held_out is None:
        return []
    sets = [held_out] if isinstance(held_out, QuerySet) else held_out
    if not isinstance(sets, (list, tuple)) or not all(isinstance(one, QuerySet) for one in sets):
        raise DemurError(
            f"'held_out' is {described(held_out)}, not one or two QuerySet: give QuerySet objects, "
            "or held_out_harmful and held_out_harmless."
        )
    if len({one.label for one in sets}) < len(sets):
        raise DemurError(
            "'held_out' has several sets of one label: give one of each label, or join them with "
            "join_query_sets."
        )
    return list(sets)
