"""The main job: from a basic prompt to a better wording that is measured."""

from __future__ import annotations

import shutil
from dataclasses import replace
from os import PathLike
from pathlib import Path

from demur.arguments import require_common, require_kind
from demur.bars import default_progress
from demur.endpoint import EndpointClient
from demur.errors import DemurError
from demur.evaluation.answerers.server import Server
from demur.evaluation.chosen import Chosen, choose
from demur.evaluation.chosen import Given as EvaluationGiven
from demur.evaluation.comparison import Comparison
from demur.evaluation.evaluate import run_evaluation
from demur.evaluation.judging import Judges
from demur.evaluation.settings import EvaluateSettings, JudgeSettings, ResponseSettings
from demur.files import safe_name, write_bytes
from demur.judges import JudgeSpec
from demur.judges.asking import EndpointIdentity
from demur.optimization.naming import MOST_OF_NAME, OPTIMIZED, RUNS
from demur.optimization.wording.ledger import AnswerLedger, Spent
from demur.optimization.wording.plan import WordingPlan, make_wording_plan
from demur.optimization.wording.proposing import Proposer
from demur.optimization.wording.provenance import provenance_of
from demur.optimization.wording.record import (
    RESULTS,
    RESULTS_FORMAT,
    Search,
    WordingRecord,
    WordingResults,
)
from demur.optimization.wording.run import EVALUATION, PROMPT, WordingRun, read_wording_run
from demur.optimization.wording.scoring import Scorer
from demur.optimization.wording.search import search
from demur.optimization.wording.settings import KIND
from demur.optimization.wording.verdicts import remembering
from demur.progress import Progress
from demur.prompts import SafetyPrompt
from demur.queries import QueryChoice
from demur.records import ServerRecord, WorkFolder, write_record


def optimize_wording(
    server: Server,
    *,
    basic_prompt: str | PathLike[str] | SafetyPrompt | None = None,
    harmful: QueryChoice | None = None,
    harmless: QueryChoice | None = None,
    validation_harmful: QueryChoice | None = None,
    validation_harmless: QueryChoice | None = None,
    held_out_harmful: QueryChoice | None = None,
    held_out_harmless: QueryChoice | None = None,
    system_prompt: str | PathLike[str] | None = None,
    judge: JudgeSpec | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
    **settings: object,
) -> WordingRun:
    """Improve the wording of a safety prompt for a model behind an endpoint, and measure it.

    The same call goes on where an earlier one stopped and asks nothing twice. With a larger budget
    it goes on searching.

    Args:
        server: the model that the prompt is for.
        basic_prompt: where to start: a built-in name of `BASIC_PROMPTS` (by default `long`), a text
            file, a text prompt on the hub, or a `SafetyPrompt` of text.
        harmful: harmful queries that the proposer learns from: `training` (the default), a text
            file, `FILE:COLUMN`, `hf:ORG/NAME:COLUMN`, texts, or `QuerySet`.
        harmless: harmless queries, likewise.
        validation_harmful: queries that choose among the proposals, likewise; by default
            `validation`.
        validation_harmless: harmless queries, likewise.
        held_out_harmful: queries that only the final measurement reads, likewise; by default
            `test`.
        held_out_harmless: harmless queries, likewise.
        system_prompt: text file with the application's own system text, which stays as it is.
        judge: judge of refusal: a name, `file.py:Name`, an object or a function.
        output: folder of the run; by default one below `demur-runs`, named after model and prompt.
        progress: reports progress.
        **settings: other settings by their names in `WordingSettings`, for example
            `proposer_model` or `budget_calls`.

    Returns:
        The finished run, with the best wording and what was measured of it; the one in the folder
        where it is finished already with this budget.

    Raises:
        DemurError: something is wrong that the message says how to fix; what is finished is kept.

    Example:
        >>> server = Server("http://localhost:8000/v1")  # doctest: +SKIP
        >>> run = optimize_wording(server, budget_calls=1000)  # doctest: +SKIP
        >>> print(run.safety_prompt.text)  # doctest: +SKIP
    """
    require_kind("server", server, Server, "a Server, such as Server('http://localhost:8000/v1')")
    require_common(output, progress)
    sets = {
        "harmful": harmful,
        "harmless": harmless,
        "validation_harmful": validation_harmful,
        "validation_harmless": validation_harmless,
        "held_out_harmful": held_out_harmful,
        "held_out_harmless": held_out_harmless,
    }
    plan = make_wording_plan(
        server,
        basic_prompt=basic_prompt,
        system_prompt=system_prompt,
        judge=judge,
        sets=sets,
        settings=settings,
    )
    return carry_out_wording(plan, output=output, progress=progress)


def carry_out_wording(
    plan: WordingPlan,
    *,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> WordingRun:
    """Improve a wording as planned; see `optimize_wording`.

    Args:
        plan: what `wording_plan_of` or `make_wording_plan` returned.
        output: folder of the run, as for `optimize_wording`.
        progress: reports progress.

    Returns:
        The finished run, as `optimize_wording` does.

    Raises:
        DemurError: as for `optimize_wording`.
    """
    progress = progress or default_progress()
    server = plan.server()
    proposer = plan.proposer(server)
    model = server.describe(progress)
    proposer.announce(progress)
    record = plan.record(model, ServerRecord(proposer.model, proposer.place))
    path = Path(output) if output is not None else _default_output(model, plan)
    is_new = not path.exists()
    with WorkFolder.alone(path, record, KIND, progress) as folder:
        return _carried_out(plan, folder, server, proposer, is_new, progress)


def _carried_out(
    plan: WordingPlan,
    folder: WorkFolder[WordingRecord],
    server: Server,
    proposer: EndpointClient,
    is_new: bool,
    progress: Progress,
) -> WordingRun:
    """Do what is missing in the folder of a run; one without any answer is removed again."""
    path = folder.path
    found = read_wording_run(folder)
    if found is not None and found.results.budget == plan.budget:
        progress.message(f"This run is finished already: showing {path}.")
        return found
    for remark in dict.fromkeys((*plan.training.remarks, *plan.validation.remarks)):
        progress.message(remark)
    if plan.shared_queries:
        progress.message(
            f"The search reads {plan.shared_queries} of the held-out queries as well, so the final "
            "figures flatter the prompt: give other held-out queries."
        )
    ledger = AnswerLedger(path, plan.budget)
    try:
        return _work(plan, folder, server, proposer, ledger, progress)
    except DemurError:
        if is_new and not ledger.has_answers:
            shutil.rmtree(path, ignore_errors=True)  # so that other settings can be tried here
        raise


def _work(
    plan: WordingPlan,
    folder: WorkFolder[WordingRecord],
    server: Server,
    proposer: EndpointClient,
    ledger: AnswerLedger,
    progress: Progress,
) -> WordingRun:
    """Search, measure, and write the results."""
    clients = [server.client, proposer]
    if isinstance(plan.judge, EndpointIdentity):
        clients.append(plan.judge.client)
    for client in clients:
        client.ledger = ledger
    settings, judge = plan.settings, remembering(plan.judge, folder.path)
    found = search(
        plan.search,
        Scorer(server, judge, plan.protocol, plan.basic.system_prompt),
        Proposer(
            proposer,
            tokens=settings.proposer.proposer_tokens,
            temperature=settings.proposer.proposer_temperature,
            most_characters=settings.search.most_characters,
            seed=settings.seed,
        ),
        ledger,
        progress,
    )
    ledger.reserve = Spent()  # the final measurement is what it was kept for
    chosen = replace(_chosen(plan, found, progress), judges=Judges(judge))
    comparison = _measure(server, chosen, folder.path / EVALUATION, progress)
    return _finish(plan, folder, found, comparison, ledger.spent)


def _default_output(model: ServerRecord, plan: WordingPlan) -> Path:
    names = (model.name.rpartition("/")[2], plan.basic.name)
    return RUNS / safe_name("-".join([*(one[:MOST_OF_NAME] for one in names), "text"]))


def _measure(server: Server, chosen: Chosen, path: Path, progress: Progress) -> Comparison:
    """Compare no prompt, the basic one and the best one on the held-out queries.

    What an interruption or a smaller budget left there is measured again. The ledger has its
    answers, so that none is asked for again and all of them count.
    """
    if path.exists():
        shutil.rmtree(path)
    return run_evaluation(server, chosen, path, progress)


def _chosen(plan: WordingPlan, found: Search, progress: Progress) -> Chosen:
    settings, (harmful, harmless) = plan.settings, plan.held_out
    prompts = [None, plan.basic.safety_prompt]
    if found.best:
        prompts.append(SafetyPrompt(OPTIMIZED, found.candidates[found.best].text))
    chosen = choose(
        EvaluateSettings(
            prompt=tuple("none" if one is None else one.name for one in prompts),
            system_prompt=settings.system_prompt,
            judges=JudgeSettings(judge=settings.judge, base_url=settings.base_url),
            sampling=ResponseSettings(
                samples=settings.sampling.samples,
                tokens=settings.sampling.tokens,
                seed=settings.seed,
            ),
        ),
        Server.default_prompts,
        progress,
        EvaluationGiven(prompts=prompts, harmful=harmful, harmless=harmless, judge=plan.judge),
    )
    return replace(chosen, objects=tuple(one for one in chosen.objects if one != "judge"))


def _finish(
    plan: WordingPlan,
    folder: WorkFolder[WordingRecord],
    found: Search,
    comparison: Comparison,
    spent: Spent,
) -> WordingRun:
    """Write the prompt and the results."""
    path, record = folder.path, folder.settings
    results = WordingResults(record.identity().fingerprint, found, plan.budget, spent)
    provenance = provenance_of(record, results, comparison)
    prompt = SafetyPrompt(OPTIMIZED, found.candidates[found.best].text, None, provenance)
    for name, data in prompt.files().items():
        write_bytes(path / PROMPT / name, data)
    write_record(path / RESULTS, results, RESULTS_FORMAT)
    return WordingRun(path, record, prompt, results, comparison)
