"""End to end on real models, fetched through the catalog (the cache serves a second time)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Condition, DemurError, SafetyPrompt, optimize
from demur.chat.engine import SamplingSettings
from demur.geometry import estimate_directions
from demur.prompts import load_basic_prompt
from demur.queries import Label, load_query_set
from tests.real_models import load_real_model

LABELS: tuple[Label, ...] = ("harmful", "harmless")
pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def default_model() -> ChatModel:
    return load_real_model()


def test_the_default_model_answers_sensibly_and_shares_its_prefix(
    default_model: ChatModel,
) -> None:
    assert default_model.engine.shares_prefix
    assert default_model.width == 896
    reading = default_model.read_and_sample(
        ["What is the capital of France? Answer with its name."],
        Condition(load_basic_prompt("plain")),
        SamplingSettings(most_tokens=12, temperature=0),
    )
    assert "Paris" in reading.samples[0][0].text


def test_a_short_optimization_moves_the_groups_apart(
    default_model: ChatModel, tmp_path: Path
) -> None:
    run = optimize(
        default_model,
        method="dro",
        judge="paper",
        preset="quick",
        most_anchors=20,
        most_held_out=10,
        epochs=3,
        batch=20,
        reanchor_every=0,  # losses under one pair of directions can be compared
        output=tmp_path / "run",
    )
    assert run.history[-1].terms["refusal"] < run.history[0].terms["refusal"] - 0.02
    assert run.comparison.costs[-1].divergence > 0

    # The saved prompt moves harmful held-out queries further along the refusal direction than
    # harmless ones.
    prompt = SafetyPrompt.load(tmp_path / "run")
    basic = load_basic_prompt("long")
    shift = {}
    measured = [reading.measurement for reading in run.readings()]
    directions = estimate_directions(
        torch.cat([one.states for one in measured]),
        torch.cat([one.refusal_probabilities() for one in measured]),
        torch.cat([one.queries.label_tensor() for one in measured]),
    )
    for label in LABELS:
        queries = load_query_set("held-out", label).head(10).texts
        before = default_model.represent(queries, Condition(basic))
        after = default_model.represent(queries, Condition(prompt))
        shift[label] = (directions.refusal(after) - directions.refusal(before)).mean()
    assert shift["harmful"] > shift["harmless"]


def test_where_a_model_refuses_almost_nothing_likelihood_trains_and_dro_says_so(
    tmp_path: Path,
) -> None:
    model = load_real_model("smollm2-135m")
    few: dict[str, Any] = {
        "judge": "paper",
        "preset": "quick",
        "most_anchors": 20,
        "most_validation": 20,
        "most_held_out": 10,
    }
    with pytest.raises(DemurError, match=r"refuses \(almost\) none.*no refusal direction"):
        optimize(model, method="dro", **few, output=tmp_path / "dro")
    assert not (tmp_path / "dro/training").exists()
    run = optimize(model, **few, output=tmp_path / "likelihood")
    first, last = run.history[0], run.history[-1]
    assert last.terms["harmful"] < first.terms["harmful"]
    assert first.validation is not None
    assert 0 < first.validation.harmful < 1
    assert run.results.epoch == run.epoch_of("balanced")
