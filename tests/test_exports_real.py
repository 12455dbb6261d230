"""Exports of a small real model, in llama.cpp where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from demur import ChatModel, SafetyPrompt
from demur.chat import Condition
from demur.chat.embeddings import conversation_embeddings
from demur.chat.engine import SamplingSettings
from demur.exports import export
from demur.exports.head import MOST_PROBABLE, head_row
from tests.real_models import load_real_model


@pytest.fixture(scope="module")
def gguf_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatModel, SafetyPrompt, Path]:
    """A small real model, a prompt for it (that of a text) and its export."""
    return _exported(_real_model(), tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def f16_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatModel, SafetyPrompt, Path]:
    """The same from the folder with the model's dense weights."""
    folder = _real_model().folder
    return _exported(ChatModel.load(folder, dtype="float32"), tmp_path_factory.mktemp("f16"))


def _real_model() -> ChatModel:
    return load_real_model("smollm2-135m", dtype="float32")


def _exported(model: ChatModel, place: Path) -> tuple[ChatModel, SafetyPrompt, Path]:
    text = "You never talk about trees. You end every answer with a question."
    rows = model.prompt_embeddings(SafetyPrompt("text", text))
    prompt = SafetyPrompt("trained", text, rows)
    prompt.save(place / "prompt")
    done = export(place / "prompt", "gguf", place / "out", model=model)
    (file,) = done.path.iterdir()
    return model, prompt, file


GGUF_EMBEDDINGS = ("token_embd.weight", "output.weight")


@pytest.mark.real_model
def test_a_gguf_export_changes_only_the_embeddings(
    gguf_export: tuple[ChatModel, SafetyPrompt, Path],
) -> None:
    model, prompt, file = gguf_export
    assert model.gguf is not None
    old, new = ({t.name: t for t in GGUFReader(one).tensors} for one in (model.gguf, file))
    assert set(new) - set(old) == {"output.weight"}  # it was tied
    for name, tensor in old.items():
        assert new[name].tensor_type == tensor.tensor_type
        assert (new[name].data[: len(tensor.data)] == tensor.data).all()
        more = len(new[name].data) - len(tensor.data)
        if name in GGUF_EMBEDDINGS:  # in whole blocks, where they were whole before
            assert prompt.rows <= more < prompt.rows + 64
            assert len(tensor.data) % 64 or len(new[name].data) % 64 == 0
        else:
            assert more == 0


@pytest.mark.real_model
@pytest.mark.parametrize("made", ["gguf_export", "f16_export"])
def test_llama_cpp_says_what_demur_says(made: str, request: pytest.FixtureRequest) -> None:
    library: Any = pytest.importorskip(
        "xllamacpp", reason="llama.cpp is not installed: pip install 'demur[engines]'"
    )
    model, prompt, file = request.getfixturevalue(made)
    queries = ["What is the capital of France?", "Name three colours.", "How do I boil an egg?"]
    greedy = SamplingSettings(samples=1, most_tokens=8, temperature=0.0)
    wanted = model.read_and_sample(queries, Condition(prompt), greedy).samples
    settings = library.CommonParams()
    settings.model.path, settings.n_ctx, settings.use_jinja = str(file), 1024, True
    settings.warmup, settings.n_parallel, settings.cpuparams.n_threads = False, 1, 1
    server = library.Server(settings)
    same = 0
    for query, samples in zip(queries, wanted, strict=True):
        question = {"messages": [{"role": "user", "content": query}], "max_tokens": 8}
        answer = server.handle_chat_completions({**question, "temperature": 0.0})
        said = answer["choices"][0]["message"]["content"]
        same += said.strip() == samples[0].text.strip()
    assert same >= 2


@pytest.mark.real_model
def test_a_real_model_never_emits_a_safety_token(tmp_path: Path) -> None:
    model = _real_model()
    prompt = SafetyPrompt("text", "You never talk about trees.")
    row = head_row(model, prompt).row
    texts = ["Write a poem about the sea.", "def f(x):\n    return", "12 + 30 = ", "\u4f60\u597d"]
    conditions = [Condition(prompt), Condition(), Condition(prompt), Condition(None, "Be brief.")]
    states = model.engine.states(
        [conversation_embeddings(model, *one) for one in zip(texts, conditions, strict=True)]
    )
    partition = model.next_token_logits(states).logsumexp(dim=1)
    assert float((states @ row - partition).exp().max()) < MOST_PROBABLE
