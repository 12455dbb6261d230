"""Runs whose epochs are validated, where something is unusual: methods, queries, steps, budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from demur import ChatModel, DemurError, Run, SafetyPrompt, optimize
from demur.chat import Read
from demur.chat.engine.attention import _layout
from demur.chat.engine.packing import Packing
from demur.optimization import make_plan, presets
from demur.optimization.checkpoints import Checkpoints
from demur.optimization.groups import TrainingSettings
from demur.optimization.loop import train
from demur.optimization.methods import (
    Context,
    Losses,
    Method,
    MethodSettings,
    TrainingExample,
    get_method,
)
from demur.optimization.remarks import remarks_on
from demur.optimization.validation import Ranking, Validation, front
from demur.progress import SilentProgress
from demur.prompts import Condition
from demur.records import Label, Measurement, Queries
from tests.telling import Telling
from tests.tiny import save_tiny_model

BASIC = "w1 w2 w3 w4 w5 ."
HARMFUL = [f"w{10 + row % 40} w7 w{row} ?" for row in range(12)]
HARMLESS = [f"w{10 + row % 40} w8 w{row} ?" for row in range(12)]


def even(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
    """Refuses where the first word of a response has an even number."""
    first = [(one.split() or ["1"])[0].strip("w.?") for one in responses]
    return [one[-1:] in "02468" for one in first]


class Pull(Method[MethodSettings]):
    """Pulls the representations to zero, and scores every query with the same number."""

    name = "pull"
    title = "Pull to zero"
    terms: ClassVar = {"size": "mean square"}
    validated = True
    scored: ClassVar[Any] = 0.25
    steep: ClassVar[Sequence[int]] = ()
    steps = 0

    def prepare(self, context: Context) -> list[TrainingExample]:
        anchors = context.anchors
        return [TrainingExample(*one) for one in zip(anchors.texts, anchors.labels, strict=True)]

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        found = read.representations.square().mean(1)
        total = found
        if self.steps in self.steep:  # the square root has an infinite slope at zero
            total = found + (found - found.detach()).sqrt()
        self.steps += 1
        return Losses(total, {"size": found})

    def refusal_probabilities(self, context: Context, queries: Queries, prompt: Condition) -> Any:
        return torch.full((len(queries),), self.scored)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "judge": even,
        "basic_prompt": SafetyPrompt("basic", BASIC),
        "harmful": HARMFUL,
        "harmless": HARMLESS,
        "samples": 2,
        "tokens": 4,
        "validation_harmful": [f"{one[:-1]}w3 ?" for one in HARMFUL],
        "validation_harmless": [f"{one[:-1]}w3 ?" for one in HARMLESS],
        "held_out_harmful": [f"{one[:-1]}w4 ?" for one in HARMFUL],
        "held_out_harmless": [f"{one[:-1]}w4 ?" for one in HARMLESS],
        "histories": 0,
        "applications": 0,
        "epochs": 2,
        "output": tmp_path / "run",
    }


@pytest.fixture
def likelihood(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "method": "likelihood", "opening_tokens": 2, "openings": 8}


# Methods of a user's own.


def test_a_method_says_whether_it_scores_refusals() -> None:
    class Silent(Method[MethodSettings]):
        name, title, terms = "silent", "Silent", Pull.terms
        validated = True
        prepare, losses = Pull.prepare, Pull.losses

    class Unsaid(Silent):
        refusal_probabilities = Pull.refusal_probabilities

    class Deliberate(Pull):
        validated = False

    with pytest.raises(DemurError, match="scores no refusals: define refusal_probabilities"):
        get_method(Silent)
    del Silent.validated
    assert get_method(Silent) is Silent
    with pytest.raises(DemurError, match="set validated in the class"):
        get_method(Unsaid)
    assert get_method(Deliberate) is Deliberate
    assert get_method(Pull) is Pull


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda count: None, "returned no tensor for 24 validation queries: return one"),
        (lambda count: [0.5] * count, "returned no tensor for 24"),
        (lambda count: torch.full((count, 1), 0.5), r"the shape \(24, 1\) for 24"),
        (lambda count: torch.full((count - 1,), 0.5), r"the shape \(23,\) for 24"),
        (lambda count: torch.full((count,), torch.nan), "not from 0 to 1: give a lower"),
        (lambda count: torch.full((count,), 1.5), "not from 0 to 1"),
        (lambda count: torch.full((count,), -0.1), "not from 0 to 1"),
    ],
)
def test_what_a_method_scores_is_checked(
    model: ChatModel, arguments: dict[str, Any], returned: Any, told: str
) -> None:
    class Wrong(Pull):
        def refusal_probabilities(
            self, context: Context, queries: Queries, prompt: Condition
        ) -> Any:
            return returned(len(queries))

    with pytest.raises(DemurError, match=told):
        optimize(model, **arguments, method=Wrong)


def test_a_validated_method_of_a_users_own_has_its_epoch_chosen(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    class Falling(Pull):
        epochs = 0

        def refusal_probabilities(
            self, context: Context, queries: Queries, prompt: Condition
        ) -> Tensor:
            self.epochs += 1
            return queries.label_tensor() / self.epochs

    run = optimize(model, **arguments, method=Falling)
    ranking = Ranking(auc=1.0, found_at_2=1.0, found_at_5=1.0)
    assert [one.validation for one in run.history] == [
        Validation(1.0, 0.0, ranking),
        Validation(0.5, 0.0, ranking),
    ]
    assert run.results.epoch == 1
    kept, chosen = run.safety_prompt.embeddings, run.prompt_after(1).embeddings
    assert kept is not None
    assert chosen is not None
    assert torch.equal(kept, chosen)
    provenance = run.safety_prompt.provenance
    assert provenance is not None
    facts = {fact.name: fact.text for fact in provenance.settings}
    assert facts["epoch kept"] == "1 of 2"
    assert facts["validation queries"] == "own queries"
    for epoch in (0, 3):
        with pytest.raises(ValueError, match=f"there is no epoch {epoch}"):
            replace(run.results, epoch=epoch)


# Steps that are left out.


def trained(model: ChatModel, folder: Path, steep: Sequence[int], **settings: Any) -> Any:
    def measure(*_arguments: Any, **_options: Any) -> Measurement:
        raise AssertionError("nothing is measured here")

    class Steep(Pull):
        pass

    Steep.steep = steep
    labels: tuple[Label, ...] = ("harmful",) * 12 + ("harmless",) * 12
    context = Context(
        model=model,
        anchors=Queries("anchors", (*HARMFUL, *HARMLESS), labels, (None,) * 24),
        basic=Condition(SafetyPrompt("basic", BASIC)),
        judge=None,  # type: ignore[arg-type]
        protocol=None,  # type: ignore[arg-type]
        seed=0,
        measure=measure,
        progress=SilentProgress(),
    )
    chosen = TrainingSettings.model_validate({"epochs": 1, "batch": 8, **settings})
    return train(Steep(MethodSettings()), context, chosen, Checkpoints(folder, "run"))


def test_the_mean_prompt_counts_the_start_where_the_first_step_is_left_out(
    model: ChatModel, tmp_path: Path
) -> None:
    """Of three steps, the first leaves the prompt at its start and the others move it."""
    found = trained(model, tmp_path, [0])
    start = model.prompt_embeddings(SafetyPrompt("basic", BASIC))
    mean = Checkpoints(tmp_path, "run").state()
    assert mean is not None
    assert found.history[0].skipped == 1
    # The mean lies between the start and the last prompt, and is far from a third of nothing.
    moved = (found.last - start).norm()
    assert 0 < float((mean.mean - start).norm()) < float(moved)
    torch.testing.assert_close((found.embeddings - start).norm(), moved)


def test_an_epoch_without_a_step_ends_the_training(model: ChatModel, tmp_path: Path) -> None:
    """There would be no state of the optimizer to go on with."""
    with pytest.raises(DemurError, match="left the range of numbers in epoch 1"):
        trained(model, tmp_path, [0], batch=24)
    assert Checkpoints(tmp_path, "run").finished == 0


def test_a_layout_that_sampling_made_can_be_trained_with() -> None:
    """The same packing is found again, and autograd refuses tensors of the inference mode."""
    some, same = (Packing(3, (2, 4), inside=False) for _ in range(2))
    with torch.inference_mode():
        layout = _layout(some, 2, torch.device("cpu"), torch.float32)
    assert _layout(same, 2, torch.device("cpu"), torch.float32) is layout
    states = torch.randn(1, 2, 6, 8, requires_grad=True)
    read = states[0].index_select(1, layout.padded).index_select(1, layout.flat)
    (gradient,) = torch.autograd.grad(read.sum() + (states.sum() * layout.mask).sum(), states)
    assert gradient.shape == states.shape


# Values.


def test_means_that_are_no_probabilities_are_refused() -> None:
    for wrong in (float("nan"), -0.01, 1.01):
        for values in ((wrong, 0.5), (0.5, wrong)):
            with pytest.raises(ValueError, match="not from 0 to 1"):
                Validation(*values)
    assert Validation(0.0, 1.0).value(1.0) == 0.0


def test_the_front_has_the_later_of_two_equal_epochs() -> None:
    one = Validation(0.9, 0.02)
    assert front([one, one, Validation(0.7, 0.0)]) == [3, 2]


def test_thorough_looks_at_more_openings() -> None:
    found = presets()["thorough"]
    own = found.method_settings
    assert (own.openings, own.answer_tokens) == (16, 12)
    assert (own.mined_queries, own.remine_every) == (200, 3)
    assert (found.sampling.tokens_harmful, found.sampling.tokens_harmless) == (24, 24)


# Remarks.


def test_a_run_of_separate_queries_needs_no_remark(arguments: dict[str, Any]) -> None:
    del arguments["output"]
    assert remarks_on(make_plan(**arguments)) == []
    for preset in ("standard", "quick", "thorough"):
        for method in ("likelihood", "dro"):
            assert remarks_on(make_plan(preset=preset, method=method)) == []


def test_validation_queries_that_others_share_are_told(arguments: dict[str, Any]) -> None:
    del arguments["output"]
    of_validation = arguments["validation_harmful"]
    (remark,) = remarks_on(make_plan(**{**arguments, "held_out_harmful": of_validation}))
    assert remark.startswith("12 of the 24 held-out queries choose among the epochs as well")
    (remark,) = remarks_on(make_plan(**{**arguments, "validation_harmful": HARMFUL}))
    assert remark.startswith("12 of the 24 validation queries are trained on as well")
    # A method that scores no refusals reads none of them.
    plan = make_plan(**{**arguments, "validation_harmful": HARMFUL, "method": "vpt"})
    assert remarks_on(plan) == []


def test_few_queries_of_ones_own_beside_many_others_are_told() -> None:
    plan = make_plan(harmful=HARMFUL)
    assert plan.anchors.labels.count("harmless") == 640
    (remark,) = remarks_on(plan)
    assert "12 harmful and 640 harmless ones, so the harmful ones count for little" in remark
    (remark,) = remarks_on(make_plan(harmless=HARMLESS))
    assert "the harmless ones count for little" in remark
    assert remarks_on(make_plan(harmful=HARMFUL, most_anchors=20)) == []


def test_a_pick_without_an_effect_is_told() -> None:
    (remark,) = remarks_on(make_plan(method="dro", pick="strict"))
    assert remark.startswith("The method 'dro' scores no refusals, so --pick strict changes")


def test_a_prompt_beyond_the_budget_is_told(model: ChatModel, arguments: dict[str, Any]) -> None:
    heard = Telling()
    run = optimize(model, **arguments, method=Pull, benign_budget=0.1, progress=heard)
    assert heard.messages == []
    assert run.remark.startswith(
        "The prompt goes over its benign budget: --pick balanced allows 10.0 %"
    )
    assert "epoch 2, whose prompt is kept, is scored at 25.0 %" in run.remark
    assert str(run).endswith(run.remark)
    # The same prompt is within four times the budget. It is measured already.
    run = optimize(
        model, **arguments, method=Pull, benign_budget=0.1, pick="strict", progress=heard
    )
    assert run.remark == ""
    assert heard.messages == [f"This run is finished already: showing {arguments['output']}."]


def test_openings_that_begin_few_of_the_refusals_are_told(
    model: ChatModel, likelihood: dict[str, Any]
) -> None:
    heard = Telling()
    optimize(model, **{**likelihood, "openings": 1}, benign_budget=0.9, progress=heard)
    assert heard.messages
    for message in heard.messages:
        assert message.startswith("Only ")
        assert "% of the refusals seen begin with one of the 1 refusal openings" in message


# Weights.


@pytest.mark.parametrize("start", [0.0, 50.0])
def test_a_weight_beyond_the_usual_bounds_is_kept(
    model: ChatModel, likelihood: dict[str, Any], start: float
) -> None:
    """Too many harmless queries are refused, so the weight must not fall."""
    run = optimize(
        model,
        **likelihood,
        weight_harmless=start,
        benign_budget=1e-6,
        remine_every=0,
        focus=0,
        answer_tokens=0,
        learning_rate=1e-4,
    )
    weights = [(one.loss - one.terms["harmful"]) / one.terms["harmless"] for one in run.history]
    assert weights == pytest.approx([start, start], rel=1e-3, abs=1e-6)


# Going on.


@pytest.mark.parametrize("place", ["validated", "saved"])
def test_a_run_goes_on_after_a_stop_around_the_validation(
    model: ChatModel, likelihood: dict[str, Any], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    likelihood |= {"learning_rate": 0.05, "benign_budget": 0.3, "epochs": 3}
    whole = optimize(model, **likelihood)
    folder = likelihood["output"].with_name("stopped")
    saved, calls = Checkpoints.save, []

    def stopped(self: Checkpoints, *what: Any) -> None:
        calls.append(place)
        if place == "saved":
            saved(self, *what)
        if len(calls) == 2:
            raise KeyboardInterrupt
        if place == "validated":
            saved(self, *what)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            optimize(model, **{**likelihood, "output": folder})
    again = optimize(model, **{**likelihood, "output": folder})
    assert again.results == whole.results
    # Where the prompt of an epoch is lost, the training is done again.
    (folder / "training" / "epoch-001.safetensors").unlink()
    with pytest.raises(DemurError, match=r"epoch-001\.safetensors is missing: run the command"):
        Run.load(folder).prompt_after(1)
    assert optimize(model, **{**likelihood, "output": folder}).results == whole.results
    assert Run.load(folder).prompt_after(1).embeddings is not None
