"""What a stranger may have written into the folder of a wording run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")
pytest.importorskip("gepa", reason="gepa is not installed: pip install 'demur[gepa]'")

from demur import DemurError, SafetyPrompt, Server, WordingRun, optimize_wording
from demur.records.codec import canonical
from tests.wording_server import BASIC, MODEL, PROPOSER, queries, running


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sets: dict[str, Any] = {
        f"{target}{kind}": queries(kind, target or "training_")
        for target in ("", "validation_", "held_out_")
        for kind in ("harmful", "harmless")
    }
    with running(lambda _: "") as server:
        found = optimize_wording(
            Server(server.url, MODEL, retries=0),
            basic_prompt=SafetyPrompt("mine", BASIC),
            output=tmp_path_factory.mktemp("runs") / "run",
            budget_calls=400,
            proposer_model=PROPOSER,
            **sets,
        )
    return found.path


def no_candidates(content: dict[str, Any]) -> None:
    content["search"]["candidates"] = []


def no_responses(content: dict[str, Any]) -> None:
    counts = content["search"]["candidates"][0]["score"]["harmful"]
    counts.update(dict.fromkeys(counts, 0))


def less_than_none(content: dict[str, Any]) -> None:
    counts = content["search"]["candidates"][0]["score"]["harmful"]
    counts["wrong"] = -1


def one_prompt(content: dict[str, Any]) -> None:
    figures = content["figures"]
    figures["rates"] = [one for one in figures["rates"] if one["prompt"] == "mine"]
    figures["differences"] = []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("results.json", no_candidates),
        ("results.json", no_responses),
        ("results.json", less_than_none),
        ("evaluation/results.json", one_prompt),
    ],
)
def test_results_that_cannot_be_are_damaged(
    run: Path, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    file = run / name
    before = file.read_bytes()
    document = json.loads(before)
    change(document["content"])
    document["sha256"] = hashlib.sha256(canonical(document["content"])).hexdigest()
    try:
        file.write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(DemurError, match=r"results\.json is damaged"):
            WordingRun.load(run)
    finally:
        file.write_bytes(before)
    assert WordingRun.load(run).names == ("as-served", "mine")
