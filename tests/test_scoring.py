"""Scores of continuations are those of whole conversations, on every architecture and path."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from demur.chat import ChatModel, Condition
from demur.chat.engine import Engine, Inputs, Read, TargetTokens
from demur.chat.engine.packing import Packing
from demur.chat.rendering import ChatRenderer
from demur.errors import DemurError
from demur.prompts import SafetyPrompt
from tests.test_attention import attention, states, under_the_mask
from tests.test_engine import conversations, random_prompt
from tests.tiny import (
    ARCHITECTURES,
    CANNOT_SHARE,
    VOCABULARY,
    save_tiny_model,
    tiny_model,
    tiny_tokenizer,
)

LLAMA = "llama, grouped attention"
LENGTHS = ((4, 1, 6), (), (2,), (1,), (1, 1), (), (3, 3, 2, 5))
"""Tokens of the targets of seven conversations."""
MOST_APART = {"mamba, state-space": 1e-4}
"""How far a single log-probability may be off; 1e-5 on other architectures. Mamba's scan adds up
large numbers, in another order where conversations share a batch."""


def with_targets(seed: int = 0) -> Inputs:
    """Seven conversations with none, one or several continuations."""
    generator = random.Random(seed + 1)
    targets = tuple(
        tuple(
            tuple(generator.randrange(3, VOCABULARY) for _ in range(length)) for length in lengths
        )
        for lengths in LENGTHS
    )
    return replace(conversations(seed), targets=targets)


def alone(
    model: PreTrainedModel, inputs: Inputs, row: int, target: tuple[int, ...], prompt: Tensor
) -> tuple[Tensor, Tensor]:
    """A whole conversation the way a textbook would do it: hidden state, log-probabilities."""
    ids = torch.tensor([inputs.prefix + inputs.suffixes[row] + target])
    embeddings = model.get_input_embeddings()(ids)
    start, end = inputs.prompt_span or (0, 0)
    embeddings = torch.cat([embeddings[:, :start], prompt[None], embeddings[:, end:]], dim=1)
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, arguments: seen.append(arguments[0])
    )
    logits = model(inputs_embeds=embeddings, use_cache=False).logits[0]
    hook.remove()
    last = len(inputs.prefix) + len(inputs.suffixes[row]) - 1
    chosen = logits[last : last + len(target)].log_softmax(-1)
    return seen[0][0, last], chosen.gather(1, torch.tensor(target, dtype=torch.long)[:, None])[:, 0]


def one_by_one(model: PreTrainedModel, inputs: Inputs, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """All conversations alone: representations, and log-probabilities end to end."""
    hidden = [alone(model, inputs, row, (), prompt)[0] for row in range(len(inputs))]
    found = [
        alone(model, inputs, row, target, prompt)[1]
        for row in range(len(inputs))
        for target in inputs.targets[row]
    ]
    return torch.stack(hidden), torch.cat(found)


def apart(found: Tensor, expected: Tensor) -> float:
    """The relative difference: the norm of all differences by the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


@contextmanager
def on_path(engine: Engine, path: str, most_tokens: int) -> Iterator[None]:
    before = engine.shares_prefix, engine.most_read, engine.most_trained
    engine.most_read = engine.most_trained = most_tokens
    if path == "plain":
        engine.shares_prefix = False
    try:
        yield
    finally:
        engine.shares_prefix, engine.most_read, engine.most_trained = before


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def named_engine(request: pytest.FixtureRequest) -> tuple[str, Engine]:
    return request.param, Engine(tiny_model(request.param), tiny_tokenizer())


@pytest.mark.parametrize("path", ["chosen", "plain"])
@pytest.mark.parametrize("most_tokens", [4096, 20])
def test_scores_are_those_of_whole_conversations(
    named_engine: tuple[str, Engine], path: str, most_tokens: int
) -> None:
    name, engine = named_engine
    inputs, prompt = with_targets(), random_prompt()
    hidden, expected = one_by_one(engine.model, inputs, prompt)
    with on_path(engine, path, most_tokens):
        read = engine.score(inputs, prompt)
    assert apart(read.representations, hidden) < 1e-5
    assert apart(read.token_values, expected) < 1e-5
    assert float((read.token_values - expected).abs().max()) < MOST_APART.get(name, 1e-5)
    nested = read.by_target()
    assert tuple(tuple(map(len, some)) for some in nested) == LENGTHS
    assert torch.equal(torch.cat([one for some in nested for one in some]), read.token_values)


@pytest.mark.parametrize("path", ["chosen", "plain"])
@pytest.mark.parametrize("most_tokens", [4096, 20])
@pytest.mark.parametrize("kind", ["both", "targets"])
def test_gradients_are_those_of_whole_conversations(
    named_engine: tuple[str, Engine], path: str, most_tokens: int, kind: str
) -> None:
    _, engine = named_engine
    inputs = with_targets()
    generator = torch.Generator().manual_seed(4)
    goal = torch.randn(len(inputs), 32, generator=generator)
    weights = torch.randn(sum(map(sum, LENGTHS)), generator=generator)
    weight = 0.1 if kind == "both" else 0.0

    def loss(read: Read, rows: list[int]) -> Tensor:
        moved = weight * (read.representations - goal[rows]).square().sum()
        likely = (weights[read.tokens.numbers] * read.token_values).sum()
        return (moved if weight else 0) + likely

    prompt = random_prompt().requires_grad_()
    hidden, scores = one_by_one(engine.model, inputs, prompt)
    expected_loss = weight * (hidden - goal).square().sum() + (weights * scores).sum()
    (expected,) = torch.autograd.grad(expected_loss, prompt)
    with on_path(engine, path, most_tokens):
        found_loss, found = engine.prompt_gradient(inputs, prompt, loss)
    assert found_loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert apart(found, expected) < 1e-5


def test_the_shared_path_serves_where_it_can(named_engine: tuple[str, Engine]) -> None:
    name, engine = named_engine
    runs: list[int] = []

    def count(_module: object, _args: object, kwargs: dict[str, Tensor | None]) -> None:
        embeddings = kwargs.get("inputs_embeds")
        if embeddings is not None:
            runs.append(embeddings.shape[0] * embeddings.shape[1])

    inputs = with_targets()
    hook = engine.model.register_forward_pre_hook(count, with_kwargs=True)
    engine.score(inputs, random_prompt())
    hook.remove()
    once = len(inputs.prefix) + len(inputs.row_tokens())
    if name in CANNOT_SHARE or "linear biases" in name or inputs.longest > engine._window:
        assert sum(runs) > once
    else:
        assert sum(runs) == once


def test_a_loss_that_reads_nothing_of_a_part_is_no_error() -> None:
    engine = Engine(tiny_model(LLAMA), tiny_tokenizer())
    inputs = with_targets()
    engine.most_trained = 1

    def loss(read: Read, rows: list[int]) -> Tensor:
        return -read.token_values.sum()

    value, gradient = engine.prompt_gradient(inputs, random_prompt(), loss)
    assert value > 0
    assert gradient.norm() > 0
    nothing, zeros = engine.prompt_gradient(inputs.without_targets(), random_prompt(), loss)
    assert nothing == 0
    assert torch.equal(zeros, torch.zeros_like(gradient))


def test_prompt_tuning_is_a_loss_of_a_few_lines() -> None:
    """Mean of -log p over desirable tokens, and of -log max(1 - p, 1e-5) over the others."""
    engine = Engine(tiny_model(LLAMA), tiny_tokenizer())
    inputs, prompt = with_targets(), random_prompt().requires_grad_()
    desirable = torch.tensor([True, False, True, False, True, True, False])
    which = torch.tensor([row for row, some in enumerate(LENGTHS) for _ in range(sum(some))])
    good, bad = int(desirable[which].sum()), int((~desirable[which]).sum())

    def terms(log_p: Tensor, wanted: Tensor) -> Tensor:
        unlikely = (1 - log_p[~wanted].exp()).clamp(min=1e-5).log()
        return -log_p[wanted].sum() / good - unlikely.sum() / bad

    def loss(read: Read, rows: list[int]) -> Tensor:
        return terms(read.token_values, desirable[read.tokens.queries])

    _, scores = one_by_one(engine.model, inputs, prompt)
    expected_loss = terms(scores, desirable[which])
    (expected,) = torch.autograd.grad(expected_loss, prompt)
    for most_tokens in (4096, 20):
        engine.most_trained = most_tokens
        found_loss, found = engine.prompt_gradient(inputs, prompt, loss)
        assert found_loss == pytest.approx(expected_loss.item(), rel=1e-5)
        assert apart(found, expected) < 1e-5


# --- The head ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LLAMA, "gemma2, soft-capping, sliding window", "opt"])
def test_logits_are_computed_for_a_few_positions_at_a_time(name: str) -> None:
    (name,) = [one for one in ARCHITECTURES if one.startswith(name)]
    engine = Engine(tiny_model(name), tiny_tokenizer())
    inputs, prompt = with_targets(), random_prompt()
    whole = engine.score(inputs, prompt).token_values

    def loss(read: Read, rows: list[int]) -> Tensor:
        return -read.token_values.sum()

    _, gradient = engine.prompt_gradient(inputs, prompt, loss)
    positions: list[int] = []
    hook = engine.model.get_output_embeddings().register_forward_hook(
        lambda _module, _arguments, output: positions.append(output.numel() // VOCABULARY)
    )
    engine.head.positions = 3
    torch.testing.assert_close(engine.score(inputs, prompt).token_values, whole)
    _, again = engine.prompt_gradient(inputs, prompt, loss)
    hook.remove()
    assert max(positions) == 3
    assert sum(positions) == 2 * len(whole)  # none is computed twice, not even for a gradient
    assert apart(again, gradient) < 1e-5


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    engine = Engine(tiny_model(LLAMA), tiny_tokenizer())
    inputs = with_targets()
    engine.head.positions = 2
    weights = {one.untyped_storage().data_ptr() for one in engine.model.parameters()}
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        own = tensor.untyped_storage().data_ptr() not in weights
        if own and tensor.shape[-1:] == (VOCABULARY,):
            kept.append(tensor.numel() // VOCABULARY)
        return tensor

    def loss(read: Read, rows: list[int]) -> Tensor:
        return read.token_values.sum()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        engine.prompt_gradient(inputs, random_prompt(), loss)
    assert set(kept) <= {1, 2}  # those of two positions, while their gradient is computed


def test_the_layers_do_not_run_again_for_the_head(named_engine: tuple[str, Engine]) -> None:
    name, engine = named_engine
    hidden = engine.represent(conversations(), random_prompt())
    tokens: list[int] = []
    layers = [
        module
        for module in engine.model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == 2
    ]
    hook = layers[0][0].register_forward_pre_hook(
        lambda _module, arguments: tokens.append(arguments[0].shape[1])
    )
    logits = engine.next_token_logits(hidden)
    hook.remove()
    assert logits.shape == (7, VOCABULARY)
    assert tokens == ([1] if name.startswith("opt") else [])


def test_a_reader_may_read_something_else() -> None:
    """Two numbers a token: a log-probability, and the divergence from stored distributions."""
    engine = Engine(tiny_model(LLAMA), tiny_tokenizer())
    inputs, prompt = with_targets(), random_prompt().requires_grad_()
    count = sum(map(sum, LENGTHS))

    def distribution(logits: Tensor, tokens: TargetTokens) -> Tensor:
        return logits.log_softmax(-1)

    reference = engine.score(inputs, random_prompt(32) * 0.5, distribution).token_values
    assert reference.shape == (count, VOCABULARY)

    def both(logits: Tensor, tokens: TargetTokens) -> Tensor:
        own = logits.log_softmax(-1)
        before = reference[tokens.numbers]
        divergence = (before.exp() * (before - own)).sum(-1)
        return torch.stack([own.gather(1, tokens.ids[:, None])[:, 0], divergence], dim=1)

    def loss(read: Read, rows: list[int]) -> Tensor:
        assert read.token_values.shape[1:] == (2,)
        return (read.token_values[:, 1] - 0.3 * read.token_values[:, 0]).sum()

    rows = [(row, target) for row, some in enumerate(inputs.targets) for target in some]
    start, expected_loss = 0, torch.zeros(())
    for row, target in rows:
        ids = inputs.prefix + inputs.suffixes[row] + target
        embeddings = engine.model.get_input_embeddings()(torch.tensor([ids]))
        embeddings = torch.cat([embeddings[:, :2], prompt[None], embeddings[:, 7:]], dim=1)
        own = engine.model(inputs_embeds=embeddings).logits[0].log_softmax(-1)
        own = own[-len(target) - 1 : -1]
        before = reference[start : start + len(target)]
        start += len(target)
        expected_loss = expected_loss + (before.exp() * (before - own)).sum()
        chosen = own.gather(1, torch.tensor(target)[:, None])
        expected_loss = expected_loss - 0.3 * chosen.sum()
    (expected,) = torch.autograd.grad(expected_loss, prompt)
    for most_tokens in (4096, 20):
        engine.most_trained, engine.head.positions = most_tokens, 4
        found_loss, found = engine.prompt_gradient(inputs, prompt, loss, both)
        assert found_loss == pytest.approx(expected_loss.item(), rel=1e-5)
        assert apart(found, expected) < 1e-5


def test_a_reader_of_another_shape_is_an_error() -> None:
    engine = Engine(tiny_model(LLAMA), tiny_tokenizer())
    with pytest.raises(ValueError, match="a token reader returned"):
        engine.score(with_targets(), random_prompt(), lambda logits, _: logits.sum())


# --- Inputs and packing -----------------------------------------------------------------------


def test_tokens_say_where_they_belong() -> None:
    inputs = with_targets()
    rows = [6, 0, 1]
    tokens = TargetTokens.of(inputs, rows)
    assert len(tokens) == 13 + 11
    whole = TargetTokens.of(inputs, range(7))
    assert whole.numbers.tolist() == list(range(len(whole)))
    for place in range(len(tokens)):
        query, target, step = (
            int(column[place]) for column in (tokens.queries, tokens.targets, tokens.steps)
        )
        assert inputs.targets[query][target][step] == tokens.ids[place]
        assert whole.ids[tokens.numbers[place]] == tokens.ids[place]
        assert whole.queries[tokens.numbers[place]] == query


def test_targets_that_cannot_be_scored_are_errors() -> None:
    inputs = conversations()
    with pytest.raises(ValueError, match="no tokens"):
        replace(inputs, targets=((((),)),) + ((),) * 6)
    with pytest.raises(ValueError, match="1 lists of targets for 7 conversations"):
        replace(inputs, targets=(((5,),),))


@pytest.mark.parametrize(("prefix", "inside"), [(0, False), (7, False), (7, True)])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("most_scores", [2**21, 700])
def test_attention_of_branches_is_attention_under_the_mask(
    prefix: int, inside: bool, heads: tuple[int, int], most_scores: int
) -> None:
    lengths, branches = (3, 9, 1, 6, 8), ((), (2, 4), (), (3,), (1, 0, 2, 4))
    packing = Packing(prefix, lengths, inside, branches)
    total = prefix + sum(lengths)
    row = total if inside else sum(lengths)
    query, key = states(heads[0], row, 8, seed=0), states(heads[1], total, 8, seed=1)
    value = states(heads[1], total, 5, seed=2)
    wanted = torch.randn(heads[0], row, 5, generator=torch.Generator().manual_seed(3))
    expected = under_the_mask(query, key, value, packing)
    found = attention(query, key, value, packing, most_scores=most_scores)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (query, key, value), wanted),
        torch.autograd.grad(expected, (query, key, value), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_branch_sees_its_suffix_and_itself() -> None:
    packing = Packing(1, (4, 1), inside=True, branches=((1, 2), ()))
    assert packing.position_ids.tolist() == [[0, 1, 2, 2, 3, 1]]
    assert packing.ends.tolist() == [1, 5]
    assert packing.reads.tolist() == [1, 5, 2, 3, 4]
    assert packing.visible[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]


# --- Texts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


QUERIES = ["w20 w21 w22", "w30", "w40 w41"]
BASIC = SafetyPrompt("basic", "w50 w51 w52 w53")
PROMPT = Condition(BASIC)


def test_texts_are_scored_as_whole_conversations_are(model: ChatModel) -> None:
    targets: list[list[str | list[int]]] = [["w7 w8 w9", [40, 41]], [], ["w10"]]
    read = model.score(QUERIES, targets, PROMPT)
    tokenizer, network = model.engine.tokenizer, model.engine.model
    for query, some, found in zip(QUERIES, targets, read.by_target(), strict=True):
        assert len(found) == len(some)
        opening = model.conversation(query, PROMPT).token_ids
        for target, values in zip(some, found, strict=True):
            answer = tokenizer.encode(target) if isinstance(target, str) else target
            logits = network(torch.tensor([[*opening, *answer]])).logits[0]
            chosen = logits.log_softmax(-1)[len(opening) - 1 : -1]
            expected = chosen.gather(1, torch.tensor(answer)[:, None])[:, 0]
            assert apart(values, expected) < 1e-5
    torch.testing.assert_close(read.representations, model.represent(QUERIES, PROMPT))


def test_the_probabilities_of_all_answers_of_one_token_come_to_one(model: ChatModel) -> None:
    every = [[token] for token in range(VOCABULARY)]
    read = model.score(QUERIES, [every] * 3, PROMPT)
    for some in read.by_target():
        assert float(torch.cat(some).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_trained_rows_learn_an_answer(model: ChatModel) -> None:
    rows, ids = model.prompt_embeddings(BASIC), [[model.target_ids("w7 w8")]] * 3

    def loss(read: Read, places: list[int]) -> Tensor:
        return -read.token_values.sum() / 6

    losses = []
    for _ in range(12):
        value, gradient = model.prompt_gradient(QUERIES, PROMPT, rows, loss, ids)
        losses.append(value)
        rows = rows - 0.3 * gradient / gradient.norm()
    assert losses[-1] < losses[0] - 0.5
    trained = Condition(SafetyPrompt("trained", BASIC.text, rows))
    before = model.score(QUERIES, ids, PROMPT).token_values.mean()
    after = model.score(QUERIES, ids, trained).token_values.mean()
    assert after > before + 0.5
    assert float(before) == pytest.approx(-losses[0], rel=1e-4)


def test_plain_text_never_becomes_a_special_token(model: ChatModel) -> None:
    ids = model.target_ids("w7 </s> w8")
    assert 2 not in ids
    assert ids[0] == model.engine.tokenizer.encode("w7")[0]
    assert ids[-1] == model.engine.tokenizer.encode("w8")[0]


def test_answers_are_tokenized_as_the_template_writes_them() -> None:
    """Where the template puts a space before an answer, the space is in its first token."""
    backend = Tokenizer(models.WordLevel({"\u2581Yes": 3, "Yes": 4, "\u2581": 5, "[": 6}, "["))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[")
    turn = "{% for m in messages %}{{ '[' + m.content if m.role == 'user' else GAP + m.content }}"
    for gap, first in (("' '", 3), ("''", 4)):
        template = turn.replace("GAP", gap) + "{% if m.role == 'user' %}]{% endif %}{% endfor %}"
        tokenizer.chat_template = template
        renderer = ChatRenderer(tokenizer)
        assert renderer.answer_ids("Yes") == (first,)
        assert renderer.answer_ids(" Yes") == (3,)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([["w7"]], "There are 1 lists of targets for 3 queries"),
        ([["w7"], [[]], []], "A target has no tokens"),
        ([["w7"], [" "], []], "The answer is empty"),
        ([["w7"], [[VOCABULARY]], []], "give ids from 0 to 95"),
        ([["w7"], [[7] * 300], []], "The query .w30. has .* its answer may have 300"),
    ],
)
def test_targets_are_checked(model: ChatModel, targets: Any, message: str) -> None:
    with pytest.raises(DemurError, match=message):
        model.score(QUERIES, targets, PROMPT)
