"""Methods: DRO's loss and anchoring, the registry, and a likelihood method in one file."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor

from demur import ChatModel, DemurError, Run, SafetyPrompt, optimize
from demur.chat import Read
from demur.chat.embeddings import conversation_embeddings
from demur.chat.engine import TargetTokens
from demur.evaluation.protocol import Protocol
from demur.geometry import dro_terms, estimate_directions
from demur.judges import PaperRefusalJudge
from demur.optimization import OptimizeSettings, presets, settings_type
from demur.optimization.methods import (
    DEFAULT,
    Context,
    Losses,
    Method,
    MethodSettings,
    TrainingExample,
    get_method,
    method_names,
)
from demur.optimization.methods.dro import DirectedRepresentation, DROSettings
from demur.optimization.plan import make_plan
from demur.progress import SilentProgress
from demur.prompts import Condition
from demur.records import (
    JudgedResponse,
    Label,
    Measurement,
    MeasurementKey,
    Queries,
)
from demur.settings import options_in
from tests.tiny import save_tiny_model

OWN = str(Path(__file__).with_name("likelihood_method.py")) + ":PromptTuning"
WIDTH = 8
LABELS: tuple[Label, ...] = ("harmful", "harmless") * 10
ANCHORS = Queries("anchors", tuple(f"w{n} ?" for n in range(20)), LABELS, (None,) * 20)
BASIC = Condition(SafetyPrompt("basic", "w1 w2 w3 w4"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def words(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    return {
        "basic_prompt": tmp_path / "basic.txt",
        "harmful": [f"w{10 + row % 40} w7 w{row} ?" for row in range(12)],
        "harmless": [f"w{10 + row % 40} w8 w{row} ?" for row in range(12)],
        "judge": "paper",
        "tokens": 4,
        "batch": 8,
        "most_held_out": 10,
    }


class Measuring:
    """Measures by a formula, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []

    def __call__(
        self,
        queries: Queries,
        condition: Condition,
        *,
        description: str,
        protocol: Protocol | None = None,
        epoch: int | None = None,
    ) -> Measurement:
        self.asked.append((condition.name, epoch))
        generator = torch.Generator().manual_seed(len(condition.name))
        states = torch.randn(len(queries), WIDTH, generator=generator)
        states[:, 0] += 2 * queries.label_tensor()
        responses = tuple(
            (
                JudgedResponse(
                    condition.name, None, "anchors", label, None, text, "", bool(x > 0.8), "stop"
                ),
            )
            for text, label, x in zip(queries.texts, queries.labels, states[:, 0], strict=True)
        )
        key = MeasurementKey(condition.fingerprint, queries.fingerprint, "model", "protocol")
        return Measurement(key, condition.record(), queries, responses, states)


def context_of(model: ChatModel, measuring: Measuring, basic: Condition = BASIC) -> Context:
    settings = OptimizeSettings.from_preset("quick")
    judge = PaperRefusalJudge()
    return Context(model, ANCHORS, basic, judge, settings.protocol, 0, measuring, SilentProgress())


def read_of(representations: Tensor) -> Read:
    none = torch.zeros(0, dtype=torch.long)
    tokens = TargetTokens(none, none, none, none, none)
    return Read(representations, torch.zeros(0), tokens, ((),) * len(representations))


def prepared(model: ChatModel, measuring: Measuring, **settings: Any) -> DirectedRepresentation:
    method = DirectedRepresentation(DROSettings(components=2, folds=2, **settings))
    method.prepare(context_of(model, measuring))
    return method


def test_dro_reads_every_condition_once_and_trains_on_the_anchors(model: ChatModel) -> None:
    measuring = Measuring()
    method = DirectedRepresentation(
        DROSettings(components=2, folds=2, anchor_prompts=("short", "plain"))
    )
    examples = method.prepare(context_of(model, measuring))
    assert measuring.asked == [(name, None) for name in ("none", "short", "plain", "basic")]
    assert [(one.query, one.label) for one in examples] == list(
        zip(ANCHORS.texts, ANCHORS.labels, strict=True)
    )


def test_a_prompt_is_the_basic_one_by_its_text_and_not_by_its_name(model: ChatModel) -> None:
    from demur.prompts import load_basic_prompt

    method = DirectedRepresentation(DROSettings(components=2, folds=2, anchor_prompts=("short",)))
    for basic, expected in (
        (Condition(SafetyPrompt("mine", load_basic_prompt("short").text)), ["none", "mine"]),
        (Condition(SafetyPrompt("short", "w1 w2")), ["none", "short", "short"]),
    ):
        measuring = Measuring()
        method.prepare(context_of(model, measuring, basic))
        assert [name for name, _ in measuring.asked] == expected


def test_dros_loss_is_that_of_its_directions(model: ChatModel) -> None:
    measuring = Measuring()
    method = prepared(model, measuring)
    none = measuring(ANCHORS, Condition(), description="")
    basic = measuring(ANCHORS, BASIC, description="")
    labels = ANCHORS.label_tensor()
    directions = estimate_directions(
        torch.cat([none.states, basic.states]),
        torch.cat([none.refusal_probabilities(), basic.refusal_probabilities()]),
        labels.repeat(2),
        components=2,
        folds=2,
        seed=0,
    )
    rows = [3, 0, 11]
    moved = basic.states[rows] + 0.1
    expected = dro_terms(directions, moved, basic.states[rows], labels[rows])
    found = method.losses(read_of(moved), rows, rows)
    torch.testing.assert_close(found.terms["refusal"], expected.refusal)
    torch.testing.assert_close(found.terms["harmfulness"], expected.harmfulness)
    torch.testing.assert_close(found.terms["complement"], expected.complement)
    total = expected.refusal + 0.01 * expected.harmfulness + 0.005 * expected.complement
    torch.testing.assert_close(found.total, total)
    assert set(found.terms) == set(DirectedRepresentation.terms)


@pytest.mark.parametrize("term", ["refusal", "harmfulness", "complement"])
def test_each_of_the_papers_ablations_is_a_setting(model: ChatModel, term: str) -> None:
    """A weight of 0 leaves exactly that term out of the loss."""
    rows = list(range(20))
    moved = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    whole = prepared(model, Measuring()).losses(read_of(moved), rows, rows)
    weight = {"refusal": 1.0, "harmfulness": 0.01, "complement": 0.005}[term]
    changed: dict[str, Any] = {f"weight_{term}": 0}
    without = prepared(model, Measuring(), **changed).losses(read_of(moved), rows, rows)
    torch.testing.assert_close(without.total, whole.total - weight * whole.terms[term])
    assert all(torch.equal(without.terms[name], whole.terms[name]) for name in whole.terms)


def test_harmless_queries_weigh_what_they_are_told_to(model: ChatModel) -> None:
    rows = list(range(20))
    moved = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    plain = prepared(model, Measuring()).losses(read_of(moved), rows, rows)
    tilted = prepared(model, Measuring(), weight_harmless=3.0).losses(read_of(moved), rows, rows)
    torch.testing.assert_close(tilted.total, plain.total * torch.tensor([1.0, 3.0] * 10))
    assert all(torch.equal(plain.terms[name], tilted.terms[name]) for name in plain.terms)


def test_dro_reads_the_anchors_again_as_often_as_it_is_told(model: ChatModel) -> None:
    measuring = Measuring()
    method = prepared(model, measuring, reanchor_every=2)
    rows = list(range(20))
    moved = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    seen = [method.losses(read_of(moved), rows, rows).total]
    for epoch in (1, 2, 3, 4):
        so_far = Condition(SafetyPrompt(f"after epoch {epoch}", "w1 w2 w3 w4"))
        method.after_epoch(context_of(model, measuring), epoch, so_far, None)
        seen.append(method.losses(read_of(moved), rows, rows).total)
    assert measuring.asked[2:] == [("after epoch 2", 2), ("after epoch 4", 4)]
    changed = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changed == [False, True, False, True]


def test_dro_says_early_that_there_are_too_many_components(model: ChatModel) -> None:
    method = DirectedRepresentation(DROSettings(components=32))
    with pytest.raises(DemurError, match=r"--components 32 is too many .* give less than 32\."):
        method.check(context_of(model, Measuring()))


def test_a_method_is_named_in_the_registry_alone() -> None:
    """Help and defaults are made from it."""
    field = OptimizeSettings.model_fields["method"]
    assert field.default == DEFAULT == method_names()[0]
    assert field.description is not None
    assert f": {', '.join(method_names())}, text (" in field.description
    assert field.description.endswith(" or FILE.py:CLASS")
    for function in (optimize, make_plan):
        assert inspect.signature(function).parameters["method"].default is None
    assert make_plan().method is get_method(DEFAULT)
    for name in method_names():
        assert get_method(name).name == name


def test_methods_by_name() -> None:
    assert method_names() == ("likelihood", "dro", "vpt")
    assert get_method("dro") is get_method(DirectedRepresentation) is DirectedRepresentation
    message = (
        r"no method 'drl' \(did you mean 'dro'\?\): choose likelihood, dro, vpt, text, or give "
        r"FILE\.py:CLASS"
    )
    with pytest.raises(DemurError, match=message):
        get_method("drl")
    for wrong in (3, OptimizeSettings, None):
        with pytest.raises(DemurError, match="is not a method: give a subclass"):
            get_method(wrong)  # type: ignore[arg-type]


class Plain(Method[MethodSettings]):
    """Pulls representations to zero."""

    name = "plain"
    title = "Pull to zero"
    terms: ClassVar = {"size": "mean square"}

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        anchors = context.anchors
        return [
            TrainingExample(text, label)
            for text, label in zip(anchors.texts, anchors.labels, strict=True)
        ]

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        size = read.representations.square().mean(1)
        return Losses(size, {"size": size})


class Undescribed(MethodSettings):
    rate: float = 1.0


class Taken(MethodSettings):
    epochs: int = Field(default=1, description="passes")


class Nested(MethodSettings):
    inner: Taken = Taken()


class Several(MethodSettings):
    """Method: with settings of every kind."""

    sizes: tuple[int, ...] = Field(default=(1, 2), description="sizes")
    share: float | None = Field(default=None, description="share")
    whole: float = Field(default=1.0, description="number")
    kind: Literal["a", "b"] = Field(default="a", description="kind")
    place: Path = Field(default=Path("x"), description="place")
    sure: bool = Field(default=True, description="whether")


def changed(**attributes: Any) -> type[Method[Any]]:
    return type("Changed", (Plain,), attributes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": ""}, "has no name: set it"),
        ({"title": ""}, "has no title: set it"),
        ({"terms": {}}, "has no terms: set it"),
        ({"terms": {"loss": "all"}}, "called 'loss'.*rename the term"),
        ({"Settings": int}, "not a MethodSettings: derive them"),
        ({"Settings": Nested}, "have a group: put them all into one model"),
        ({"Settings": Undescribed}, "'rate' of Undescribed has no description"),
        ({"Settings": Taken}, "two settings 'epochs': rename one"),
    ],
)
def test_a_method_that_is_incomplete_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(DemurError, match=message):
        presets(changed(**attributes))


def test_a_method_without_a_loss_is_refused() -> None:
    class Half(Method[MethodSettings]):
        name = title = "half"
        terms: ClassVar = {"x": "y"}

    with pytest.raises(DemurError, match="'Half' is incomplete: define losses, prepare"):
        get_method(Half)


def test_the_preset_paper_is_for_methods_that_say_so() -> None:
    assert list(presets(Plain)) == ["standard", "quick", "thorough"]
    with pytest.raises(DemurError, match=r"'plain' has no preset 'paper': give --method dro or v"):
        make_plan(preset="paper", method=Plain)
    own = changed(presets={"standard": {"batch": 3}, "paper": {"epochs": 7}})
    found = make_plan(preset="paper", method=own).settings
    assert (found.training.epochs, found.training.batch, found.sampling.samples) == (7, 50, 25)
    assert make_plan(preset="quick", method=own).settings.training.batch == 3


def test_a_method_as_a_class_trains_a_prompt(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    run = optimize(
        model, **words, method=Plain, epochs=4, learning_rate=0.05, output=tmp_path / "run"
    )
    assert run.history[-1].terms["size"] < run.history[0].terms["size"]
    assert run.settings.method.terms[0].description == "mean square"
    assert run.settings.objects == ("harmful", "harmless", "method")
    assert run.readings() == ()
    assert [step.title for step in run.steps()] == [f"during epoch {n}" for n in (1, 2, 3, 4)]


def test_settings_of_every_kind_are_recorded(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    method = changed(Settings=Several)
    arguments = {**words, "epochs": 1, "output": tmp_path / "run", "method": method}
    run = optimize(model, **arguments, sizes=(3, 4, 5))
    stored = Run.load(tmp_path / "run").settings.settings.method_settings
    assert stored == run.settings.settings.method_settings
    expected = {"sizes": (3, 4, 5), "share": None, "whole": 1.0, "kind": "a", "place": "x"}
    assert stored.model_extra == {**expected, "sure": True}
    assert type((stored.model_extra or {})["whole"]) is float
    assert optimize(model, **arguments, sizes=(3, 4, 5)).results == run.results
    with pytest.raises(DemurError, match=r"another method settings\.sizes"):
        optimize(model, **arguments, sizes=(3, 4))


def test_terms_that_a_method_does_not_describe_are_an_error(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    def losses(self: Any, read: Read, rows: Any, batch: Any) -> Losses:
        size = read.representations.square().mean(1)
        return Losses(size, {"other": size})

    def one(self: Any, read: Read, rows: Any, batch: Any) -> Losses:
        size = read.representations.square().mean()
        return Losses(size, {"size": size})

    with pytest.raises(DemurError, match="returned the terms other but describes size"):
        optimize(model, **words, method=changed(losses=losses), output=tmp_path / "a")
    with pytest.raises(DemurError, match=r"returned 'loss' in the shape \(\) for 8 examples"):
        optimize(model, **words, method=changed(losses=one), output=tmp_path / "b")
    with pytest.raises(DemurError, match="found nothing to train on"):
        optimize(model, **words, method=changed(prepare=lambda *_: []), output=tmp_path / "c")


def test_a_loss_that_is_not_finite_ends_the_training(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    def losses(self: Any, read: Read, rows: Any, batch: Any) -> Losses:
        size = read.representations.square().mean(1) * float("inf")
        return Losses(size, {"size": size})

    with pytest.raises(DemurError, match=r"left the range of numbers in epoch 1 .*learning-rate"):
        optimize(model, **words, method=changed(losses=losses), output=tmp_path / "run")
    assert not list(tmp_path.glob("run/training/*"))


def test_the_settings_of_a_method_from_a_file_are_options() -> None:
    options = {option.name: option for option in options_in(settings_type(OWN))}
    assert options["weight_undesirable"].panel == "Method: vanilla prompt tuning"
    assert "components" not in options
    assert presets(OWN)["paper"].training.epochs == 5
    assert presets(OWN)["standard"].training == presets()["standard"].training
    assert presets(OWN)["quick"].method == OWN
    with pytest.raises(DemurError, match="--response-tokens 0: must be 1 or more"):
        OptimizeSettings.from_preset("quick", OWN, response_tokens=0)
    with pytest.raises(DemurError, match="no setting 'components'"):
        OptimizeSettings.from_preset("quick", OWN, components=3)


@pytest.mark.parametrize("method", [OWN, "vpt"])
def test_prompt_tuning_trains_a_prompt(
    model: ChatModel, words: dict[str, Any], tmp_path: Path, method: str
) -> None:
    """The paper's baseline, from a file of the user's own and built in."""
    run = optimize(
        model,
        **words,
        histories=0,
        applications=0,
        method=method,
        samples=2,
        epochs=6,
        learning_rate=0.02,
        weight_undesirable=0.5,
        output=tmp_path / "run",
    )
    losses = [epoch.loss for epoch in run.history]
    assert losses[-1] < losses[0] - 0.05
    for epoch in run.history:
        parts = epoch.terms["desirable"] + 0.5 * epoch.terms["undesirable"]
        assert epoch.loss == pytest.approx(parts, rel=1e-5)
    assert run.settings.method.title == "Vanilla prompt tuning"
    assert (run.settings.method.source is not None) == (method == OWN)
    assert run.settings.settings.method == method
    assert run.safety_prompt.provenance.method == "Vanilla prompt tuning"
    assert [one.title for one in run.readings()] == ["basic.txt", "none"]
    again = Run.load(tmp_path / "run")
    assert again.results == run.results
    assert again.settings == run.settings


@pytest.mark.parametrize("method", [OWN, "vpt"])
def test_the_loss_of_prompt_tuning_is_that_of_whole_conversations(
    model: ChatModel, words: dict[str, Any], tmp_path: Path, method: str
) -> None:
    """One step over all responses, against a plain forward pass of each conversation."""
    run = optimize(
        model,
        **(words | {"batch": 1000}),
        histories=0,
        applications=0,
        method=method,
        samples=2,
        epochs=1,
        weight_undesirable=5.0,
        output=tmp_path / "run",
    )
    sums = {True: 0.0, False: 0.0}
    counts = {True: 0, False: 0}
    basic = Condition(SafetyPrompt("basic", "w1 w2 w3 w4 w5 ."))
    reference = model.engine.model
    for reading in run.readings():
        for query, label, responses in zip(
            reading.measurement.queries.texts,
            reading.measurement.queries.labels,
            reading.measurement.responses,
            strict=True,
        ):
            assert isinstance(query, str)
            for one in responses:
                desirable = one.refused == (label == "harmful")
                if not one.response or (desirable and reading.title == "none"):
                    continue
                ids = model.target_ids(one.response)
                embeddings = conversation_embeddings(model, query, basic, ids)
                with torch.no_grad():
                    logits = reference(inputs_embeds=embeddings[None]).logits[0].double()
                likely = logits.log_softmax(-1)[-len(ids) - 1 : -1]
                p = likely[torch.arange(len(ids)), torch.tensor(ids)].exp()
                each = -p.log() if desirable else -(1 - p).clamp_min(1e-5).log()
                sums[desirable] += float(each.sum())
                counts[desirable] += len(ids)
    assert min(counts.values()) > 20
    wanted, unwanted = sums[True] / counts[True], sums[False] / counts[False]
    assert run.history[0].terms["desirable"] == pytest.approx(wanted, abs=1e-5)
    assert run.history[0].terms["undesirable"] == pytest.approx(unwanted, abs=1e-5)
    assert run.history[0].loss == pytest.approx(wanted + 5 * unwanted, abs=1e-5)


def test_the_method_in_the_docs_trains_a_prompt(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    docs = Path(__file__).parents[1] / "docs" / "method.md"
    (code,) = re.findall(r"```python\n(.*?)```", docs.read_text(), re.DOTALL)
    file = tmp_path / "mine.py"
    file.write_text(code)
    run = optimize(
        model,
        **words,
        method=f"{file}:Openings",
        opening="w5 w6",
        epochs=6,
        learning_rate=0.05,
        output=tmp_path / "run",
    )
    assert run.history[-1].loss < run.history[0].loss - 0.1
    assert inspect.getdoc(Method) is not None
    assert textwrap.indent(code.strip(), " " * 8) in str(inspect.getdoc(Method))


def test_a_changed_method_does_not_go_on_with_the_work_of_the_old_one(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    source = Path(OWN.rpartition(":")[0]).read_text()
    file.write_text(source)
    arguments = {**words, "method": f"{file}:PromptTuning", "epochs": 1, "output": tmp_path / "run"}
    optimize(model, **arguments)
    file.write_text(source.replace("1e-5", "1e-4"))
    with pytest.raises(DemurError, match="belongs to a run with another method source"):
        optimize(model, **arguments)


def test_a_method_reads_what_it_likes_of_the_logits(
    model: ChatModel, words: dict[str, Any], tmp_path: Path
) -> None:
    """A reader of its own takes the place of log-probabilities."""

    class Entropy(Plain):
        name = "entropy"
        terms: ClassVar = {"entropy": "entropy of the next token"}

        def prepare(self, context: Context) -> Sequence[TrainingExample]:
            ids = context.model.target_ids("w5 w6")
            return [replace(one, targets=(ids,)) for one in super().prepare(context)]

        def reader(self, batch: Sequence[int]) -> Callable[[Tensor, TargetTokens], Tensor]:
            def entropy(logits: Tensor, tokens: TargetTokens) -> Tensor:
                log_p = logits.log_softmax(-1)
                return -(log_p.exp() * log_p).sum(-1)

            return entropy

        def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
            mean = torch.stack([one.mean() for (one,) in read.by_target()])
            return Losses(mean, {"entropy": mean})

    run = optimize(
        model, **words, method=Entropy, epochs=5, learning_rate=0.05, output=tmp_path / "run"
    )
    assert 0 < run.history[-1].loss < run.history[0].loss - 0.01
