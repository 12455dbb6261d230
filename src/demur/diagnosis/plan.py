"""What is to be diagnosed, chosen and checked before any model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.chat.settings import WorkLoadSettings
from demur.diagnosis.diagnosis import DiagnosisRecord
from demur.diagnosis.fitting import Fitting, choose_fitting
from demur.diagnosis.settings import DiagnoseSettings, ProbeSettings, presets
from demur.errors import DemurError
from demur.evaluation.record import JudgeRecord
from demur.judges import Judge, JudgeSpec, as_refusal_judge
from demur.optimization import Run
from demur.optimization.recorded import QueriesRecord
from demur.plugins import is_plugin_spec
from demur.prompts import (
    Condition,
    SafetyPrompt,
    check_system_texts,
    distinct_names,
    load_prompt,
    load_system_prompt,
)
from demur.queries import QuerySet, require
from demur.queries.choosing import (
    OWN_NAME,
    QueryChoice,
    as_query_set,
    join_query_sets,
    labelled,
    require_one_label,
)
from demur.records import NO_PROMPT, Label, MeasurementKey, ModelRecord, Queries, Query
from demur.settings import build, options_in, values_of

if TYPE_CHECKING:
    from demur.chat import ChatModel

PromptChoice = str | Path | SafetyPrompt | None
ANCHORS = "anchors"


@dataclass(frozen=True)
class Given:
    """What was given in Python beside the settings; None where the settings hold.

    Attributes:
        prompts: safety prompts: names, paths or objects.
        harmful: harmful queries: a name, a `QuerySet` or texts.
        harmless: harmless queries, likewise.
        judge: judge of refusal: a name, an object or a function.
        run: finished run.
        probe_harmful: harmful queries that the probe is fitted to, as `harmful`.
        probe_harmless: harmless queries that the probe is fitted to, likewise.
    """

    prompts: Sequence[PromptChoice] | None = None
    harmful: QueryChoice | None = None
    harmless: QueryChoice | None = None
    judge: JudgeSpec | None = None
    run: Run | None = None
    probe_harmful: QueryChoice | None = None
    probe_harmless: QueryChoice | None = None

    @property
    def sets(self) -> dict[str, QueryChoice]:
        """The query sets that were given, by the names of their settings."""
        choices = {
            "harmful": self.harmful,
            "harmless": self.harmless,
            "probe_harmful": self.probe_harmful,
            "probe_harmless": self.probe_harmless,
        }
        return {name: choice for name, choice in choices.items() if choice is not None}

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the settings whose values no command line can say."""
        found = []
        if any(isinstance(one, SafetyPrompt) for one in self.prompts or ()):
            found.append("prompt")
        found += [name for name, choice in self.sets.items() if not isinstance(choice, str)]
        if self.judge is not None and not isinstance(self.judge, str):
            found.append("judge")
        return tuple(found)


@dataclass(frozen=True)
class Plan:
    """What is diagnosed.

    Attributes:
        settings: every setting, with names where prompts, sets and judges are objects.
        conditions: no prompt first, then the prompts; no two are the same.
        anchors: labelled queries.
        sets: names of the harmful and of the harmless set; for people.
        judge: judge of refusal.
        run: finished run whose optimized prompt is shown too, or None.
        fitting: queries that a probe is fitted to, or None where there is no probe.
        objects: names of the settings that were given as objects in Python.

    Raises:
        DemurError: there are too many components or folds for the readings.
    """

    settings: DiagnoseSettings
    conditions: tuple[Condition, ...]
    anchors: Queries
    sets: tuple[str, str]
    judge: Judge
    run: Run | None
    fitting: Fitting | None
    objects: tuple[str, ...]

    def __post_init__(self) -> None:
        from demur.geometry import require_readings  # with torch: behind all other checks

        numbers = self.settings.numbers
        require_readings(
            len(self.anchors),
            len(self.conditions),
            components=numbers.components,
            folds=numbers.folds,
        )

    @property
    def names(self) -> list[str]:
        """A name for each condition, no two alike; for people."""
        return distinct_names(list(self.conditions))

    def record(self, model: ModelRecord, load: WorkLoadSettings) -> DiagnosisRecord:
        """What is recorded of the diagnosis.

        Args:
            model: what is recorded of the model.
            load: how the model is loaded.
        """
        named = zip(self.conditions, self.names, strict=True)
        return DiagnosisRecord(
            model=model,
            load=load,
            conditions=tuple(condition.record(name) for condition, name in named),
            anchors=QueriesRecord(*self.sets, self.anchors.fingerprint),
            judge=JudgeRecord(self.judge.name, self.judge.fingerprint),
            held_out=() if self.run is None else held_out_of(self.run),
            fitting=None if self.fitting is None else self.fitting.record,
            settings=self.settings,
            objects=self.objects,
        )

    def check(self, model: ChatModel) -> None:
        """Find what cannot be read before anything is.

        Raises:
            DemurError: the run is of another model, a prompt was trained for one, a conversation is
                too long, or there are more components than dimensions.
        """
        if self.run is not None and self.run.settings.model.identity != model.identity:
            raise DemurError(
                f"The run in {self.run.path} is one of {self.run.settings.model.name!r:.200}, not "
                f"of {model.name}: diagnose it with its own model."
            )
        for condition in self.conditions:
            if condition.safety_prompt is not None:
                condition.safety_prompt.require_width(model.width)
            most_tokens = self.settings.protocol.sampling.most_tokens
            model.inputs(self.anchors.texts, condition, most_tokens)
        if self.fitting is not None:
            model.inputs(self.fitting.queries.texts, self.conditions[0])
        components = self.settings.numbers.components
        if components >= model.width:
            raise DemurError(
                f"--components {components} is too many for the width of {model.name}: give less "
                f"than {model.width}."
            )


def held_out_of(run: Run) -> tuple[MeasurementKey, ...]:
    """Identities of a run's held-out measurements: no prompt, the basic and the optimized one."""
    return tuple(one.key for one in run.results.figures.measured)


def make_plan(settings: DiagnoseSettings, given: Given | None = None) -> Plan:
    """Choose what is diagnosed, and check all that can be checked without the model.

    Args:
        settings: every setting.
        given: objects that replace some of the settings.

    Raises:
        DemurError: something cannot be read, or does not go with a run.
    """
    given = given or Given()
    run = given.run
    if run is not None or settings.run is not None:
        _refuse_beside_run(settings, given)
    if run is None and settings.run is not None:
        run = Run.load(settings.run)
    prompts = _prompts(settings.prompt if given.prompts is None else given.prompts)
    if run is not None:
        return _plan_of_run(settings, run, prompts, given)
    harmful = _set(settings, given.harmful, "harmful")
    harmless = _set(settings, given.harmless, "harmless")
    system = settings.system_prompt
    judge = as_refusal_judge(settings.judge if given.judge is None else given.judge)
    require_one_label(harmful, harmless)
    anchors = labelled(ANCHORS, harmful, harmless)
    conditions = _conditions(prompts, None if system is None else load_system_prompt(system))
    check_system_texts(conditions, anchors.texts)
    fitting = _fitting(settings, given, anchors.texts)
    values: dict[str, object] = {
        "prompt": _named(settings, given),
        **_names_of_sets(given, fitting),
    }
    if given.harmful is not None:
        values["harmful"] = (_name(given.harmful, harmful.name),)
    if given.harmless is not None:
        values["harmless"] = (_name(given.harmless, harmless.name),)
    if given.judge is not None:
        values["judge"] = _name(given.judge, judge.name)
    return Plan(
        settings=build(DiagnoseSettings, values, settings),
        conditions=conditions,
        anchors=anchors,
        sets=(harmful.name, harmless.name),
        judge=judge,
        run=None,
        fitting=fitting,
        objects=given.objects,
    )


def _plan_of_run(
    settings: DiagnoseSettings, run: Run, prompts: Sequence[SafetyPrompt], given: Given
) -> Plan:
    """A finished run with its own queries, system prompt and settings; its basic prompt first."""
    record = run.settings
    basic = record.basic_prompt
    if basic.text is None:
        raise DemurError(f"The run in {run.path} has no basic prompt: run its command again.")
    judged = ("judge",) if "judge" in record.objects else ()
    held_out = [query for one in run.held_out()[:1] for query in one.queries.texts]
    fitting = _fitting(settings, given, held_out)
    return Plan(
        settings=_settings_of_run(settings, run, given, fitting),
        conditions=_conditions(
            [SafetyPrompt(basic.name, basic.text), *prompts], basic.system_prompt
        ),
        anchors=_anchors_of(run),
        sets=(record.anchors.harmful, record.anchors.harmless),
        judge=_judge_of(run, settings, given),
        run=run,
        fitting=fitting,
        objects=tuple(dict.fromkeys((*given.objects, *judged))),
    )


def _settings_of_run(
    settings: DiagnoseSettings, run: Run, given: Given, fitting: Fitting | None
) -> DiagnoseSettings:
    """The settings of a diagnosis as a run says them."""
    record = run.settings.settings
    known = {option.name for option in options_in(DiagnoseSettings)}
    values: dict[str, object] = {
        name: value for name, value in values_of(record).items() if name in known
    }
    # The method's own settings are read by name, since the method itself is not loaded.
    own = record.method_settings.model_extra or {}
    values |= {name: own[name] for name in ("components", "folds") if name in own}
    path = os.path.normpath(run.path if settings.run is None else settings.run)
    values |= {**values_of(settings.probe), **_names_of_sets(given, fitting)}
    return build(DiagnoseSettings, {**values, "prompt": _named(settings, given), "run": path})


def _anchors_of(run: Run) -> Queries:
    wanted = run.settings.anchors.fingerprint
    found = run.anchors()
    if found is not None:
        return found
    chosen = run.settings.settings.queries
    if not {"harmful", "harmless"} & set(run.settings.objects):
        sets = [
            join_query_sets(
                [as_query_set(name, "harmful") for name in chosen.harmful], chosen.most_anchors
            ),
            join_query_sets(
                [as_query_set(name, "harmless") for name in chosen.harmless], chosen.most_anchors
            ),
        ]
        anchors = labelled(ANCHORS, *sets)
        if anchors.fingerprint == wanted:
            return anchors
    raise DemurError(
        f"The run in {run.path} does not have its anchor queries any more: diagnose its model with "
        "--harmful and --harmless instead."
    )


def _judge_of(run: Run, settings: DiagnoseSettings, given: Given) -> Judge:
    """The judge of a run. Code that only the run's folder names is never run."""
    wanted, name = run.settings.judge, run.settings.settings.judge
    chosen = given.judge
    if chosen is None and settings.judge != DiagnoseSettings().judge:
        chosen = settings.judge
    if chosen is None and (is_plugin_spec(name) or "judge" in run.settings.objects):
        raise DemurError(
            f"The run in {run.path} was judged by code of its user ({wanted.name!r:.60}): give the "
            "same judge with --judge or judge=, if you trust it."
        )
    judge = as_refusal_judge(name if chosen is None else chosen)
    if judge.fingerprint != wanted.fingerprint:
        raise DemurError(
            f"The run in {run.path} was judged by {wanted.name!r:.60}, which is not the judge that "
            "is given now: give that one."
        )
    return judge


def _refuse_beside_run(settings: DiagnoseSettings, given: Given) -> None:
    values, defaults = values_of(settings), values_of(presets()["standard"])
    differing = [name for name, value in values.items() if value != defaults[name]]
    own = {"prompt", "run", "judge", *values_of(ProbeSettings())}
    for name in (*differing, *given.objects):
        if name not in own:
            option = f"--{name.replace('_', '-')}"
            raise DemurError(f"A run brings its own settings: leave out {option}.")


def _prompts(choices: Sequence[PromptChoice]) -> list[SafetyPrompt]:
    prompts = [
        choice if isinstance(choice, SafetyPrompt) else load_prompt(choice)
        for choice in choices
        if choice is not None and choice != NO_PROMPT
    ]
    if not prompts:
        raise DemurError(
            "There is no prompt to diagnose: give one with --prompt, for example long."
        )
    return prompts


def _conditions(prompts: Sequence[SafetyPrompt], system: str | None) -> tuple[Condition, ...]:
    """No prompt and every prompt; one that is there already, by whatever name, is left out."""
    found: dict[str, Condition] = {}
    for prompt in (None, *prompts):
        condition = Condition(prompt, system)
        found.setdefault(condition.fingerprint, condition)
    return tuple(found.values())


def _set(settings: DiagnoseSettings, given: QueryChoice | None, label: Label) -> QuerySet:
    most = settings.queries.most_anchors
    if given is not None:
        return require(as_query_set(given, label, most), most)
    names = settings.queries.harmful if label == "harmful" else settings.queries.harmless
    return require(join_query_sets([as_query_set(name, label) for name in names], most), most)


def _fitting(settings: DiagnoseSettings, given: Given, reported: Sequence[Query]) -> Fitting | None:
    return choose_fitting(settings.probe, reported, given.probe_harmful, given.probe_harmless)


def _names_of_sets(given: Given, fitting: Fitting | None) -> dict[str, object]:
    """The sets that a probe is fitted to as settings name them, where they were given in Python."""
    harmful, harmless = (OWN_NAME, OWN_NAME) if fitting is None else fitting.sets
    found: dict[str, object] = {}
    if given.probe_harmful is not None:
        found["probe_harmful"] = (_name(given.probe_harmful, harmful),)
    if given.probe_harmless is not None:
        found["probe_harmless"] = (_name(given.probe_harmless, harmless),)
    return found


def _named(settings: DiagnoseSettings, given: Given) -> tuple[str, ...]:
    """The prompts as a command line gives them; objects by their names."""
    if given.prompts is None:
        return settings.prompt
    return tuple(
        one.name if isinstance(one, SafetyPrompt) else str(one)
        for one in given.prompts
        if one is not None and one != NO_PROMPT
    )


def _name(choice: object, name: str) -> str:
    return choice if isinstance(choice, str) else name
