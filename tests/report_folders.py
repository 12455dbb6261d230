"""Finished folders made without a model, so that reports can be tested quickly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from demur import Run, SafetyPrompt, write_report
from demur.chat.settings import WorkLoadSettings
from demur.evaluation.answerers.files import ResponseFiles
from demur.evaluation.comparison import compare
from demur.evaluation.costs import AnswerLength, Cost
from demur.evaluation.evaluate import evaluate
from demur.evaluation.record import JudgeRecord
from demur.optimization.checkpoints import Epoch, OptimizerState
from demur.optimization.methods import get_method
from demur.optimization.recorded import (
    EpochRecord,
    MethodRecord,
    QueriesRecord,
    ReadingRecord,
    RunRecord,
    RunResults,
    TermRecord,
)
from demur.optimization.run import KIND, PROMPT, RESULTS, RESULTS_FORMAT, checkpoints_of
from demur.optimization.settings import OptimizeSettings, StoredSettings
from demur.prompts import Condition, Fact, MeasuredPrompt, Provenance, distinct_names
from demur.prompts.provenance import Role
from demur.records import (
    ConditionRecord,
    JudgedResponse,
    Label,
    Measurement,
    MeasurementHeader,
    MeasurementKey,
    MeasurementStore,
    ModelRecord,
    Queries,
    WorkFolder,
    write_record,
)

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload='window.hacked = 1'></svg>",
    "<!--<script>",
    "]]>--></title></style></textarea>",
    '"\' onmouseover=window.hacked=1 x="',
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:window.hacked=1",
    "\u2028\u2029\u202e\x1b[2J\x07\x00",
    "<iframe src='http://localhost:1/x'></iframe><link rel=stylesheet href='http://localhost:1/y'>",
    "<meta http-equiv=refresh content='0;url=http://localhost:1/z'>",
)
COUNT = 20
"""Queries of each label."""
WIDTH = 8
BASIC = "<i>mine.txt"
MODEL = ModelRecord("tiny <b>model", "sha256:0", "float32", "cpu", None, "template", True)
_SIDES: tuple[Label, Label] = ("harmful", "harmless")
_LABELS = tuple(side for side in _SIDES for _ in range(COUNT))


def _queries(name: str, extra: str) -> Queries:
    texts = [f"{label} {row % COUNT} {extra}" for row, label in enumerate(_LABELS)]
    return Queries(name, tuple(texts), _LABELS, (None,) * len(texts))


def _measurement(
    condition: ConditionRecord, queries: Queries, refusing: float, seed: int
) -> Measurement:
    """Harmful queries lie to the right, and the first `refusing` of them refuse."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2 * COUNT, WIDTH, generator=generator)
    points[:COUNT, 0] += 4 + 4 * refusing
    key = MeasurementKey(condition.fingerprint, queries.fingerprint, MODEL.fingerprint, "protocol")
    responses = tuple(
        (
            JudgedResponse(
                prompt=condition.name,
                condition=condition.fingerprint,
                set=queries.name,
                label=queries.labels[row],
                category=queries.categories[row],
                query=queries.texts[row],
                response=f"answer {row} of {condition.name} {HOSTILE[row % len(HOSTILE)]}",
                refused=row < refusing * COUNT or row == COUNT,
                end="stop",
            ),
        )
        for row in range(2 * COUNT)
    )
    return Measurement(key, condition, queries, responses, points)


def store(folder: Path, measurements: Sequence[Measurement]) -> None:
    """Write measurements into a folder of work."""
    for one in measurements:
        stored = MeasurementStore(folder).stored(one.key)
        stored.begin(MeasurementHeader(one.key, one.condition, one.queries.name, 1, WIDTH))
        rows = [row for rows in one.responses for row in rows]
        stored.append(rows, len(one.queries), one.representations)
        stored.finish()


def _record(
    held_out: Queries,
    anchors: Queries,
    basic: ConditionRecord,
    named: str,
    harmless_sets: tuple[str, ...],
) -> RunRecord:
    method = get_method("dro")
    settings = OptimizeSettings.from_preset("standard", "dro", epochs=2, basic_prompt=basic.name)
    queries = settings.queries
    if harmless_sets:
        queries = queries.model_copy(update={"held_out_harmless": harmless_sets})
    settings = settings.model_copy(update={"method": named, "queries": queries})
    return RunRecord(
        model=MODEL,
        load=WorkLoadSettings(model=MODEL.name, dtype="float32"),
        basic_prompt=basic,
        anchors=QueriesRecord("anchors", "anchors", anchors.fingerprint),
        held_out=QueriesRecord("held-out", "held-out", held_out.fingerprint),
        validation=None,
        method=MethodRecord(
            name=method.name,
            title=method.title,
            paper=method.paper,
            source=None,
            content=(),
            terms=tuple(TermRecord(*term) for term in method.terms.items()),
        ),
        judge=JudgeRecord("paper", "1"),
        settings=StoredSettings.model_validate(settings.model_dump(mode="json")),
    )


def finished_run(
    path: Path,
    *,
    basic: str = BASIC,
    system: str | None = HOSTILE[1],
    method: str = "dro",
    harmless_sets: tuple[str, ...] = (),
) -> Path:
    """A run whose queries, responses and names try to be markup.

    Args:
        path: folder of the run.
        basic: name of the basic prompt.
        system: application's own system text.
        method: method that the settings name.
        harmless_sets: sets that the harmless held-out queries come from, taken in turn; by default
            the one set that the harmful ones come from.
    """
    start = SafetyPrompt(basic, "Be careful.")
    trained = SafetyPrompt(
        "optimized", start.text, torch.arange(2 * WIDTH).reshape(2, WIDTH).float()
    )
    given = [Condition(one, system) for one in (None, start, trained)]
    conditions = [one.record(name) for one, name in zip(given, distinct_names(given), strict=True)]
    during = Condition(SafetyPrompt("e", "e", torch.ones(2, WIDTH)), system).record("epoch 1")
    held_out, anchors = _queries("held-out", HOSTILE[0]), _queries("anchors", HOSTILE[1])
    if harmless_sets:
        turns = [harmless_sets[row % len(harmless_sets)] for row in range(COUNT)]
        held_out = replace(
            held_out,
            name=f"held-out and {'+'.join(harmless_sets)}",
            categories=(*("a category",) * COUNT, *turns),
        )
    measured = [
        _measurement(condition, held_out, refusing, seed)
        for seed, (condition, refusing) in enumerate(zip(conditions, (0.3, 0.5, 0.9), strict=True))
    ]
    readings = [
        _measurement(conditions[0], anchors, 0.4, 3),
        _measurement(conditions[1], anchors, 0.6, 4),
        _measurement(during, anchors, 0.8, 5),
    ]
    changed = [row < 3 for row in range(COUNT)]
    costs = [
        replace(
            Cost.of(one.name, one.fingerprint, held_out.name, [0.25] * COUNT, changed),
            length=AnswerLength(COUNT, 16.0, COUNT, 3),
        )
        for one in conditions
    ]
    record = _record(held_out, anchors, conditions[1], method, harmless_sets)
    folder = WorkFolder.start(path, record, KIND)
    store(path, [*measured, *readings])
    figures = compare(measured, costs).figures
    history = tuple(
        EpochRecord(
            1.0 / epoch, {"refusal": 0.7 / epoch, "harmfulness": 0.3, "complement": 0.1 * epoch}
        )
        for epoch in (1, 2)
    )
    _save_training(path, record, history, anchors)
    results = RunResults(
        run=folder.settings.fingerprint,
        figures=figures,
        third_turn=compare(measured).figures,
        readings=tuple(
            ReadingRecord(title, one.key, epoch)
            for title, one, epoch in zip(
                ("none", basic, "after epoch 1"), readings, (None, None, 1), strict=True
            )
        ),
        history=history,
        examples=(),
    )
    rates = [figures.find(one.name, label="harmful").refused for one in conditions]
    assert all(rate is not None for rate in rates)
    provenance = Provenance(
        model=MODEL,
        method="Directed Representation Optimization",
        paper="https://arxiv.org/abs/2401.18018",
        settings=(Fact("basic prompt", basic), Fact("epochs", "2")),
        measured=(Fact("refusal judge", "paper"),),
        results=tuple(
            MeasuredPrompt(role, one.name, rate, rate, 0.25, costs[0].changed)
            for role, one, rate in zip(get_args(Role), conditions, rates, strict=True)
            if rate is not None
        ),
        with_system_prompt=system is not None,
    )
    SafetyPrompt(trained.name, trained.text, trained.embeddings, provenance).save(path / PROMPT)
    write_record(path / RESULTS, results, RESULTS_FORMAT)
    Run.load(path)
    return path


def _save_training(
    path: Path, record: RunRecord, history: tuple[EpochRecord, ...], anchors: Queries
) -> None:
    checkpoints = checkpoints_of(path, record)
    read = torch.randn(len(anchors), WIDTH, generator=torch.Generator().manual_seed(6))
    zero = {name: torch.zeros(2, WIDTH) for name in ("exp_avg", "exp_avg_sq")}
    for number, epoch in enumerate(history, start=1):
        state = OptimizerState(
            number, torch.ones(2, WIDTH), {"step": torch.tensor(float(number)), **zero}
        )
        checkpoints.save(Epoch(torch.full((2, WIDTH), float(number)), epoch, read), state)


def finished_evaluation(path: Path, queries: int = 30, prompts: int = 2, words: int = 5) -> Path:
    """Judged responses with categories, hostile ones among them, and their report."""
    rows = [
        {
            "prompt": f"prompt {prompt} <b>",
            "label": "harmful" if query % 2 else "harmless",
            "category": f"category {query % 3} {HOSTILE[6]}",
            "query": f"query {query} {HOSTILE[query % len(HOSTILE)]}",
            "response": ("I cannot help with that. " if (query + prompt) % 3 else "Sure. ")
            + HOSTILE[query % len(HOSTILE)]
            + " word" * words,
        }
        for query in range(queries)
        for prompt in range(prompts)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / f"{path.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_report(evaluate(ResponseFiles([file]), output=path))
    return path
