"""Finished folders made by hand, so that reports can be tested without a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from demur import judge_responses
from demur.runs import Measurement, Queries, Response, RunFolder

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


def _queries(extra: str) -> Queries:
    harmful = [f"harmful {row} {extra}" for row in range(COUNT)]
    harmless = [f"harmless {row} {extra}" for row in range(COUNT)]
    return Queries(tuple(harmful + harmless), (True,) * COUNT + (False,) * COUNT)


def _measurement(name: str, queries: Queries, refusing: float, seed: int) -> Measurement:
    """Harmful queries lie to the right, and the first `refusing` of them refuse."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2 * COUNT, 8, generator=generator)
    points[:COUNT, 0] += 4 + 4 * refusing
    refused = [row < refusing * COUNT or row == COUNT for row in range(2 * COUNT)]
    responses = tuple(
        (Response(f"answer {row} of {name} {HOSTILE[row % len(HOSTILE)]}", no, "stop"),)
        for row, no in enumerate(refused)
    )
    return Measurement(name, queries, responses, points)


BASIC = "<i>mine.txt"


def finished_run(path: Path) -> Path:
    """A run whose queries, responses and names try to be markup."""
    settings = {
        "model": {"name": "tiny <b>model", "identity": "sha256:0", "dtype": "float32"},
        "basic_prompt": {"name": BASIC, "text": "Be careful."},
        "anchor_prompts": [],
        "preset": "standard",
        "epochs": 2,
        "folds": 5,
        "seed": 0,
        "system_prompt": HOSTILE[1],
    }
    folder = RunFolder.start(path, settings)
    held_out, anchors = _queries(HOSTILE[0]), _queries(HOSTILE[1])
    measurements = {
        "held-out-none": _measurement("none", held_out, 0.3, 0),
        f"held-out-{BASIC}": _measurement(BASIC, held_out, 0.5, 1),
        "held-out-optimized": _measurement("optimized", held_out, 0.9, 2),
        "anchors-0-none": _measurement("none", anchors, 0.4, 3),
        f"anchors-1-{BASIC}": _measurement(BASIC, anchors, 0.6, 4),
        "anchors-epoch-1": _measurement("epoch 1", anchors, 0.8, 5),
    }
    for name, measurement in measurements.items():
        folder.save_measurement(name, measurement)
    last = _measurement("epoch 2", anchors, 0.9, 6).representations
    folder.save_tensors("representations/training-epoch-2", {"representations": last})
    before, after = measurements[f"held-out-{BASIC}"], measurements["held-out-optimized"]
    history = [
        {"loss": 1.0 / epoch, "refusal": 0.7 / epoch, "harmfulness": 0.3, "complement": 0.1 * epoch}
        for epoch in (1, 2)
    ]
    metrics = {
        "evaluation": [_result(one) for one in (measurements["held-out-none"], before, after)],
        "examples": [],
        "history": history,
        "versions": {"demur": "0.0"},
    }
    (path / "metrics.json").write_text(json.dumps(metrics))
    return path


def _result(measurement: Measurement) -> dict[str, object]:
    rates = measurement.refusal_rates()

    def rate(chosen: list[float]) -> dict[str, object]:
        low, high = max(0.0, sum(chosen) / COUNT - 0.2), min(1.0, sum(chosen) / COUNT + 0.2)
        return {"count": sum(chosen), "queries": COUNT, "interval": {"low": low, "high": high}}

    return {
        "prompt": measurement.condition,
        "harmful_refused": rate(rates[:COUNT]),
        "harmless_refused": rate(rates[COUNT:]),
        "divergence": 0.25,
    }


def finished_evaluation(path: Path, queries: int = 30, prompts: int = 2, words: int = 5) -> Path:
    """Judged responses with categories, hostile ones among them."""
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
    judge_responses([file], output=path)
    return path
