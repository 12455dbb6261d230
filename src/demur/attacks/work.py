"""Attack prompts: every attack is a query set that is measured under each of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demur.attacks.judging import JudgesOfOriginals
from demur.attacks.pace import Pace
from demur.attacks.paired import AnsweredShares
from demur.attacks.plan import AttackPlan, LeftOut, Template
from demur.attacks.record import KIND, AttackRecord, TemplateRecord
from demur.attacks.registry import GCG
from demur.attacks.results import Robustness
from demur.bars import default_progress
from demur.chat.settings import WorkLoadSettings
from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answerer, Question, Task
from demur.evaluation.answerers.records import AnswererRecord, short_name
from demur.evaluation.changed_options import kept_changes
from demur.evaluation.chosen import named_for
from demur.evaluation.figures import Figures, Measured
from demur.evaluation.judging import Judges
from demur.evaluation.measuring import complete, key_of
from demur.evaluation.record import JudgeRecord, SetRecord
from demur.evaluation.settings import FileSettings, ServerSettings
from demur.evaluation.tally import Tally
from demur.files import safe_name
from demur.progress import Progress, SilentProgress
from demur.records import (
    ConditionRecord,
    JudgedResponse,
    MeasurementStore,
    Queries,
    StoredMeasurement,
    WorkFolder,
    fingerprint,
)

if TYPE_CHECKING:
    from demur.evaluation.answerers.model import ModelAnswerer

ATTACKS = Path("demur-attacks")
_MOST_NAME = 120
_MEASURING_SUFFIXES = f"Asking {GCG}"


def carry_out(
    plan: AttackPlan,
    answerer: Answerer,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Robustness:
    """Do what was planned; see `attack`.

    Args:
        plan: what is attacked, as `make_plan` returns it.
        answerer: model or server.
        output: folder of the results, or None for one that is named after run or model.
        progress: reports progress.

    Raises:
        DemurError: as for `attack`.
    """
    progress = progress or default_progress()
    chosen = plan.chosen
    names = _names(plan, answerer)
    plan = replace(plan, chosen=replace(chosen, names=names))
    work = _Work(answerer, plan, progress)
    path = Path(output) if output is not None else default_output(plan, work.record)
    folder = WorkFolder.check(path, work.record, KIND)
    found = Robustness.find_finished(folder)
    if found is not None and found.is_complete():
        WorkFolder.start(path, work.record, KIND)
        progress.message(f"These attacks are finished already: showing {path}.")
        return found
    is_new = not path.exists()
    with WorkFolder.alone(path, work.record, KIND, progress):
        try:
            robustness = work.run(path)
        except DemurError:
            if is_new and not MeasurementStore(path).has_rows:
                shutil.rmtree(path, ignore_errors=True)  # so that other settings can be tried here
            raise
        robustness.save()
    return robustness


def renewed(stored: AttackRecord, plan: AttackPlan) -> AttackRecord:
    """What is recorded of planned attacks with the model of stored ones.

    Attacks that the stored ones lack may have been impossible for the model, so they do not count.
    """
    chosen = plan.chosen
    known = {(one.opening, one.queries) for one in stored.attacks}
    found = [_record_of(one) for one in plan.templates]
    return _recorded(
        plan,
        [one for one in found if (one.opening, one.queries) in known],
        stored.answerer,
        stored.source,
        [condition.record() for condition in chosen.conditions],
    )


def default_output(plan: AttackPlan, record: AttackRecord) -> Path:
    """Where attacks lie unless told otherwise."""
    if plan.run is not None:
        return ATTACKS / safe_name(plan.run.path.resolve().name[:_MOST_NAME])
    name = "-".join([short_name(record.answerer), plan.queries.name])
    return ATTACKS / safe_name(name[:_MOST_NAME])


def _names(plan: AttackPlan, answerer: Answerer) -> tuple[str, ...]:
    """Names of the conditions; those of a run's prompts are the run's own."""
    chosen, run = plan.chosen, plan.run
    names = chosen.names
    if run is not None:
        none, basic, optimized = run.names
        names = (none, basic, optimized) if len(names) == 3 else (none, optimized)
    return named_for(answerer.bare_name, chosen.conditions, names)


class _Work:
    """The tasks of some attacks, and what is counted of them."""

    def __init__(self, answerer: Answerer, plan: AttackPlan, progress: Progress) -> None:
        self.answerer = answerer
        self.plan = plan
        self.progress = progress
        described = answerer.describe(progress)
        self.templates, self.left_out = self._possible()
        chosen = plan.chosen
        self.record = _recorded(
            plan,
            [_record_of(one) for one in self.templates],
            described,
            answerer.settings,
            [
                answerer.condition(condition, name)
                for condition, name in zip(chosen.conditions, chosen.names, strict=True)
            ],
        )

    def run(self, path: Path) -> Robustness:
        """Answer, judge and count everything."""
        chosen, store = self.plan.chosen, MeasurementStore(path)
        tally = Tally(
            harm_judged=chosen.judges.harm is not None,
            names={each.fingerprint: each.name for each in self.record.conditions},
        )
        shares = AnsweredShares()
        measured: list[Measured] = []

        def count(one: Measured, stored: StoredMeasurement, originals: Queries) -> None:
            attack, prompt = str(one.set), str(one.prompt)
            tally.add(_of_originals(stored, originals), attack)
            shares.add(attack, prompt, _of_originals(stored, originals))

        queries = self.plan.queries
        tasks = [(one, task) for one in self.templates for task in self._tasks(one)]
        self._announce([task for _, task in tasks])
        most = chosen.protocol.sampling.most_tokens
        pace = Pace([task for _, task in tasks], most, self.progress)
        for template, task in tasks:
            stored = self._measure(task, store, template.queries, queries, template.opening)
            measured.append(Measured(stored.key, task.condition.name, template.name))
            count(measured[-1], stored, queries)
            pace.measured(task)
        for task, attacked, originals in self._with_suffixes(path):
            stored = self._measure(task, store, attacked, originals)
            measured.append(Measured(stored.key, task.condition.name, attacked.name))
            count(measured[-1], stored, originals)
        return Robustness(
            figures=Figures(
                rates=tally.rates(),
                differences=(),
                measured=tuple(measured),
                changed_options=kept_changes(store),
            ),
            between_prompts=shares.between_prompts(),
            by_attacks=shares.by_attacks(),
            left_out=self.left_out,
            settings=self.record,
            path=path,
        )

    def _tasks(self, template: Template) -> list[Task]:
        chosen = self.plan.chosen
        protocol = replace(chosen.protocol, opening=template.opening)
        return self.answerer.tasks(
            [
                Question(condition, name, template.queries, protocol)
                for condition, name in zip(chosen.conditions, chosen.names, strict=True)
            ]
        )

    def _announce(self, tasks: Sequence[Task]) -> None:
        """Tell the stages to come."""
        stages = [task.description for task in tasks]
        if self._attacks_with_gradients is not None:
            from demur.attacks.gcg import describe_search

            for name in self.plan.chosen.names:
                stages += [describe_search(name), f"{_MEASURING_SUFFIXES}: {name}"]
        self.progress.plan(stages)

    def _measure(
        self,
        task: Task,
        store: MeasurementStore,
        attacked: Queries,
        originals: Queries,
        opening: str | None = None,
    ) -> StoredMeasurement:
        """Answer and judge the queries of one attack under one condition."""
        judges: Judges = self.plan.chosen.judges
        protocol = replace(self.plan.chosen.protocol, opening=opening)
        found = protocol.fingerprint(judges.refusal, judges.harm)
        if attacked.fingerprint != originals.fingerprint:
            # Judges read the original queries, on which verdicts may depend.
            judges = JudgesOfOriginals.of(judges, attacked, originals)
            found = fingerprint("attacked", protocol=found, originals=originals.fingerprint)
        return complete(task, key_of(task, found), judges, store, self.progress)

    @property
    def _attacks_with_gradients(self) -> ModelAnswerer | None:
        """The model whose gradients the search for suffixes reads; None where none is searched."""
        if not self.plan.with_gcg:
            return None
        from demur.evaluation.answerers.model import ModelAnswerer

        return self.answerer if isinstance(self.answerer, ModelAnswerer) else None

    def _with_suffixes(self, path: Path) -> Iterator[tuple[Task, Queries, Queries]]:
        """For each condition its task, its attacked queries and the original ones."""
        answerer, chosen = self._attacks_with_gradients, self.plan.chosen
        if answerer is None:
            return
        from demur.attacks.gcg import attacked_by_suffixes
        from demur.evaluation.answerers.model import ModelTask

        settings, queries = self.plan.settings, self.plan.queries
        originals = queries.select(range(min(settings.gcg.gcg_queries, len(queries))))
        for condition, name in zip(chosen.conditions, chosen.names, strict=True):
            attacked = attacked_by_suffixes(
                answerer.model,
                condition,
                name,
                originals,
                settings.gcg,
                settings.sampling.seed,
                path,
                self.progress,
            )
            question = Question(condition, name, attacked, chosen.protocol)
            task = ModelTask(answerer.model, question, _MEASURING_SUFFIXES)
            yield task, attacked, originals

    def _possible(self) -> tuple[tuple[Template, ...], tuple[LeftOut, ...]]:
        """The attacks that can be measured here, and the others.

        Raises:
            DemurError: the queries themselves cannot be measured, or no attack can.
        """
        first, *others = self.plan.templates
        self.answerer.check(self._tasks(first), self.progress)
        possible, left_out = [first], [*self.plan.left_out]
        for template in others:
            try:
                self.answerer.check(self._tasks(template), SilentProgress())
            except DemurError as error:
                left_out.append(LeftOut(template.name, str(error)))
            else:
                possible.append(template)
        if self.plan.with_gcg and self._attacks_with_gradients is None:
            left_out.append(LeftOut(GCG, "It needs the gradients of a model that runs here."))
        if len(possible) == 1 and self._attacks_with_gradients is None:
            reasons = " ".join(f"{one.attack}: {one.reason}" for one in left_out)
            raise DemurError(f"None of the attacks is possible here: choose others. {reasons}")
        for one in left_out:
            self.progress.message(f"The attack {one.attack} is left out: {one.reason}")
        return tuple(possible), tuple(left_out)


def _record_of(template: Template) -> TemplateRecord:
    return TemplateRecord(
        template.name,
        template.source,
        template.opening,
        template.disguises,
        template.queries.fingerprint,
    )


def _recorded(
    plan: AttackPlan,
    attacks: Sequence[TemplateRecord],
    answerer: AnswererRecord,
    source: WorkLoadSettings | ServerSettings | FileSettings,
    conditions: Sequence[ConditionRecord],
) -> AttackRecord:
    judges = plan.chosen.judges
    return AttackRecord(
        answerer=answerer,
        conditions=tuple(conditions),
        queries=SetRecord.of(plan.queries),
        attacks=tuple(attacks),
        with_gcg=plan.with_gcg,
        judge=JudgeRecord.of(judges.refusal),
        harm_judge=None if judges.harm is None else JudgeRecord.of(judges.harm),
        settings=plan.settings,
        source=source,
        objects=plan.objects,
    )


def _of_originals(stored: StoredMeasurement, originals: Queries) -> Iterator[JudgedResponse]:
    """Stored responses with the queries that were attacked, so that attacks can be paired."""
    header = stored.header
    assert header is not None
    assert header.per_query is not None
    for place, row in enumerate(stored.rows()):
        original = originals.texts[place // header.per_query]
        yield replace(row, query=original, category=None)
