"""The method `likelihood`: mined openings, the scored probability of refusal, the penalty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from demur import ChatModel, DemurError, Run, SafetyPrompt, optimize
from demur.chat.embeddings import conversation_embeddings
from demur.optimization.methods import get_method
from demur.optimization.openings import mine_openings, sampled_openings
from demur.prompts import Condition
from tests.each_method import Even
from tests.tiny import save_tiny_model

BASIC = "w1 w2 w3 w4 w5 ."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "basic.txt").write_text(BASIC)
    return {
        "method": "likelihood",
        "judge": Even(),
        "basic_prompt": tmp_path / "basic.txt",
        "harmful": [f"w{10 + row % 40} w7 w{row} ?" for row in range(12)],
        "harmless": [f"w{10 + row % 40} w8 w{row} ?" for row in range(12)],
        "samples": 2,
        "tokens": 4,
        "validation_harmful": [f"w{10 + row % 40} w7 w{row} w3 ?" for row in range(10)],
        "validation_harmless": [f"w{10 + row % 40} w8 w{row} w3 ?" for row in range(10)],
        "most_held_out": 10,
        "opening_tokens": 2,
        "weight_harmless": 1,
        "histories": 0,
        "applications": 0,
        "output": tmp_path / "run",
    }


def whole(model: ChatModel, query: str, condition: Condition, ids: Sequence[int]) -> Tensor:
    """(t, V) log-probabilities along a continuation, from a plain pass over the conversation."""
    embeddings = conversation_embeddings(model, query, condition, ids)
    with torch.no_grad():
        logits = model.engine.model(inputs_embeds=embeddings[None]).logits[0].double()
    likely: Tensor = logits.log_softmax(-1)[-len(ids) - 1 : -1]
    return likely


def openings_of(run: Run, model: ChatModel, most: int) -> tuple[tuple[int, ...], ...]:
    samples = [
        sample for one in run.readings() for sample in sampled_openings(model, one.measurement, 2)
    ]
    return mine_openings(samples, most, 2).ids


def refusal(model: ChatModel, query: str, condition: Condition, openings: Any) -> float:
    """The sum of the probabilities of all openings."""
    total = 0.0
    for ids in openings:
        likely = whole(model, query, condition, ids)
        total += float(likely[torch.arange(len(ids)), torch.tensor(ids)].sum().exp())
    return total


def drawn(model: ChatModel, query: str, condition: Condition, openings: Any, **how: float) -> float:
    """The sum of the probabilities with which the openings are sampled."""
    total = 0.0
    for ids in openings:
        one = 1.0
        for row, token in zip(whole(model, query, condition, ids), ids, strict=True):
            if not how["temperature"]:
                one *= float(row.argmax() == token)
                continue
            ranked = sorted((row / how["temperature"]).softmax(0).tolist(), reverse=True)
            likeliest = ranked[: int(how["top_k"])]
            before = [sum(likeliest[:place]) / sum(likeliest) for place in range(len(likeliest))]
            nucleus = [
                p
                for p, sum_before in zip(likeliest, before, strict=True)
                if sum_before < how["top_p"]
            ]
            p = float((row / how["temperature"]).softmax(0)[token])
            one *= p / sum(nucleus) if p >= nucleus[-1] else 0.0
        total += one
    return total


def own_distribution(
    model: ChatModel, query: str, ids: Sequence[int], openings: Any
) -> tuple[Tensor, Tensor]:
    """(t, k) tokens and log-probabilities without a prompt, given that no opening follows.

    A distribution over all continuations, from which those that begin with an opening are taken.
    """
    q = whole(model, query, Condition(), ids)
    top = q.topk(64).indices
    q = q.exp()
    for step in range(len(ids)):
        left = 1.0
        for opening in openings:
            rest = opening[step:]
            if tuple(opening[:step]) != tuple(ids[:step]) or not rest:
                continue
            along = whole(model, query, Condition(), [*ids[:step], *rest])[step:]
            mass = float(along[torch.arange(len(rest)), torch.tensor(rest)].sum().exp())
            q[step, rest[0]] = max(0.0, float(q[step, rest[0]]) - mass)
            left -= mass
        q[step] /= left
    return top, q.gather(1, top)


@pytest.mark.parametrize("focus", [0, 1, 2.5])
def test_the_loss_is_that_of_whole_conversations(
    model: ChatModel, arguments: dict[str, Any], focus: float
) -> None:
    """One step over all queries, against a plain forward pass of each conversation."""
    run = optimize(
        model, **arguments, epochs=1, batch=1000, openings=5, answer_tokens=3, focus=focus
    )
    basic = Condition(SafetyPrompt("basic", BASIC))
    openings = openings_of(run, model, 5)
    unprompted = next(one for one in run.readings() if one.title == "none").measurement
    assert len(openings) == 5
    sums, answered = {"harmful": 0.0, "harmless": 0.0, "answer": 0.0}, 0
    focused = 0.0
    for query, label, responses in zip(
        unprompted.queries.texts, unprompted.queries.labels, unprompted.responses, strict=True
    ):
        assert isinstance(query, str)
        probability = refusal(model, query, basic, openings)
        if label == "harmful":
            loss = -torch.tensor(probability).log().item()
            sums["harmful"] += loss
            focused += loss * (1 - probability) ** focus
            continue
        sums["harmless"] -= torch.tensor((1 - probability + 1e-3) / (1 + 1e-3)).log().item()
        own = [one.response for one in responses if one.refused is False and one.response.strip()]
        if own:
            answered += 1
            ids = model.target_ids(own[0])[:3]
            top, q = own_distribution(model, query, ids, openings)
            p = whole(model, query, basic, ids).gather(1, top).exp()
            rest_q, rest_p = (1 - q.sum(1)).clamp_min(1e-6), 1 - p.sum(1)
            inside = torch.where(q > 0, q * (q / p).log(), 0.0).sum(1)
            sums["answer"] += float((inside + rest_q * (rest_q / rest_p).log()).mean())
    assert answered > 3
    count = len(unprompted.queries)
    found = run.history[0]
    for name, total in sums.items():
        assert found.terms[name] == pytest.approx(total / count, rel=1e-4, abs=1e-5)
    total = focused + sums["harmless"] + sums["answer"]
    assert found.loss == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 1.0, "top_k": 50, "top_p": 0.9},
        {"temperature": 0.5, "top_k": 20, "top_p": 0.6},
        {"temperature": 0.0, "top_k": 50, "top_p": 0.9},
    ],
    ids=["the default", "narrow", "greedy"],
)
def test_validation_is_scored_as_responses_are_sampled_and_chooses_the_epoch(
    model: ChatModel, arguments: dict[str, Any], how: dict[str, Any]
) -> None:
    run = optimize(
        model,
        **arguments,
        epochs=4,
        learning_rate=0.05,
        remine_every=0,
        benign_budget=0.5,
        openings=8,
        **how,
    )
    validations = [one.validation for one in run.history]
    openings = openings_of(run, model, 8)
    last = run.history[-1].validation
    epoch = run.results.epoch
    assert last is not None
    assert epoch is not None
    for label in ("harmful", "harmless"):
        texts = arguments[f"validation_{label}"]
        stored = run.prompt_after(len(run.history))
        scored = [drawn(model, one, Condition(stored), openings, **how) for one in texts]
        assert getattr(last, label) == pytest.approx(sum(scored) / len(scored), rel=1e-4)
    best = validations[epoch - 1]
    assert best is not None
    assert best.value(0.5) == max(one.value(0.5) for one in validations if one is not None)
    assert run.safety_prompt.embeddings is not None
    chosen = run.prompt_after(epoch).embeddings
    assert chosen is not None
    assert torch.equal(run.safety_prompt.embeddings, chosen)


@pytest.mark.parametrize(("budget", "factor"), [(0.9, 0.5**0.5), (0.001, 2**0.5)])
def test_harmless_queries_weigh_more_while_too_many_are_refused(
    model: ChatModel, arguments: dict[str, Any], budget: float, factor: float
) -> None:
    run = optimize(
        model, **arguments, epochs=4, remine_every=0, benign_budget=budget, focus=0, answer_tokens=0
    )
    weights = [
        (one.loss - one.terms["harmful"]) / one.terms["harmless"]
        for one in run.history
        if one.validation is not None
    ]
    assert weights == pytest.approx([factor**epoch for epoch in range(4)], rel=1e-3)


def test_it_moves_refusals_to_where_they_belong(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    run = optimize(model, **arguments, epochs=8, learning_rate=0.05, remine_every=0)
    first, last = run.history[0].terms, run.history[-1].terms
    assert last["harmful"] + last["harmless"] < first["harmful"] + first["harmless"] - 0.1


def test_the_penalty_holds_the_answers(model: ChatModel, arguments: dict[str, Any]) -> None:
    changed = {}
    for weight in (0.0, 20.0):
        output = arguments["output"].with_name(f"run-{weight}")
        run = optimize(
            model,
            **{**arguments, "output": output},
            epochs=6,
            learning_rate=0.05,
            weight_answer=weight,
        )
        changed[weight] = run.history[-1].terms["answer"]
    assert changed[20.0] < changed[0.0] / 2


def test_openings_are_mined_again_and_the_same_after_an_interruption(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = optimize(model, **arguments, epochs=3, learning_rate=0.05)
    assert len(undisturbed.steps()) > 0
    again = {**arguments, "output": arguments["output"].with_name("again")}
    method = get_method("likelihood")
    own, calls = method.after_epoch, []

    def interrupted(self: Any, context: Any, epoch: int, prompt: Condition, validation: Any) -> Any:
        found = own(self, context, epoch, prompt, validation)
        calls.append(epoch)
        if calls == [1, 2]:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(method, "after_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimize(model, **again, epochs=3, learning_rate=0.05)
    run = optimize(model, **again, epochs=3, learning_rate=0.05)
    assert calls == [1, 2, 1, 2]
    assert run.safety_prompt.embeddings is not None
    assert undisturbed.safety_prompt.embeddings is not None
    assert torch.equal(run.safety_prompt.embeddings, undisturbed.safety_prompt.embeddings)


def test_a_model_that_never_refuses_cannot_be_trained(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    class Never(Even):
        name = fingerprint = "never"

        def judge(
            self, queries: Sequence[str | None], responses: Sequence[str], progress: object = None
        ) -> list[bool | None]:
            return [False] * len(responses)

    with pytest.raises(DemurError, match="refuses almost none of the queries"):
        optimize(model, **{**arguments, "judge": Never()}, epochs=1)
