"""Several safety prompts on the same queries, with a model that answers them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demur.chat import ChatModel, Condition
from demur.chat.engine import SamplingSettings
from demur.evaluation.choices import (
    DEFAULT_PROMPTS,
    EVALUATIONS,
    NONE,
    EvaluateSettings,
    PromptChoice,
    TestSet,
    choose_prompts,
    choose_sets,
)
from demur.evaluation.comparison import RESULTS, Comparison
from demur.evaluation.cost import Cost, CostMeter
from demur.evaluation.judged import (
    JudgedResponse,
    judge_harm_in_batches,
    read_judged,
    write_judged,
)
from demur.evaluation.measuring import Protocol, measure
from demur.evaluation.outputs import Instructions, OutputsWork, choose_instructions
from demur.evaluation.recorded import recorded_prompt, recorded_sets
from demur.evaluation.tally import Tally
from demur.files import distinct_names, safe_name
from demur.judges import PairwiseJudge, RefusalJudge, get_refusal_judge
from demur.judges.harm import HarmJudge
from demur.progress import Progress, SilentProgress
from demur.prompts import SafetyPrompt, load_system_prompt
from demur.report import ensure_report
from demur.runs import Measurement, RunFolder

UNFINISHED = "unfinished"


def evaluate(
    model: ChatModel,
    *,
    prompts: Sequence[PromptChoice] = DEFAULT_PROMPTS,
    benchmarks: Sequence[str] = (),
    harmful: str | None = None,
    harmless: str | None = None,
    system_prompt: str | None = None,
    judge: str | None = None,
    harm_judge: HarmJudge | None = None,
    instructions: str | None = None,
    preference_judge: PairwiseJudge | None = None,
    samples: int | None = None,
    tokens: int | None = None,
    seed: int | None = None,
    benchmark_dir: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare safety prompts on the same queries.

    Every judged response is kept in the folder: the same call goes on where an earlier one stopped,
    and returns at once where it has finished.

    Args:
        model: its weights stay as they are.
        prompts: for each `none` or None, `long`, `short`, `plain`, a text file, the folder of a run
            or of a saved safety prompt, `organisation/name` on the hub, or a `SafetyPrompt`.
        benchmarks: names of public benchmarks, see `demur benchmarks`.
        harmful: harmful queries: `held-out`, a text file, `file.csv:column`, `file.jsonl:column` or
            `hf:org/name:column`.
        harmless: harmless ones. The built-in `held-out` of both labels where neither a set nor
            instructions are named.
        system_prompt: a text file with the application's own system text, which follows the safety
            prompt.
        judge: the refusal judge, `default` (the default) or `paper`.
        harm_judge: decides which answers to harmful queries are unsafe. Responses are then sampled
            to their end, for those of less than three lines never count.
        instructions: ordinary instructions, `built-in` or as `harmless`. The output for each under
            every prompt is written as `alpaca_eval` reads them.
        preference_judge: compares the outputs under every prompt with those without one.
        samples: responses for each query; by default 1. Instructions have one output.
        tokens: of a response at most; by default 64, with a harm judge and for instructions 300.
        seed: of the sampling.
        benchmark_dir: a folder with the benchmarks' files; nothing is fetched then.
        output: the folder; by default one below `demur-evaluations` named after model and sets.
        progress: hears of every stage.

    Raises:
        DemurError: something the user can mend; nothing is half-written.
    """
    progress = progress or SilentProgress()
    settings = EvaluateSettings.of(judge, samples, tokens, seed, harm_judged=harm_judge is not None)
    refusal_judge = get_refusal_judge(settings.judge)
    system = load_system_prompt(system_prompt) if system_prompt is not None else None
    chosen = choose_prompts(prompts)
    conditions = [Condition(prompt, system) for prompt in chosen]
    asked = choose_instructions(instructions, chosen, compared=preference_judge is not None)
    sets = choose_sets(
        benchmarks, harmful, harmless, benchmark_dir, progress, built_in=asked is None
    )
    _check_fit(model, conditions, sets, asked, settings, progress)

    recorded = _recorded(model, conditions, sets, settings, system, harm_judge)
    if asked is not None:
        recorded |= _recorded_instructions(asked, settings, preference_judge)
    named = [test_set.name for test_set in sets] + ([asked.name] if asked is not None else [])
    path = Path(output) if output is not None else default_output(model, named)
    folder = RunFolder.start(path, recorded)
    if (path / RESULTS).exists():
        progress.message(f"This evaluation is finished already: showing {path}.")
        ensure_report(path)
        return Comparison.load(path)

    work = _Work(
        model, folder, _protocol(settings, harm_judge), refusal_judge, harm_judge, progress
    )
    tally = Tally(harm_judged=harm_judge is not None)
    costs: list[Cost] = []
    meter = CostMeter(model, path, work.unfinished, Condition(None, system), progress)
    name_of = distinct_names()
    for test_set in sets:
        names = {
            condition.name: name_of(f"{condition.name[:60]}-{test_set.name[:60]}")
            for condition in conditions
        }
        for condition in conditions:
            tally.add(work.judged_responses(names[condition.name], test_set, condition))
        for condition in conditions:
            cost = meter.cost(names[condition.name], names.get(NONE, NONE), test_set, condition)
            costs += [cost] if cost is not None else []
    wins = work.outputs(asked, settings).run(conditions, preference_judge) if asked else ()
    comparison = Comparison(
        path, tally.rates(), tally.differences(), folder.settings(), tuple(costs), wins
    )
    comparison.save(path)
    ensure_report(path)
    shutil.rmtree(path / UNFINISHED, ignore_errors=True)
    return comparison


def default_output(model: ChatModel, sets: Sequence[str]) -> Path:
    """Where an evaluation on sets of these names lies unless told otherwise."""
    return EVALUATIONS / safe_name("-".join([Path(model.name).name, *sets])[:120])


@dataclass(frozen=True)
class _Work:
    """What it takes to get the judged responses of one prompt to one set."""

    model: ChatModel
    folder: RunFolder
    protocol: Protocol
    judge: RefusalJudge
    harm_judge: HarmJudge | None
    progress: Progress

    @property
    def unfinished(self) -> RunFolder:
        """Where measurements lie until the evaluation is finished."""
        return RunFolder(self.folder.path / UNFINISHED)

    def outputs(self, instructions: Instructions, settings: EvaluateSettings) -> OutputsWork:
        """The same for outputs: whole ones, one for each instruction."""
        tokens = settings.output_tokens
        return OutputsWork(
            model=self.model,
            instructions=instructions,
            path=self.folder.path,
            measured=RunFolder(self.unfinished.path / "outputs"),
            protocol=replace(
                self.protocol,
                sampling=replace(self.protocol.sampling, samples=1, most_tokens=tokens),
                tokens_harmful=tokens,
                tokens_harmless=tokens,
                kept=1,
                whole=True,
            ),
            judge=self.judge,
            progress=self.progress,
        )

    def judged_responses(
        self, name: str, test_set: TestSet, condition: Condition
    ) -> list[JudgedResponse]:
        """Read them where they have been judged already, else sample and judge."""
        file = self.folder.path / "responses" / f"{name}.jsonl"
        if file.exists():
            return read_judged(file)
        measurement = measure(
            self.model,
            test_set.queries,
            condition,
            self.protocol,
            self.judge,
            self.progress,
            folder=self.unfinished,
            name=name,
            description=f"Measuring on {test_set.name}",
        )
        responses = _flat(measurement, test_set)
        if self.harm_judge is not None:
            kept = self.unfinished.path / f"{name}-harm.jsonl"
            responses = judge_harm_in_batches(responses, self.harm_judge, kept, self.progress)
        write_judged(file, responses)
        return responses


def _flat(measurement: Measurement, test_set: TestSet) -> list[JudgedResponse]:
    queries = measurement.queries
    return [
        JudgedResponse(
            prompt=measurement.condition,
            set=test_set.name,
            label="harmful" if harmful else "harmless",
            category=category,
            query=query,
            response=response.text,
            refused=response.refused,
            end=response.end,
        )
        for query, harmful, category, responses in zip(
            queries.texts, queries.harmful, test_set.categories, measurement.responses, strict=True
        )
        for response in responses
    ]


def _check_fit(
    model: ChatModel,
    conditions: Sequence[Condition],
    sets: Sequence[TestSet],
    instructions: Instructions | None,
    settings: EvaluateSettings,
    progress: Progress,
) -> None:
    """Find what cannot be measured before anything is.

    Raises:
        DemurError: a prompt was trained for another model, or a conversation is too long.
    """
    for condition in conditions:
        prompt = condition.safety_prompt
        if prompt is not None:
            prompt.require_width(model.width)
            if prompt.is_trained and _other_model(prompt, model):
                progress.message(
                    f"{prompt.name} was trained on other weights than those of {model.name}: "
                    "expect little of it."
                )
        for test_set in sets:
            model.inputs(test_set.queries.texts, condition, settings.tokens)
        if instructions is not None:
            model.inputs(instructions.texts, condition, settings.output_tokens)


def _other_model(prompt: SafetyPrompt, model: ChatModel) -> bool:
    trained_on = prompt.provenance.model
    return trained_on is not None and trained_on.identity != model.identity


def _protocol(settings: EvaluateSettings, harm_judge: HarmJudge | None) -> Protocol:
    return Protocol(
        sampling=SamplingSettings(
            samples=settings.samples, most_tokens=settings.tokens, seed=settings.seed
        ),
        tokens_harmful=settings.tokens,
        tokens_harmless=settings.tokens,
        kept=settings.samples,
        cut_unfinished=False,
        whole=harm_judge is not None,
    )


def _recorded(
    model: ChatModel,
    conditions: Sequence[Condition],
    sets: Sequence[TestSet],
    settings: EvaluateSettings,
    system: str | None,
    harm_judge: HarmJudge | None,
) -> dict[str, Any]:
    return {
        "model": {
            "name": model.name,
            "identity": model.identity,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "chat_template": model.renderer.fingerprint,
        },
        "prompts": [recorded_prompt(condition.safety_prompt) for condition in conditions],
        "sets": recorded_sets(sets),
        "system_prompt": system,
        "harm_judge": harm_judge.name if harm_judge is not None else None,
        **settings.model_dump(mode="json"),
    }


def _recorded_instructions(
    instructions: Instructions,
    settings: EvaluateSettings,
    preference_judge: PairwiseJudge | None,
) -> dict[str, Any]:
    return {
        "instructions": {
            "name": instructions.name,
            "texts": instructions.queries.fingerprint,
            "tokens": settings.output_tokens,
        },
        "preference_judge": preference_judge.name if preference_judge is not None else None,
    }
