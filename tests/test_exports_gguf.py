"""GGUF files from model folders, loaded as a stranger would: by transformers and by llama.cpp."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, TokenType
from tokenizers import pre_tokenizers

from demur import ChatModel, DemurError, SafetyPrompt
from demur.chat import Condition
from demur.chat.engine import SamplingSettings
from demur.exports import export
from demur.exports.gguf_file import EMBEDDINGS, Part, with_prompt
from demur.exports.opening import Opening
from demur.exports.template_check import messages_of
from demur.exports.vocabulary import Vocabulary
from demur.prompts import Provenance
from tests.tiny_gguf import BYTE_LEVEL, OPENED, SENTENCE_PIECE, save_exact, tokenizer_like
from tests.tiny_tokenizers import CHATML

ROWS = 5
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "gpt-2", {}),
    "llama, tied": ("llama", "smollm", {"tie_word_embeddings": True}),
    "mistral": ("mistral", "metaspace", {"sliding_window": None}),
    "qwen2": ("qwen2", "qwen2", {"num_key_value_heads": 4}),
    "qwen3": ("qwen3", "qwen2", {"tie_word_embeddings": True, "head_dim": 128}),
    "gemma3": (
        "gemma3_text",
        "marked",
        {"num_hidden_layers": 7, "head_dim": 256, "sliding_window": 16},
    ),
}
"""Those that transformers can read back from GGUF: architecture, tokenizer, settings."""

LONG = {"rope_theta": 10_000.0, "original_max_position_embeddings": 64}
LLAMA3 = {**LONG, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MORE_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama, biases": ("llama", "dbrx", {"attention_bias": True, "mlp_bias": True}),
    "llama, scaled positions": (
        "llama",
        "llama-bpe",
        {"rope_parameters": {**LLAMA3, "factor": 8.0}, "tie_word_embeddings": True},
    ),
    "mistral, windows": ("mistral", "tekken", {"sliding_window": 512}),
    "qwen2, yarn": (
        "qwen2",
        "qwen2",
        {"rope_parameters": {**LONG, "rope_type": "yarn", "factor": 16.0}},
    ),
    "qwen3, linear": (
        "qwen3",
        "qwen2",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 4.0}},
    ),
}
"""Those of which transformers reads a part only."""

QUERIES = [
    "How do I sharpen a kitchen knife?",
    "Isn't it 12345 or 2024?\n\n\n  They'LL see  CamelCase words,\ttabs...!!! x",
    "naïve Äpfel and 日本語. " * 5 + "You are kind",
]


def save_trained(folder: Path, model: ChatModel) -> SafetyPrompt:
    torch.manual_seed(1)
    rows = torch.randn(ROWS, model.width).half().float()
    prompt = SafetyPrompt("trained", "You are kind", rows, Provenance(model=model.record))
    prompt.save(folder)
    return prompt


def exported(
    tmp_path: Path, kind: tuple[str, str, dict[str, Any]], template: str = CHATML
) -> tuple[ChatModel, SafetyPrompt, Path]:
    """A base in several shards, a prompt trained for it, and the GGUF file made from both."""
    model_type, tokenizer, options = kind
    base = save_exact(
        tmp_path / "base", model_type, tokenizer_like(tokenizer, template), shard="20KB", **options
    )
    assert len(list(base.glob("*.safetensors"))) > 1
    model = ChatModel.load(base, dtype="float32")
    prompt = save_trained(tmp_path / "prompt", model)
    done = export(tmp_path / "prompt", "gguf", tmp_path / "out", model=model)
    (file,) = done.path.iterdir()
    return model, prompt, file


def value(file: Path, name: str) -> Any:
    field = GGUFReader(file).get_field(name)
    return None if field is None else field.contents()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("own_cache")
def test_transformers_reads_demurs_logits_from_the_file(name: str, tmp_path: Path) -> None:
    model, prompt, file = exported(tmp_path, MODELS[name])
    read = ChatModel.load(file, dtype="float32")
    own = len(model.engine.tokenizer)
    texts = [QUERIES[0], QUERIES[2]]
    wanted = model.next_token_logits(model.represent(texts, Condition(prompt)))[:, :own]
    found = read.next_token_logits(read.represent(texts, Condition()))[:, :own]
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)
    # The prompt is what moved them there.
    plain = model.next_token_logits(model.represent(texts, Condition()))[:, :own]
    assert float((plain - wanted).abs().max()) > 0.02


def test_the_name_of_a_strangers_prompt_stays_in_the_folder(tmp_path: Path) -> None:
    model, prompt, _ = exported(tmp_path, next(iter(MODELS.values())))
    for place, name in enumerate(("../../up $(touch x) `y`", "n" * 300, "...")):
        folder = tmp_path / "outer" / str(place)
        export(replace(prompt, name=name), "gguf", folder, model=model)
        (file,) = folder.iterdir()
        assert re.fullmatch(r"[A-Za-z0-9.-]+\.gguf", file.name)
        assert len(file.name) < 200
    assert [one.name for one in (tmp_path / "outer").iterdir() if not one.name.isdigit()] == []


@pytest.mark.parametrize("name", [*MODELS, *MORE_MODELS])
def test_llama_cpp_says_what_demur_says(name: str, tmp_path: Path) -> None:
    library: Any = pytest.importorskip(
        "xllamacpp", reason="llama.cpp is not installed: pip install 'demur[engines]'"
    )
    model, prompt, file = exported(tmp_path, {**MODELS, **MORE_MODELS}[name])
    greedy = SamplingSettings(samples=1, most_tokens=10, temperature=0.0)
    wanted = model.read_and_sample(QUERIES, Condition(prompt), greedy).samples
    settings = library.CommonParams()
    settings.model.path, settings.n_ctx, settings.use_jinja = str(file), 1024, True
    settings.warmup, settings.n_parallel, settings.verbosity = False, 1, -1
    settings.cpuparams.n_threads = 1
    server = library.Server(settings)
    logits = model.next_token_logits(model.represent(QUERIES, Condition(prompt)))
    same = 0
    for query, samples, row in zip(QUERIES, wanted, logits, strict=True):
        request = {"messages": [{"role": "user", "content": query}], "max_tokens": 10}
        options = {"temperature": 0.0, "logprobs": True, "top_logprobs": 8}
        answer = server.handle_chat_completions({**request, **options})
        inputs = model.inputs([query], Condition(prompt))
        tokens = len(inputs.prefix) + len(inputs.suffixes[0])
        assert answer["usage"]["prompt_tokens"] == tokens
        first = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = torch.tensor([one["logprob"] for one in first])
        likely = row[torch.tensor([one["id"] for one in first])]
        torch.testing.assert_close(found - found[0], likely - likely[0], atol=0.02, rtol=0)
        same += answer["choices"][0]["message"]["content"].strip() == samples[0].text.strip()
    assert same >= 2  # a near tie may go either way


HEADER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
ENDED = {
    "a switch": (
        HEADER + "{% if enable_thinking is not defined or enable_thinking %}{% else %}"
        "{{ '<think>\n\n</think>\n\n' if add_generation_prompt }}{% endif %}"
    ),
    "an open reasoning": HEADER.replace("assistant\n", "assistant\n<think>\n"),
    "an open text": HEADER.replace("assistant\n", "assistant\nHere are my reasoning steps:\n"),
    "a channel": HEADER.replace("assistant\n", "assistant"),
}
TURNS: list[tuple[list[tuple[str, str]], str | None, list[tuple[str, str]]]] = [
    ([("user", QUERIES[0])], None, []),
    ([("system", "Yes."), ("system", "No."), ("user", QUERIES[0])], "Yes.\n\nNo.", []),
    (
        [("user", "Hi"), ("assistant", "Ho"), ("system", "Yes."), ("user", QUERIES[0])],
        "Yes.",
        [("Hi", "Ho")],
    ),
]


def answering(name: str, system: str = "") -> str:
    """A template that would let the model reason; `system` comes before other messages' texts."""
    before = "<|im_start|>assistant" + ("<|channel|>final<|message|>" if "chan" in name else "\n")
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        f"{{{{ {before!r} + m.content.split('</think>')[-1] + '<|im_end|>' }}}}"
        "{% else %}" + system + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}"
        "{% endif %}{% endfor %}" + ENDED[name]
    )
    # llama.cpp tells a model that answers in a channel by its template, and wants its other marks.
    return template.replace("im_start", "start") if name == "a channel" else template


NO_SYSTEM = "{% if m.role == 'system' %}{{ raise_exception('There is no system.') }}{% endif %}"


@pytest.mark.parametrize("system", ["", NO_SYSTEM], ids=["system", "user"])
@pytest.mark.parametrize("name", ENDED)
def test_llama_cpp_reads_what_demur_reads(name: str, system: str, tmp_path: Path) -> None:
    """Whoever ends the reasoning, and in every form of a conversation."""
    library: Any = pytest.importorskip(
        "xllamacpp", reason="llama.cpp is not installed: pip install 'demur[engines]'"
    )
    model, prompt, file = exported(tmp_path, MODELS["qwen2"], answering(name, system))
    settings = library.CommonParams()
    settings.model.path, settings.n_ctx, settings.use_jinja = str(file), 1024, True
    settings.warmup, settings.n_parallel, settings.verbosity = False, 1, -1
    settings.cpuparams.n_threads = 1
    server = library.Server(settings)
    for turns, system_prompt, history in TURNS:
        ids = model.renderer.render(
            QUERIES[0], prompt.text, system_prompt, prompt_rows=ROWS, history=history
        ).token_ids
        for as_parts in (False, True):
            request = {"messages": messages_of(turns, as_parts), "max_tokens": 1}
            for kwargs in ({}, {"chat_template_kwargs": {"enable_thinking": True}}):
                answer = server.handle_chat_completions({**request, **kwargs})
                assert answer["usage"]["prompt_tokens"] == len(ids), (turns, as_parts, kwargs)


def test_matrices_are_f16_and_vectors_f32(tmp_path: Path) -> None:
    model, prompt, file = exported(tmp_path, MODELS["llama, tied"])
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    for name, tensor in tensors.items():
        kinds = GGMLQuantizationType
        assert tensor.tensor_type == (kinds.F32 if name.endswith("norm.weight") else kinds.F16)
    network: Any = model.engine.model
    table = network.get_input_embeddings().weight.detach()
    first = len(model.engine.tokenizer)
    assert prompt.embeddings is not None
    for name, rows in (("token_embd.weight", prompt.embeddings), ("output.weight", None)):
        found = torch.from_numpy(tensors[name].data.copy()).float()
        assert torch.equal(found[:first], table[:first])
        if rows is not None:
            assert torch.equal(found[first : first + ROWS], rows)
        assert torch.equal(found[first + ROWS :], found[-1:].expand(len(found) - first - ROWS, -1))
    up = network.model.layers[1].mlp.up_proj.weight.half().numpy()
    assert (tensors["blk.1.ffn_up.weight"].data == up).all()


@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCE_PIECE])
def test_tokens_types_and_template(kind: str, tmp_path: Path) -> None:
    model, _, file = exported(tmp_path, ("llama", kind, {}))
    tokenizer: Any = model.engine.tokenizer
    pieces = kind in SENTENCE_PIECE
    assert value(file, "tokenizer.ggml.model") == ("llama" if pieces else "gpt2")
    assert value(file, "tokenizer.ggml.pre") == ("default" if pieces else kind)
    tokens, types = (value(file, f"tokenizer.ggml.{what}") for what in ("tokens", "token_type"))
    first = len(tokenizer)
    assert tokens[:first] == tokenizer.convert_ids_to_tokens(range(first))
    assert all("safety" in token for token in tokens[first : first + ROWS])
    assert len(tokens) == value(file, "llama.vocab_size") == len(set(tokens))
    by_token = dict(zip(tokens, types, strict=True))
    control = ["<s>", "</s>", "<|im_start|>", *tokens[first : first + ROWS]]
    assert {by_token[token] for token in control} == {TokenType.CONTROL}
    assert by_token["<think>"] == TokenType.USER_DEFINED
    assert by_token["re"] == TokenType.NORMAL
    assert {by_token[token] for token in tokens[first + ROWS :]} <= {TokenType.UNUSED}
    if pieces:
        assert (by_token["<0x0A>"], by_token["<unk>"]) == (TokenType.BYTE, TokenType.UNKNOWN)
        scores = dict(zip(tokens, value(file, "tokenizer.ggml.scores"), strict=True))
        assert scores["re"] > scores["are"] > scores["y"]
        assert value(file, "tokenizer.ggml.add_space_prefix") is False
    else:
        assert len(value(file, "tokenizer.ggml.merges")) > 100
    template = value(file, "tokenizer.chat_template")
    assert CHATML in template
    assert tokens[first] in template
    for what, token in (("bos", "<s>"), ("eos", "</s>")):
        assert tokens[value(file, f"tokenizer.ggml.{what}_token_id")] == token
    assert value(file, "tokenizer.ggml.add_bos_token") is (kind in OPENED)


def test_llama_cpp_adds_no_token_that_the_template_does_not_write(tmp_path: Path) -> None:
    template = CHATML.replace("{{ bos_token }}", "")
    _, _, file = exported(tmp_path, ("llama", OPENED[0], {}), template)
    assert value(file, "tokenizer.ggml.add_bos_token") is False


def test_a_window_shortens_the_context(tmp_path: Path) -> None:
    _, _, file = exported(tmp_path, MORE_MODELS["mistral, windows"])
    assert value(file, "llama.context_length") == 512


def no_words(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "its architecture is stablelm": ("stablelm", "gpt-2", {}),
    "knows no gemma2 model": ("gemma2", "marked", {}),
    "not gelu": ("llama", "gpt-2", {"hidden_act": "gelu"}),
    "scaled by dynamic": (
        "llama",
        "gpt-2",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}},
    ),
    "scaled by llama3": ("qwen2", "qwen2", {"rope_parameters": {**LLAMA3, "factor": 8.0}}),
    "its tensor model.layers.0.self_attn": ("qwen3", "qwen2", {"attention_bias": True}),
    "llama.cpp has no name": ("llama", "words", {}),
    "that F16 cannot hold": ("llama", "large", {}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(reason: str, tmp_path: Path) -> None:
    model_type, kind, options = REFUSED[reason]
    tokenizer = tokenizer_like("gpt-2" if kind in ("words", "large") else kind)
    if kind == "words":
        no_words(tokenizer)
    base = save_exact(tmp_path / "base", model_type, tokenizer, **options)
    model = ChatModel.load(base, dtype="float32")
    save_trained(tmp_path / "prompt", model)
    if kind == "large":
        network: Any = model.engine.model
        network.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
        network.save_pretrained(base)
    with pytest.raises(DemurError, match=reason) as raised:
        export(tmp_path / "prompt", "gguf", tmp_path / "out", model=model)
    assert "export to" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "prompt"]


def test_a_head_that_llama_cpp_cannot_load_is_not_written() -> None:
    table = torch.zeros(8, 4).numpy()
    part = Part(EMBEDDINGS, GGMLQuantizationType.F32, (8, 4), lambda: table)
    rows = torch.ones(2, 4)
    vocabulary = Vocabulary(Opening(None, 8, True), rows, -rows)
    embeddings, head = with_prompt([part], vocabulary, 10, "qwen2")
    assert embeddings.load()[8:].tolist() == rows.tolist()
    assert head.load()[8:].tolist() == (-rows).tolist()
    with pytest.raises(DemurError, match="knows no gemma2 model whose head differs"):
        with_prompt([part], vocabulary, 10, "gemma2")
