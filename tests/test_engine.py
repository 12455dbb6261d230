"""The engine gives what the plain path gives, on every architecture."""

from __future__ import annotations

import inspect
import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from demur.chat.engine import Engine, Inputs, Read, SamplingSettings
from demur.chat.engine.buckets import halving, length_buckets
from demur.chat.engine.sampler import draw
from tests.tiny import ARCHITECTURES, CANNOT_SHARE, VOCABULARY, tiny_model, tiny_tokenizer

PREFIX, ROWS = 12, 5
QUERIES = [f"query {row}" for row in range(7)]


def conversations(seed: int = 0) -> Inputs:
    """Seven conversations of different lengths; the prompt stands at 2 to 7."""
    generator = random.Random(seed)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(generator.randrange(3, VOCABULARY) for _ in range(length))

    lengths = (3, 9, 1, 6, 6, 2, 12)
    return Inputs(tokens(PREFIX), tuple(tokens(length) for length in lengths), (2, 2 + ROWS))


def plain_hidden(model: PreTrainedModel, inputs: Inputs, row: int, prompt: Tensor) -> Tensor:
    """One conversation alone, all positions, the way a textbook would do it."""
    ids = torch.tensor([inputs.prefix + inputs.suffixes[row]])
    embeddings = model.get_input_embeddings()(ids)
    start, end = inputs.prompt_span or (0, 0)
    embeddings = torch.cat([embeddings[:, :start], prompt[None], embeddings[:, end:]], dim=1)
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, arguments: seen.append(arguments[0])
    )
    model(inputs_embeds=embeddings, use_cache=False)
    hook.remove()
    return seen[0][0, -1]


def random_prompt(width: int = 32) -> Tensor:
    return torch.randn(ROWS, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def named_engine(request: pytest.FixtureRequest) -> tuple[str, Engine]:
    return request.param, Engine(tiny_model(request.param), tiny_tokenizer())


def test_shares_the_prefix_where_it_can(named_engine: tuple[str, Engine]) -> None:
    name, engine = named_engine
    if name in CANNOT_SHARE:
        assert not engine.shares_prefix
    elif "linear biases" not in name:
        assert engine.shares_prefix


def test_representations_are_those_of_the_plain_path(named_engine: tuple[str, Engine]) -> None:
    _, engine = named_engine
    inputs, prompt = conversations(), random_prompt()
    expected = torch.stack(
        [plain_hidden(engine.model, inputs, row, prompt) for row in range(len(inputs))]
    )
    found = engine.represent(inputs, prompt)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    engine.most_read = 13
    torch.testing.assert_close(engine.represent(inputs, prompt), expected, rtol=1e-4, atol=1e-4)
    engine.most_read = 4096


def test_gradient_is_that_of_the_plain_path(named_engine: tuple[str, Engine]) -> None:
    _, engine = named_engine
    inputs = conversations()
    target = torch.randn(len(inputs), 32, generator=torch.Generator().manual_seed(4))

    def distance(representations: Tensor, rows: list[int]) -> Tensor:
        return (representations - target[rows]).square().sum() / len(inputs)

    def loss(read: Read, rows: list[int]) -> Tensor:
        return distance(read.representations, rows)

    prompt = random_prompt().requires_grad_()
    hidden = torch.stack(
        [plain_hidden(engine.model, inputs, row, prompt) for row in range(len(inputs))]
    )
    expected_loss = distance(hidden, list(range(len(inputs))))
    (expected,) = torch.autograd.grad(expected_loss, prompt)
    for most_tokens in (4096, 20):
        engine.most_trained = most_tokens
        found_loss, found = engine.prompt_gradient(inputs, prompt, loss)
        assert found_loss == pytest.approx(expected_loss.item(), rel=1e-5)
        assert float((found - expected).norm() / expected.norm()) < 1e-5
    engine.most_trained = 4096


def test_greedy_samples_are_those_of_generate(named_engine: tuple[str, Engine]) -> None:
    name, engine = named_engine
    inputs, settings = conversations(), SamplingSettings(most_tokens=6, temperature=0)
    reading = engine.read_and_sample(inputs, QUERIES, settings)
    engine.slots = 3
    again = engine.read_and_sample(inputs, QUERIES, settings)
    engine.slots = 256
    assert again.samples == reading.samples
    generate: Any = engine.model.generate
    for row in range(len(inputs)):
        ids = torch.tensor([inputs.prefix + inputs.suffixes[row]])
        output = generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
        )
        expected = engine.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        assert reading.samples[row][0].text == expected, name


def test_samples_do_not_depend_on_the_batch() -> None:
    engine = Engine(tiny_model("llama, grouped attention"), tiny_tokenizer())
    inputs, settings = conversations(), SamplingSettings(samples=3, most_tokens=8, seed=5)
    together = engine.read_and_sample(inputs, QUERIES, settings).samples
    engine.slots = 2
    in_turn = engine.read_and_sample(inputs, QUERIES, settings).samples
    assert in_turn == together
    alone = [
        engine.read_and_sample(inputs.select([row]), [QUERIES[row]], settings).samples[0]
        for row in range(len(inputs))
    ]
    assert alone == together
    engine.shares_prefix = False
    assert engine.read_and_sample(inputs, QUERIES, settings).samples == together
    other = engine.read_and_sample(inputs, QUERIES, SamplingSettings(3, 8, seed=6)).samples
    assert other != together


def test_limits_and_settling_end_a_response() -> None:
    engine = Engine(tiny_model("llama, grouped attention"), tiny_tokenizer())
    inputs = conversations()
    settings = SamplingSettings(most_tokens=8, least_tokens=8)
    limits = [1, 2, 3, 4, 5, 6, 7]
    limited = engine.read_and_sample(inputs, QUERIES, settings, limits=limits).samples
    assert [sample.tokens for (sample,) in limited] == limits
    assert {sample.end for (sample,) in limited} == {"length"}
    settled = engine.read_and_sample(
        inputs, QUERIES, settings, settled=lambda text: len(text.split()) >= 2
    ).samples
    full = engine.read_and_sample(inputs, QUERIES, settings).samples
    for (short,), (whole,) in zip(settled, full, strict=True):
        assert short.end == "settled"
        assert whole.text.startswith(short.text)
        assert short.tokens < whole.tokens == 8


@pytest.mark.filterwarnings("error::FutureWarning")
def test_the_cache_goes_in_under_the_name_that_the_model_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(tiny_model("llama, grouped attention"), tiny_tokenizer())
    inputs, prompt = conversations(), random_prompt()
    expected = engine.represent(inputs, prompt)
    named: list[bool] = []
    forward = engine.model.forward
    old = "past_key_values" in inspect.signature(forward).parameters

    def renamed(
        inputs_embeds: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool = False,
    ) -> Any:
        named.append(cache is not None)
        return forward(
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            attention_mask=attention_mask,
            use_cache=use_cache,
            **{"past_key_values" if old else "cache": cache},
        )

    monkeypatch.setattr(engine.model, "forward", renamed)
    torch.testing.assert_close(engine.represent(inputs, prompt), expected)
    assert any(named)


def test_next_token_logits_include_what_follows_the_head() -> None:
    engine = Engine(tiny_model("gemma2, soft-capping, sliding window"), tiny_tokenizer())
    inputs = conversations().select([1])
    ids = torch.tensor([inputs.prefix + inputs.suffixes[0]])
    expected = engine.model(ids).logits[0, -1]
    found = engine.next_token_logits(engine.represent(inputs))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    engine = Engine(tiny_model("llama, grouped attention"), tiny_tokenizer())
    inputs, prompt = conversations(), random_prompt()
    expected = engine.represent(inputs, prompt)
    sizes: list[int] = []

    def crowded(_module: object, _args: object, kwargs: dict[str, Tensor]) -> None:
        rows, tokens = kwargs["inputs_embeds"].shape[:2]
        if rows * tokens > 24:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        sizes.append(rows * tokens)

    hook = engine.model.register_forward_pre_hook(crowded, with_kwargs=True)
    torch.testing.assert_close(engine.represent(inputs, prompt), expected, rtol=1e-4, atol=1e-4)
    hook.remove()
    assert engine.most_read < 4096
    assert max(sizes) <= 24


def test_halving_gives_up_on_other_errors() -> None:
    def broken(_amount: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        halving(broken, 64)


def test_buckets_cover_every_sequence_and_keep_the_limit() -> None:
    generator = random.Random(0)
    lengths = [generator.randrange(1, 60) for _ in range(200)]
    buckets = length_buckets(lengths, most_tokens=500)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(200))
    padded = [len(bucket) * max(lengths[index] for index in bucket) for bucket in buckets]
    assert max(padded) <= 500
    assert sum(padded) < 1.15 * sum(lengths)


def test_draw_follows_the_filtered_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, -torch.inf]])
    settings = SamplingSettings(top_k=3, top_p=0.95)
    uniforms = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    drawn = draw(logits.expand(20_000, -1), uniforms, settings)
    counts = torch.bincount(drawn, minlength=5).double() / 20_000
    kept = torch.tensor([3.0, 2.0, 1.0]).softmax(0)  # top 3, of which 0.67 + 0.24 < 0.95
    expected = torch.tensor([0.0, kept[2], kept[1], kept[0], 0.0], dtype=torch.float64)
    torch.testing.assert_close(counts, expected, atol=1e-3, rtol=0)
    narrow = draw(logits.expand(100, -1), uniforms[::200], SamplingSettings(top_k=3, top_p=0.6))
    assert set(narrow.tolist()) == {3}
