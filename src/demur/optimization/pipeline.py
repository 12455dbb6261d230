"""The main job: from a basic prompt to an optimized and measured one."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.arguments import require_common
from demur.bars import default_progress
from demur.chat.catalog import hub_model_of
from demur.chat.chosen import require_model
from demur.evaluation.comparison import compare
from demur.evaluation.cost import STAGE, Costed, CostMeter
from demur.evaluation.costs import Cost
from demur.evaluation.measuring import measure
from demur.files import safe_name, write_bytes
from demur.optimization.examples import telling_examples
from demur.optimization.loop import TRAINING, TrainedPrompt, train
from demur.optimization.methods import DEFAULT, Context, Method, MethodSpec
from demur.optimization.naming import DIAGNOSES, MOST_OF_NAME, OPTIMIZED, RUNS
from demur.optimization.plan import Plan, PromptChoice, make_plan
from demur.optimization.provenance import provenance_of
from demur.optimization.remarks import remarks_on
from demur.optimization.run import (
    KIND,
    PROMPT,
    RESULTS,
    RESULTS_FORMAT,
    ReadingRecord,
    Run,
    RunRecord,
    RunResults,
    checkpoints_of,
    finished_run,
)
from demur.progress import Progress
from demur.prompts import Condition, SafetyPrompt, distinct_names
from demur.records import (
    Measurement,
    Queries,
    WorkFolder,
    folders_of_work,
    list_files,
    write_record,
)

if TYPE_CHECKING:
    from demur.chat import ChatModel
    from demur.evaluation.protocol import Protocol
    from demur.judges import JudgeSpec
    from demur.queries import QueryChoice, QuerySet

MEASURING = "Held-out queries"
MEASURING_THIRD = "Third turn"


def optimize(
    model: ChatModel,
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
    output: str | Path | None = None,
    progress: Progress | None = None,
    **settings: object,
) -> Run:
    """Optimize a safety prompt and measure it. The model's weights never change.

    The same call goes on where an earlier one stopped, and returns at once where it has finished.

    Args:
        model: model that the prompt is for.
        basic_prompt: where the training starts: `long` (the default), another built-in name, a text
            file, a text prompt on the hub, or a `SafetyPrompt`.
        harmful: at least 10 harmful queries to train on: a built-in set (by default those of the
            method), a text file, `FILE:COLUMN`, `hf:ORG/NAME:COLUMN`, texts, or `QuerySet`,
            which are joined.
        harmless: harmless queries, likewise.
        validation_harmful: at least 10 harmful queries that choose among the epochs, in any form
            that `harmful` has: the built-in validation set by default. Methods that score no
            refusals leave them alone.
        validation_harmless: harmless queries, likewise.
        held_out: one or two `QuerySet` that only the final measurement reads. A label that is
            missing comes from the method's built-in set.
        held_out_harmful: the same in any form that `harmful` has.
        held_out_harmless: harmless queries, likewise.
        system_prompt: text file with the application's own system text, which is never trained.
        judge: judge of refusal: a name, `file.py:Name`, an object or a function.
        method: a name in `methods.method_names()`, `file.py:Class`, or a subclass of `Method`; by
            default `likelihood`, and `dro` for the preset `paper`.
        preset: `standard`, `quick`, `thorough`, or for methods of the paper `paper`.
        output: folder of the run; by default one below `demur-runs`, named after model and prompt.
        progress: reports progress.
        **settings: settings that differ from the preset, by their names in `OptimizeSettings`.

    Returns:
        The finished run, with the optimized prompt and everything that was measured of it; the one
        in the folder where it is finished already.

    Raises:
        DemurError: something is wrong that the message says how to fix; what is finished is kept.

    Example:
        >>> optimize(model, harmful=my_queries, epochs=5).safety_prompt.save("my-prompt")
    """
    require_model(model)
    require_common(output, progress)
    plan = make_plan(
        basic_prompt=basic_prompt,
        harmful=harmful,
        harmless=harmless,
        validation_harmful=validation_harmful,
        validation_harmless=validation_harmless,
        held_out=held_out,
        held_out_harmful=held_out_harmful,
        held_out_harmless=held_out_harmless,
        system_prompt=system_prompt,
        judge=judge,
        method=method,
        preset=preset,
        **settings,
    )
    return carry_out(model, plan, output=output, progress=progress)


def carry_out(
    model: ChatModel,
    plan: Plan,
    *,
    output: str | Path | None = None,
    progress: Progress | None = None,
    lenders: Sequence[Path] = (),
) -> Run:
    """Optimize a safety prompt as planned; see `optimize`.

    Args:
        model: model that the prompt is for.
        plan: what `plan_of` or `make_plan` returned.
        output: folder of the run, as for `optimize`.
        progress: reports progress.
        lenders: folders of other work, whose measurements and costs are taken where they are the
            very same; diagnoses in their usual place are lenders as well.

    Returns:
        The finished run, as `optimize` does.

    Raises:
        DemurError: as for `optimize`.
    """
    progress = progress or default_progress()
    path = Path(output) if output is not None else default_output(model, plan)
    plan = plan.for_model(model)
    record = plan.record(model.record, model.settings)
    WorkFolder.check(path, record, KIND)
    _check_lengths(model, plan)
    method = plan.new_method()
    work = _Work(model, plan, WorkFolder(path, record), progress, lenders)
    method.check(work.context)
    with WorkFolder.alone(path, record, KIND, progress) as work.folder:
        return _carried_out(work, method)


def _carried_out(work: _Work, method: Method[Any]) -> Run:
    """Do what is missing in the folder of a run."""
    plan, progress, path = work.plan, work.progress, work.folder.path
    found = finished_run(work.folder)
    if found is not None and found.results.epoch == found.epoch_of(plan.settings.pick):
        progress.message(f"This run is finished already: showing {path}.")
        return found
    for remark in remarks_on(plan):
        progress.message(remark)
    progress.plan(work.stages(method.stages))
    checkpoints = checkpoints_of(path, work.folder.settings)
    if work.folder.measurements.is_begun:
        epochs = plan.settings.training.epochs
        progress.message(f"Going on with {path}: {checkpoints.finished} of {epochs} epochs done.")
    first = [work.unprompted, plan.basic]
    before = [work.measure_held_out(condition) for condition in first]
    third_turn = work.measure_third_turn(first)
    trained = train(method, work.context, plan.settings.training, checkpoints, plan.settings.pick)
    return work.finish(before, third_turn, trained)


def default_output(model: ChatModel, plan: Plan) -> Path:
    """The folder of a run for which none was chosen."""
    prompt = plan.basic.name[:MOST_OF_NAME]
    method = "" if plan.method.name == DEFAULT else f"-{plan.method.name[:MOST_OF_NAME]}"
    name = f"{Path(model.name).name[:MOST_OF_NAME]}-{prompt}{method}-{plan.settings.preset}"
    return RUNS / safe_name(name)


def _check_lengths(model: ChatModel, plan: Plan) -> None:
    """Check that all queries with their responses fit into the model's context and memory."""
    protocol = plan.settings.protocol
    for queries in (plan.anchors, plan.validation, plan.held_out, plan.third_turn):
        if queries is None:
            continue
        for condition in (Condition(None, plan.basic.system_prompt), plan.basic):
            trained = queries is plan.anchors and condition is plan.basic
            tokens = protocol.sampling.most_tokens
            model.require_room(queries.texts, condition, tokens, trained=trained)


class _Work:
    """One run that is under way: its folder, and the measurements so far."""

    def __init__(
        self,
        model: ChatModel,
        plan: Plan,
        folder: WorkFolder[RunRecord],
        progress: Progress,
        lenders: Sequence[Path] = (),
    ) -> None:
        self.model, self.plan, self.folder, self.progress = model, plan, folder, progress
        self.lenders = tuple(lenders)
        self.protocol = plan.settings.protocol
        self.unprompted = Condition(None, plan.basic.system_prompt)
        self.readings: list[ReadingRecord] = []
        # The result keeps its name, whatever the basic prompt is called.
        result = Condition(SafetyPrompt(OPTIMIZED, plan.basic.name))
        none, optimized, basic = distinct_names([self.unprompted, result, plan.basic])
        self.names = {self.unprompted.fingerprint: none, plan.basic.fingerprint: basic}
        self.optimized = optimized

    @property
    def context(self) -> Context:
        """What the method works with."""
        return Context(
            model=self.model,
            anchors=self.plan.anchors,
            basic=self.plan.basic,
            judge=self.plan.judge,
            protocol=self.protocol,
            seed=self.plan.settings.seed,
            measure=self._measure_for_method,
            progress=self.progress,
            validation=self.plan.validation,
            benign_budget=self.plan.settings.training.benign_budget,
        )

    def measure_held_out(self, condition: Condition) -> Measurement:
        """Measure the held-out queries."""
        return self._measure(self.plan.held_out, condition, self.protocol, MEASURING)

    def measure_third_turn(self, conditions: Sequence[Condition]) -> list[Measurement]:
        """Measure held-out queries in the third turn, where that was asked for."""
        queries = self.plan.third_turn
        if queries is None:
            return []
        return [
            self._measure(queries, condition, self.protocol, MEASURING_THIRD)
            for condition in conditions
        ]

    def stages(self, preparation: Sequence[str] | None) -> list[str]:
        """All stages of the run; none where those of the method's preparation are not known."""
        if preparation is None:
            return []
        titles = [MEASURING, *([MEASURING_THIRD] if self.plan.third_turn is not None else [])]
        first = [f"{title}: {name}" for title in titles for name in self.names.values()]
        last = [f"{title}: {self.optimized}" for title in titles]
        return [*first, *preparation, TRAINING, *last, STAGE]

    def finish(
        self,
        before: Sequence[Measurement],
        third_turn: Sequence[Measurement],
        trained: TrainedPrompt,
    ) -> Run:
        """Measure the trained prompt, and write it and the results.

        Args:
            before: the held-out queries under no prompt and under the basic one.
            third_turn: the same in the third turn; empty where that is not measured.
            trained: what the training left.
        """
        plan, path = self.plan, self.folder.path
        assert plan.basic.safety_prompt is not None
        text = plan.basic.safety_prompt.text
        bare = SafetyPrompt(self.optimized, text, trained.embeddings)
        condition = Condition(bare, plan.basic.system_prompt)
        self.names[condition.fingerprint] = self.optimized  # also where it was measured before
        measurements = [*before, self.measure_held_out(condition)]
        third_turn = [*third_turn, *self.measure_third_turn([condition])]
        meter = self._meter()
        comparison = compare(measurements, self._costs(meter, measurements, condition), path=path)
        results = RunResults(
            run=self.folder.settings.fingerprint,
            figures=comparison.figures,
            third_turn=compare(third_turn, path=path).figures if third_turn else None,
            readings=tuple(self.readings),
            history=trained.history,
            examples=telling_examples(measurements[1], measurements[2]),
            epoch=trained.epoch,
            files=list_files(path, sorted(meter.used)),
        )
        base_model = hub_model_of(self.model.name, self.model.identity)
        provenance = provenance_of(self.folder.settings, plan.settings, results, base_model)
        prompt = SafetyPrompt(self.optimized, text, trained.embeddings, provenance)
        for name, data in prompt.files().items():
            write_bytes(path / PROMPT / name, data)
        write_record(path / RESULTS, results, RESULTS_FORMAT)
        return Run(path, self.folder.settings, prompt, results)

    def _meter(self) -> CostMeter:
        from demur.evaluation.answerers.model import ModelAnswerer

        model = ModelAnswerer(self.model)
        return CostMeter(
            model, self.folder.path, self.unprompted, self.progress, lenders=self.lenders
        )

    def _costs(
        self, meter: CostMeter, measurements: Sequence[Measurement], optimized: Condition
    ) -> list[Cost]:
        """What each prompt costs on the harmless held-out queries."""
        conditions = (self.unprompted, self.plan.basic, optimized)
        return meter.costs(self.plan.held_out, list(map(Costed.of, conditions, measurements)))

    def _measure_for_method(
        self,
        queries: Queries,
        condition: Condition,
        *,
        description: str,
        protocol: Protocol | None = None,
        epoch: int | None = None,
    ) -> Measurement:
        found = self._measure(queries, condition, protocol or self.protocol, description)
        self.readings.append(ReadingRecord(found.name, found.key, epoch))
        return found

    def _measure(
        self, queries: Queries, condition: Condition, protocol: Protocol, description: str
    ) -> Measurement:
        return measure(
            self.model,
            queries,
            condition,
            protocol,
            self.plan.judge,
            self.folder.measurements,
            name=self._name(condition),
            lenders=[*self.lenders, *folders_of_work([DIAGNOSES])],
            progress=self.progress,
            description=description,
        )

    def _name(self, condition: Condition) -> str:
        """A name for people, different for each condition of the run."""
        if condition.fingerprint not in self.names:
            taken = {*self.names.values(), self.optimized}
            wanted = name = condition.name
            number = 2
            while name in taken:
                name, number = f"{wanted} ({number})", number + 1
            self.names[condition.fingerprint] = name
        return self.names[condition.fingerprint]
