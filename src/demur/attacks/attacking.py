"""Attack prompts: every attack is a query set that is measured under each of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from demur.attacks.judging import JudgesOfOriginals
from demur.attacks.plan import AttackPlan, LeftOut, Template
from demur.attacks.record import KIND, AttackRecord, TemplateRecord
from demur.attacks.results import Robustness
from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answerer, Question, Task
from demur.evaluation.answerers.records import short_name
from demur.evaluation.changed_options import kept_changes
from demur.evaluation.chosen import named_for
from demur.evaluation.figures import Figures, Measured
from demur.evaluation.judging import Judges
from demur.evaluation.measuring import complete, key_of
from demur.evaluation.record import JudgeRecord, SetRecord
from demur.evaluation.tally import Tally
from demur.files import safe_name
from demur.progress import Progress, SilentProgress
from demur.records import (
    JudgedResponse,
    MeasurementStore,
    Queries,
    StoredMeasurement,
    WorkFolder,
    fingerprint,
)

ATTACKS = Path("demur-attacks")
_MOST_NAME = 120


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
    progress = progress or SilentProgress()
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
            store = MeasurementStore(path).path
            if is_new and not any(file.stat().st_size for file in store.glob("*.jsonl")):
                shutil.rmtree(path, ignore_errors=True)  # so that other settings can be tried here
            raise
        robustness.save()
    return robustness


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
        harm = chosen.judges.harm
        self.record = AttackRecord(
            answerer=described,
            conditions=tuple(
                answerer.condition(condition, name)
                for condition, name in zip(chosen.conditions, chosen.names, strict=True)
            ),
            queries=SetRecord.of(plan.queries),
            attacks=tuple(
                TemplateRecord(one.name, one.source, one.opening, one.queries.fingerprint)
                for one in self.templates
            ),
            with_gcg=plan.with_gcg,
            judge=JudgeRecord.of(chosen.judges.refusal),
            harm_judge=None if harm is None else JudgeRecord.of(harm),
            settings=plan.settings,
            source=answerer.settings,
            objects=plan.objects,
        )

    def run(self, path: Path) -> Robustness:
        """Answer, judge and count everything."""
        chosen, store = self.plan.chosen, MeasurementStore(path)
        tally = Tally(
            harm_judged=chosen.judges.harm is not None,
            names={each.fingerprint: each.name for each in self.record.conditions},
        )
        measured: list[Measured] = []
        tasks = [(one, task) for one in self.templates for task in self._tasks(one)]
        self.progress.plan([task.description for _, task in tasks])
        for template, task in tasks:
            judges = self._judges(template.queries, self.plan.queries)
            key = key_of(task, self._protocol(judges, template.opening))
            stored = complete(task, key, judges, store, self.progress)
            tally.add(_of_originals(stored, self.plan.queries), template.name)
            measured.append(Measured(key, task.condition.name, template.name))
        return Robustness(
            figures=Figures(
                rates=tally.rates(),
                differences=tally.differences(),
                measured=tuple(measured),
                changed_options=kept_changes(store),
            ),
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

    def _judges(self, attacked: Queries, originals: Queries) -> Judges:
        judges = self.plan.chosen.judges
        if attacked.fingerprint == originals.fingerprint:
            return judges
        return JudgesOfOriginals.of(judges, attacked, originals)

    def _protocol(self, judges: Judges, opening: str | None) -> str:
        """Fingerprint of the protocol, and of the queries that judges read in place of others."""
        protocol = replace(self.plan.chosen.protocol, opening=opening)
        found = protocol.fingerprint(judges.refusal, judges.harm)
        if not isinstance(judges, JudgesOfOriginals):
            return found
        return fingerprint("attacked", protocol=found, originals=self.plan.queries.fingerprint)

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
        if len(possible) == 1 and left_out and not self.plan.with_gcg:
            raise DemurError(f"No attack is possible here. {left_out[0].reason}")
        for one in left_out:
            self.progress.message(f"The attack {one.attack} is left out: {one.reason}")
        return tuple(possible), tuple(left_out)


def _of_originals(stored: StoredMeasurement, originals: Queries) -> Iterator[JudgedResponse]:
    """Stored responses with the queries that were attacked, so that attacks can be paired."""
    header = stored.header
    assert header is not None
    assert header.per_query is not None
    for place, row in enumerate(stored.rows()):
        original = originals.texts[place // header.per_query]
        yield replace(row, query=original, category=None)
