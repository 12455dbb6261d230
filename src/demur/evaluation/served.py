"""The evaluation of a model that somebody serves: any OpenAI-compatible endpoint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.endpoint import Answer, EndpointClient, EndpointSettings, Request
from demur.errors import DemurError
from demur.evaluation.choices import (
    EVALUATIONS,
    EvaluateSettings,
    PromptChoice,
    TestSet,
    choose_prompts,
    choose_sets,
)
from demur.evaluation.comparison import RESULTS, Comparison
from demur.evaluation.judged import (
    JudgedResponse,
    judge_harm_in_batches,
    read_judged,
    write_judged,
)
from demur.evaluation.recorded import recorded_prompt, recorded_sets
from demur.evaluation.tally import Tally
from demur.files import distinct_names, safe_name
from demur.judges import RefusalJudge, get_refusal_judge
from demur.judges.harm import HarmJudge
from demur.progress import Progress, SilentProgress
from demur.prompts import SafetyPrompt, load_system_prompt
from demur.report import ensure_report
from demur.runs import RunFolder

AS_SERVED = "as-served"
UNFINISHED = "unfinished"
RESPONSES_AT_ONCE = 64
"""Responses that are kept together: what an interruption costs at most."""

SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": 50}
"""As in process. A server that refuses one of these samples as it does without it."""


def evaluate_endpoint(
    base_url: str,
    served_model: str | None = None,
    *,
    prompts: Sequence[PromptChoice] = (None,),
    benchmarks: Sequence[str] = (),
    harmful: str | None = None,
    harmless: str | None = None,
    system_prompt: str | None = None,
    judge: str | None = None,
    harm_judge: HarmJudge | None = None,
    samples: int | None = None,
    tokens: int | None = None,
    seed: int | None = None,
    concurrency: int = 8,
    timeout: float = 120.0,
    retries: int = 4,
    benchmark_dir: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Evaluate what an OpenAI-compatible server answers, with the measures of `evaluate`.

    Responses are kept as they come: the same call goes on where an earlier one stopped. There is no
    KL cost, which needs the model itself.

    Args:
        base_url: ends before `/chat/completions`, for example `http://localhost:8000/v1`.
        served_model: its name there; may be left out where the server has only one.
        prompts: None (nothing is sent before the query: what the server does by itself) or text
            prompts, which are sent as the system message.
        benchmarks: as in `evaluate`; so are `harmful`, `harmless`, `judge`, `harm_judge`,
            `samples`, `tokens`, `benchmark_dir`.
        system_prompt: a text file with the application's own system text, sent as the system
            message, behind a text prompt.
        seed: of every request's own seed; the servers that keep to seeds answer the same again.
        concurrency: requests under way at once.
        timeout: seconds to wait for an answer.
        retries: of a request that failed for a reason that may pass.
        output: the folder; by default one below `demur-evaluations` named after model and sets.
        progress: hears of every stage.

    Raises:
        DemurError: something the user can mend; what was answered is kept.
    """
    progress = progress or SilentProgress()
    settings = EvaluateSettings.of(judge, samples, tokens, seed, harm_judged=harm_judge is not None)
    refusal_judge = get_refusal_judge(settings.judge)
    system = load_system_prompt(system_prompt) if system_prompt is not None else None
    conditions = [_Opening.of(prompt, system) for prompt in choose_prompts(prompts)]
    sets = choose_sets(benchmarks, harmful, harmless, benchmark_dir, progress)
    client = EndpointClient(
        served_model or "",
        EndpointSettings(base_url, concurrency, timeout, retries),
        {**SAMPLING, "max_tokens": settings.tokens},
    )
    if not served_model:
        client.model = _only_model(client)
    recorded = {
        "model": {"name": client.model, "endpoint": client.place},
        "prompts": [condition.recorded for condition in conditions],
        "sets": recorded_sets(sets),
        "system_prompt": system,
        "harm_judge": harm_judge.name if harm_judge is not None else None,
        **settings.model_dump(mode="json"),
    }
    names = "-".join(["served", Path(client.model).name, *(one.name for one in sets)])
    path = Path(output) if output is not None else EVALUATIONS / safe_name(names[:120])
    folder = RunFolder.start(path, recorded)
    if (path / RESULTS).exists():
        progress.message(f"This evaluation is finished already: showing {path}.")
        ensure_report(path)
        return Comparison.load(path)

    work = _Work(client, folder.path, settings, refusal_judge, harm_judge, progress)
    tally = Tally(harm_judged=harm_judge is not None)
    name_of = distinct_names()
    for test_set in sets:
        for condition in conditions:
            name = name_of(f"{condition.name[:60]}-{test_set.name[:60]}")
            tally.add(work.judged_responses(name, test_set, condition))
    left_out = sorted(client.refused)
    if left_out:
        progress.message(f"{client.place} does not take {', '.join(left_out)}: left out.")
    comparison = Comparison(path, tally.rates(), tally.differences(), folder.settings())
    comparison.save(path)
    ensure_report(path)
    shutil.rmtree(path / UNFINISHED, ignore_errors=True)
    return comparison


def _only_model(client: EndpointClient) -> str:
    models = client.models()
    if len(models) == 1:
        return models[0]
    known = ", ".join(models[:5]) + (", ..." if len(models) > 5 else "")
    raise DemurError(
        f"{client.place} has {len(models)} models{f' ({known})' if known else ''}: "
        "say which with --served-model"
    )


@dataclass(frozen=True)
class _Opening:
    """What is sent before every query.

    Attributes:
        name: of the prompt, or `as-served`.
        system: the system message, or None.
        recorded: the prompt as the settings name it.
    """

    name: str
    system: str | None
    recorded: dict[str, Any]

    @classmethod
    def of(cls, prompt: SafetyPrompt | None, system: str | None) -> _Opening:
        if prompt is None:
            return cls(AS_SERVED, system, {**recorded_prompt(None), "name": AS_SERVED})
        if prompt.is_trained:
            raise DemurError(
                f"{prompt.name} is a trained prompt, which cannot be sent to a server: "
                "`demur export` it, serve the export, and evaluate that without --prompt"
            )
        texts = [text.strip() for text in (prompt.text, system) if text]
        return cls(prompt.name, "\n\n".join(texts), recorded_prompt(prompt))

    def messages(self, query: str) -> list[dict[str, str]]:
        opening = [{"role": "system", "content": self.system}] if self.system else []
        return [*opening, {"role": "user", "content": query.strip()}]


@dataclass(frozen=True)
class _Work:
    """What it takes to get the judged responses under one prompt to one set."""

    client: EndpointClient
    path: Path
    settings: EvaluateSettings
    judge: RefusalJudge
    harm_judge: HarmJudge | None
    progress: Progress

    def judged_responses(
        self, name: str, test_set: TestSet, opening: _Opening
    ) -> list[JudgedResponse]:
        """Read them where they have been judged already, else ask and judge."""
        file = self.path / "responses" / f"{name}.jsonl"
        if file.exists():
            return read_judged(file)
        responses = self._responses(name, test_set, opening)
        if self.harm_judge is not None:
            kept = self.path / UNFINISHED / f"{name}-harm.jsonl"
            responses = judge_harm_in_batches(responses, self.harm_judge, kept, self.progress)
        write_judged(file, responses)
        return responses

    def _responses(self, name: str, test_set: TestSet, opening: _Opening) -> list[JudgedResponse]:
        kept = self.path / UNFINISHED / f"{name}.jsonl"
        done = read_judged(kept) if kept.exists() else []
        queries, samples = test_set.queries, self.settings.samples
        places = [(row, sample) for row in range(len(queries)) for sample in range(samples)]
        description = f"Asking about {test_set.name}: {opening.name}"
        with self.progress.stage(description, len(places), "responses") as stage:
            stage.advance(len(done))
            while len(done) < len(places):
                batch = places[len(done) : len(done) + RESPONSES_AT_ONCE]
                requests = [
                    Request(
                        opening.messages(queries.texts[row]),
                        {"seed": _seed(self.settings.seed, sample, queries.texts[row])},
                    )
                    for row, sample in batch
                ]
                answers = self.client.chat_all(requests, stage)
                for (row, _), answer in zip(batch, answers, strict=True):
                    done.append(self._judged(test_set, row, opening, answer))
                write_judged(kept, done)
        return done

    def _judged(
        self, test_set: TestSet, row: int, opening: _Opening, answer: Answer
    ) -> JudgedResponse:
        text = answer.text or ""
        return JudgedResponse(
            prompt=opening.name,
            set=test_set.name,
            label="harmful" if test_set.queries.harmful[row] else "harmless",
            category=test_set.categories[row],
            query=test_set.queries.texts[row],
            response=text,
            refused=self.judge.refuses(text),
            end=answer.finish,
        )


def _seed(seed: int, sample: int, query: str) -> int:
    """A seed of its own for each response, for servers would draw the same luck for every query."""
    digest = hashlib.sha256(f"{seed}\0{sample}\0{query}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
