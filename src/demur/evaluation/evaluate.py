"""One evaluation over anything that answers: a model here, a server, or files of responses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demur.arguments import require_common
from demur.bars import default_progress
from demur.errors import DemurError
from demur.evaluation.agreement import agreement
from demur.evaluation.answerers.protocol import Answerer, MeasuresCost, Question, Task
from demur.evaluation.answerers.records import short_name
from demur.evaluation.arguments import Arguments
from demur.evaluation.changed_options import kept_changes
from demur.evaluation.choices import PromptChoice, QueryChoices
from demur.evaluation.chosen import Chosen, choose, named_for
from demur.evaluation.comparison import Comparison, Measured
from demur.evaluation.cost import STAGE, Costed, CostMeter
from demur.evaluation.costs import Cost
from demur.evaluation.figures import PromptOutputs
from demur.evaluation.instructions import InstructionChoice
from demur.evaluation.measuring import borrow, complete, key_of
from demur.evaluation.outputs import OutputsWork
from demur.evaluation.record import KIND, EvaluationRecord
from demur.evaluation.recording import default_outputs, record_of
from demur.evaluation.tally import Tally
from demur.evaluation.wins import PromptWins
from demur.judges.preference import PairwiseJudge
from demur.judges.protocol import JudgeSpec
from demur.progress import Progress
from demur.prompts import Condition
from demur.records import (
    MeasurementStore,
    StoredMeasurement,
    WorkFolder,
    fingerprint,
)

if TYPE_CHECKING:
    from demur.chat import ChatModel


def evaluate(
    answerer: ChatModel | Answerer,
    *,
    prompts: Sequence[PromptChoice] | None = None,
    suite: str | None = None,
    benchmarks: Sequence[str] = (),
    harmful: QueryChoices = None,
    harmless: QueryChoices = None,
    turns: Sequence[int] | None = None,
    tools: str | Path | None = None,
    system_prompt: str | Path | None = None,
    judge: JudgeSpec | None = None,
    other_judges: Sequence[JudgeSpec] = (),
    harm_judge: JudgeSpec | None = None,
    instructions: InstructionChoice | None = None,
    preference_judge: PairwiseJudge | str | None = None,
    base_url: str | None = None,
    samples: int | None = None,
    tokens: int | None = None,
    seed: int | None = None,
    benchmark_dir: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare safety prompts on the same queries.

    Every judged response is stored in the folder as soon as its batch is complete: the same call
    goes on where an earlier one stopped, and returns at once where it has finished.

    Args:
        answerer: what answers: a `ChatModel`, a `Server`, or `ResponseFiles`, whose responses exist
            already and which take none of the choices of prompts, queries and sampling.
        prompts: for each `none` or None, a built-in name (`long`, `short`, `plain`,
            `self-reminder`, `goal-priority`, `refusal-examples`), a text file, the folder of a run
            or of a saved safety prompt, `organisation/name` on the hub, or a `SafetyPrompt`. By
            default none and `long`; of a server none, which is then called `as-served`. A text
            prompt is sent to a server as the system message.
        suite: `standard`, which is 100 harmful, 100 borderline and 100 ordinary built-in queries.
        benchmarks: names of public benchmarks, see `demur benchmarks`.
        harmful: harmful queries: `held-out`, a text file, `FILE:COLUMN`, `hf:ORG/NAME:COLUMN`, a
            `QuerySet`, a list of texts, or a list of query sets, each of which has rates of its
            own.
        harmless: harmless queries, likewise. By default the built-in `held-out` of both labels,
            where neither a set nor instructions are chosen.
        turns: turns of a conversation in which the queries are measured, of 1 and 3; by default
            `[1]`. In the third turn two short harmless exchanges stand before each query, and the
            set is called, for example, `held-out, third turn`.
        tools: JSON file with the tools of an application, as `tools` of a request to a server has
            them, or `built-in` for made-up ones. The template lists them before every query, and
            the sets are called, for example, `held-out, with tools`.
        system_prompt: text file with the application's own system text, which follows the safety
            prompt, or `none`. By default the one that a run among the prompts was trained behind.
        judge: judge of refusal as `as_refusal_judge` takes it; by default `default`.
        other_judges: further judges of refusal, whose agreement with `judge` is counted. Responses
            are then sampled to their end. The rates do not change.
        harm_judge: judge of harm as `as_harm_judge` takes it, which says which answers to harmful
            queries are unsafe. Responses are then sampled to their end.
        instructions: ordinary instructions, `built-in` or as `harmless`. The output for each under
            every prompt is written as `alpaca_eval` reads them.
        preference_judge: compares the outputs under every prompt with those without one:
            `endpoint:MODEL`, or an object with `name`, `fingerprint` and `prefer`.
        base_url: address of the judges' endpoint.
        samples: number of responses to each query, at least 1; by default 1. Instructions have one
            output.
        tokens: largest number of tokens in a response, at least 1; by default 64, with a judge of
            harm and for instructions 300.
        seed: seed of the sampling, at least 0; by default 0.
        benchmark_dir: folder with the files of benchmarks; nothing is downloaded then.
        output: folder of the evaluation; by default one below `demur-evaluations` that is named
            after the answerer and the sets.
        progress: reports progress; by default nothing is reported.

    Returns:
        Rates, differences and costs, with access to the stored responses.

    Raises:
        DemurError: something that the user can fix; what was measured before is kept.

    Example:
        >>> comparison = evaluate(ChatModel.load(), prompts=["none", "long"])  # doctest: +SKIP
        >>> print(comparison)  # doctest: +SKIP
        >>> evaluate(Server("http://localhost:8000/v1"), samples=5)  # doctest: +SKIP
        >>> evaluate(ResponseFiles(["answers.csv"]))  # doctest: +SKIP
    """
    arguments = Arguments(
        prompts=prompts,
        suite=suite,
        benchmarks=benchmarks,
        harmful=harmful,
        harmless=harmless,
        turns=turns,
        tools=tools,
        system_prompt=system_prompt,
        judge=judge,
        other_judges=other_judges,
        harm_judge=harm_judge,
        instructions=instructions,
        preference_judge=preference_judge,
        base_url=base_url,
        samples=samples,
        tokens=tokens,
        seed=seed,
        benchmark_dir=benchmark_dir,
    )
    return _evaluate(answerer, arguments, output, progress)


def _evaluate(
    answerer: ChatModel | Answerer,
    arguments: Arguments,
    output: str | Path | None,
    progress: Progress | None,
) -> Comparison:
    """Check the arguments, and evaluate."""
    arguments.check()
    require_common(output, progress)
    answers = as_answerer(answerer)
    if not answers.takes_queries and arguments.sampled:
        raise DemurError(
            f"Responses that exist already are judged as they are: leave out "
            f"{next(iter(arguments.sampled))}."
        )
    progress = progress or default_progress()
    chosen = choose(arguments.settings(), answers.default_prompts, progress, arguments.given())
    return run_evaluation(answers, chosen, output, progress)


def as_answerer(answerer: ChatModel | Answerer) -> Answerer:
    """Whatever the caller gives as an answerer.

    Raises:
        DemurError: it cannot be evaluated.
    """
    if isinstance(answerer, Answerer):
        return answerer
    from demur.chat import ChatModel

    if not isinstance(answerer, ChatModel):
        raise DemurError(
            f"{type(answerer).__name__!r:.60} cannot be evaluated: give a ChatModel, a Server or "
            "ResponseFiles."
        )
    from demur.evaluation.answerers.model import ModelAnswerer

    return ModelAnswerer(answerer)


def run_evaluation(
    answerer: Answerer,
    chosen: Chosen,
    output: str | Path | None = None,
    progress: Progress | None = None,
    lenders: Sequence[Path] = (),
) -> Comparison:
    """Measure what was chosen; see `evaluate`.

    Args:
        answerer: what answers.
        chosen: prompts, queries, judges and sampling, as `choose` returns them.
        output: folder of the evaluation, or None for one that is named after its content.
        progress: reports progress.
        lenders: folders of other work, whose measurements and costs are taken where they are the
            very same.

    Raises:
        DemurError: as for `evaluate`.
    """
    progress = progress or default_progress()
    names = named_for(answerer.bare_name, chosen.conditions, chosen.names)
    chosen = replace(chosen, names=names)
    record = record_of(answerer, chosen, progress)
    *others, path = [Path(output)] if output is not None else default_outputs(record)
    lenders = [*lenders, *others]
    if others:
        progress.message(
            f"{others[-1]} has other prompts or settings, so this evaluation goes to {path}."
        )
    folder = WorkFolder.check(path, record, KIND)
    work = _Work(answerer, chosen, record, folder.path, progress, lenders)
    found = Comparison.find_finished(folder)
    if found is not None and work.is_complete(found):
        WorkFolder.start(path, record, KIND)
        progress.message(f"This evaluation is finished already: showing {path}.")
        return found
    answerer.check(work.all_tasks, progress)
    is_new = not path.exists()
    with WorkFolder.alone(path, record, KIND, progress) as folder:
        if folder.path != path:  # a copy, where another process writes to the folder itself
            work = _Work(answerer, chosen, record, folder.path, progress, lenders)
        try:
            comparison = work.run()
        except DemurError:
            if is_new and not work.has_answers:
                shutil.rmtree(path, ignore_errors=True)  # so that other settings can be tried here
            raise
        comparison.save()
    for remark in answerer.remarks():
        progress.message(remark)
    return comparison


class _Work:
    """The tasks of an evaluation, and what is counted of them."""

    def __init__(
        self,
        answerer: Answerer,
        chosen: Chosen,
        record: EvaluationRecord,
        path: Path,
        progress: Progress,
        lenders: Sequence[Path] = (),
    ) -> None:
        self.answerer = answerer
        self.chosen = chosen
        self.record = record
        self.path = path
        self.progress = progress
        self.lenders = lenders
        self.store = MeasurementStore(path)
        self.tasks = answerer.tasks(
            [
                Question(condition, name, test_set.queries, chosen.protocol)
                for test_set in chosen.sets
                for condition, name in zip(chosen.conditions, chosen.names, strict=True)
            ]
            if answerer.takes_queries
            else []
        )
        self.outputs = (
            None
            if chosen.instructions is None
            else OutputsWork.of(
                chosen.instructions,
                chosen,
                answerer,
                short_name(record.answerer),
                path,
                progress,
                lenders,
            )
        )

    @property
    def all_tasks(self) -> list[Task]:
        """The tasks on query sets and on instructions."""
        return [*self.tasks, *(self.outputs.tasks if self.outputs is not None else ())]

    @property
    def has_answers(self) -> bool:
        """Whether any answer is stored."""
        return self.store.has_rows

    def is_complete(self, found: Comparison) -> bool:
        """Whether everything that belongs to the figures is there and undamaged.

        Raises:
            DemurError: a measurement is damaged.
        """
        keys = [measured.key for measured in found.measured]
        keys += [outputs.key for outputs in found.outputs]
        if not self.store.has_all(keys):
            return False
        kept_changes(self.store)
        others = [one.fingerprint for one in self.chosen.other_judges]
        return found.has_all_files and [one.fingerprint for one in found.agreements] == others

    def run(self) -> Comparison:
        """Answer, judge and count everything."""
        chosen = self.chosen
        self.progress.plan(self._stages)
        tally = Tally(
            harm_judged=chosen.judges.harm is not None,
            names={each.fingerprint: each.name for each in self.record.conditions},
        )
        stored: list[StoredMeasurement] = []
        measured: list[Measured] = []
        asked = self.answerer.takes_queries
        for task in self.tasks:
            key = key_of(task, self._protocol())
            borrow(task, key, self.store, self.lenders, self.progress)
            stored.append(complete(task, key, chosen.judges, self.store, self.progress))
            tally.add(stored[-1].rows(), task.set if asked else None)
            measured.append(
                Measured(key, task.condition.name, task.set) if asked else Measured(key, None, None)
            )
        agreements = tuple(
            agreement(judge, stored, self.path, self.progress) for judge in chosen.other_judges
        )
        costs = self._costs(stored)
        outputs, wins = self._outputs()
        return Comparison(
            rates=tally.rates(),
            differences=tally.differences(),
            costs=costs,
            wins=wins,
            outputs=outputs,
            measured=tuple(measured),
            changed_options=kept_changes(self.store),
            agreements=agreements,
            path=self.path,
            settings=self.record,
        )

    @property
    def _stages(self) -> list[str]:
        """What is to come, in its order."""
        costs = (
            isinstance(self.answerer, MeasuresCost)
            and any(one.safety_prompt is not None for one in self.chosen.conditions)
            and any(one.queries.rows(harmful=False) for one in self.chosen.sets)
        )
        outputs = self.all_tasks[len(self.tasks) :]
        return [
            *(task.description for task in self.tasks),
            *([STAGE] if costs else []),
            *(task.description for task in outputs),
        ]

    def _protocol(self) -> str:
        judges = self.chosen.judges
        if self.answerer.takes_queries:
            return self.chosen.protocol.fingerprint(judges.refusal, judges.harm)
        return fingerprint(
            "judges of files",
            judge=judges.refusal.fingerprint,
            harm_judge=None if judges.harm is None else judges.harm.fingerprint,
        )

    def _costs(self, stored: Sequence[StoredMeasurement]) -> tuple[Cost, ...]:
        """What each prompt costs on each set; nothing for an answerer without a model."""
        if not isinstance(self.answerer, MeasuresCost) or not self.chosen.conditions:
            return ()
        conditions, names = self.chosen.conditions, self.chosen.names
        unprompted = Condition(None, conditions[0].system_prompt)
        meter = CostMeter(self.answerer, self.path, unprompted, self.progress, lenders=self.lenders)
        costs: list[Cost] = []
        for number, test_set in enumerate(self.chosen.sets):
            here = stored[number * len(conditions) : (number + 1) * len(conditions)]
            measured = map(Costed.of_stored, names, conditions, here)
            costs += meter.costs(test_set.queries, list(measured))
        return tuple(costs)

    def _outputs(self) -> tuple[tuple[PromptOutputs, ...], tuple[PromptWins, ...]]:
        if self.outputs is None:
            return (), ()
        outputs, judge = self.outputs.run(), self.chosen.preference_judge
        return outputs, () if judge is None else self.outputs.wins(outputs, judge)
