"""Recorded steps sample what steps sample, whatever was sampled in the same slots before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demur.chat.engine import Engine, SamplingSettings
from demur.chat.engine import engine as module
from tests.recording import Refusing, Tracing
from tests.test_engine import QUERIES, conversations, random_prompt
from tests.tiny import ARCHITECTURES, LLAMA_LIKE, tiny_model, tiny_tokenizer

SETTINGS = SamplingSettings(samples=3, most_tokens=9, top_k=20)
LIMITS = [9, 2, 9, 5, 1, 9, 7]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_recorded_steps_sample_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recorder = tiny_model(name), Tracing()
    monkeypatch.setattr(module, "recorder_for", lambda _model: None)
    plain = Engine(model, tiny_tokenizer())
    monkeypatch.setattr(module, "recorder_for", lambda _model: recorder)
    engine = Engine(model, tiny_tokenizer())
    prompt, inputs = random_prompt(), conversations()
    shorter = replace(inputs, prefix=inputs.prefix[:8])
    for turn, some in enumerate((inputs, shorter, inputs)):
        # More responses than slots in the last turn: they come and go.
        plain.slots = engine.slots = 256 if turn < 2 else 4
        keys = [f"{query} {turn}" for query in QUERIES]
        expected = plain.read_and_sample(some, keys, SETTINGS, prompt, LIMITS)
        found = engine.read_and_sample(some, keys, SETTINGS, prompt, LIMITS)
        assert found.samples == expected.samples
    if name == "llama, grouped attention":
        assert 1 <= recorder.recorded <= 4
        assert recorder.replayed > 30


def test_a_slot_without_a_sequence_changes_no_position(monkeypatch: pytest.MonkeyPatch) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [9.0] * 4,
        "original_max_position_embeddings": 40,
    }
    more = {"original_max_position_embeddings": 40, "max_position_embeddings": 256}
    sizes = {**LLAMA_LIKE, **more, "rope_parameters": rope}
    monkeypatch.setitem(ARCHITECTURES, "phi3, longrope", ("phi3", sizes))
    model, found = tiny_model("phi3, longrope"), []
    for recorder in (None, Tracing()):
        monkeypatch.setattr(module, "recorder_for", lambda _model, one=recorder: one)
        engine = Engine(model, tiny_tokenizer())
        for _ in range(2):
            some = engine.read_and_sample(conversations(), QUERIES, SETTINGS, random_prompt())
        found.append(some.samples)
    assert found[0] == found[1]


def test_steps_that_cannot_be_recorded_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama, grouped attention")
    found = []
    for recorder in (None, Refusing()):
        monkeypatch.setattr(module, "recorder_for", lambda _model, one=recorder: one)
        engine = Engine(model, tiny_tokenizer())
        found.append(engine.read_and_sample(conversations(), QUERIES, SETTINGS, random_prompt()))
    assert found[0].samples == found[1].samples


def test_slots_that_are_too_few_or_too_short_are_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, recorder = tiny_model("llama, grouped attention"), Tracing()
    monkeypatch.setattr(module, "recorder_for", lambda _model: recorder)
    engine = Engine(model, tiny_tokenizer())
    monkeypatch.setattr(module, "recorder_for", lambda _model: None)
    plain = Engine(model, tiny_tokenizer())
    for samples, tokens in ((1, 4), (12, 4), (12, 140), (1, 4)):
        settings = replace(SETTINGS, samples=samples, most_tokens=tokens)
        found = engine.read_and_sample(conversations(), QUERIES, settings, random_prompt())
        expected = plain.read_and_sample(conversations(), QUERIES, settings, random_prompt())
        assert found.samples == expected.samples
