"""Which chat template a model gets, templates from a file, and templates that go out of bounds."""

from __future__ import annotations

import base64
import json
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from demur import ChatModel, DemurError, SafetyPrompt
from demur.chat import dequantize, renderers
from demur.chat.rendering import ChatRenderer
from demur.chat.templates import find_template
from tests.command_line import demur, done, mistake
from tests.tiny import LLAMA_LIKE, tiny_model, tiny_tokenizer
from tests.tiny_checkpoints import save_llama_gguf
from tests.tiny_tokenizers import CHATML, make

BARE: Any = SimpleNamespace(chat_template=None)
OWN: Any = SimpleNamespace(chat_template="own")
GIVEN = "{% for m in messages %} {{ m.role }} : w50 {{ m.content }} {% endfor %} assistant : w51"


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "[INST]"),
        ("TheBloke/Llama-2-13B-chat-GGUF", "[INST]"),
        ("llama-2-70b-chat.Q4_K_M", "[INST]"),
        ("codellama/CodeLlama-34b-Instruct-hf", "[INST]"),
        ("lmsys/vicuna-7b-v1.5", "USER"),
        ("microsoft/Orca-2-13b", "<|im_start|>"),
        ("models--mistralai--Mistral-7B-Instruct-v0.2", "[INST]"),
        ("openchat/openchat-3.5-1210", "User"),
    ],
)
def test_models_that_are_named_get_their_template(name: str, opening: str) -> None:
    assert opening in find_template(BARE, name)


@pytest.mark.parametrize(
    "name",
    [
        "Mistral-Small-3.2-24B-Instruct-2506",
        "Mistral-Small-3.1-24B-Instruct-2503-Q4_K_M",
        "Mistral-Nemo-Instruct-2407",
        "Mistral-Large-Instruct-2411",
        "Mistral-7B-Instruct-v0.3",
        "Mixtral-8x7B-Instruct-v0.1",
        "Mixtral-8x22B-Instruct-v0.1",
        "CodeLlama-70b-Instruct-hf",
        "CodeLlama-7b-Python-hf",
        "Llama-2-7b-hf",
        "Llama-2-7b-chat-hf-finetuned",
        "my-llama-2-chat",
        "openchat-3.6-8b",
        "openchat_v3.2",
        "vicuna-13b-v1.1",
        "vicuna-33b-v1.3",
        "vicuna-7b-v1.5-16k",
        "orca_mini_v3_7b",
        "Ministral-8B-Instruct-2410",
        "Devstral-Small-2507",
        "Meta-Llama-3-8B",
        "",
    ],
)
def test_other_models_get_none_by_their_name(name: str) -> None:
    with pytest.raises(DemurError, match=r"without a chat template, .* --chat-template FILE"):
        find_template(BARE, name)
    assert find_template(OWN, name) == "own"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model: there is no chat template."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tiny_model("llama, grouped attention").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    file = tmp_path / "mine.jinja"
    file.write_text(GIVEN)
    return file


def test_a_template_from_a_file(base: Path, given: Path, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="without a chat template"):
        ChatModel.load(base)
    model = ChatModel.load(base, chat_template=given, dtype="float32")
    assert model.renderer.render_text("w9") == " user : w50 w9  assistant : w51"
    assert model.settings.chat_template == str(given)
    other = tmp_path / "other.jinja"
    other.write_text(GIVEN + " w52")
    assert ChatModel.load(base, chat_template=other).record != model.record


def test_a_template_from_a_file_comes_before_the_model_s_own(saved: Path, given: Path) -> None:
    model = ChatModel.load(saved, chat_template=str(given), dtype="float32")
    assert "w50 w9" in model.renderer.render_text("w9")


def test_the_option_of_the_commands(base: Path, given: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("w9 w8\nw7 w6\n")
    arguments: list[object] = ["evaluate", base, "--harmless", queries, "--prompt", "none"]
    arguments += ["--tokens", 4, "--output", tmp_path / "out"]
    assert "--chat-template FILE" in mistake(demur(*arguments))
    done(demur(*arguments, "--chat-template", given))
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert str(given) in json.dumps(settings)


def test_an_export_takes_the_template_of_the_run(base: Path, given: Path, tmp_path: Path) -> None:
    model = ChatModel.load(base, chat_template=given, dtype="float32")
    text = SafetyPrompt("mine", "w1 w2")
    SafetyPrompt("mine", "w1 w2", model.prompt_embeddings(text)).save(tmp_path / "prompt")
    arguments = ["export", tmp_path / "prompt", tmp_path / "out", "--model", base]
    assert "--chat-template FILE" in mistake(demur(*arguments))
    done(demur(*arguments, "--chat-template", given))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "w9"}]
    text_of = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "user : w50 w9" in str(text_of)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is UTF-16 or UTF-32: save it as UTF-8"),
        (b"\x1f\x8b", "is packed with gzip: unpack it"),
        (b"a\xff", "is not UTF-8 text"),
        (b"{% for m in messages %}", "is no Jinja template"),
        (b"{{ messages", "is no Jinja template"),
        (b"just text", "writes no message"),
        (b"{{ 1 }}" * 200_000, "too large"),
        (b"{{ 'Hello' }}", "does not render a plain conversation"),
    ],
)
def test_files_that_are_no_template(saved: Path, given: Path, content: bytes, match: str) -> None:
    given.write_bytes(content)
    with pytest.raises(DemurError, match=match):
        ChatModel.load(saved, chat_template=given)


def test_a_template_that_is_not_there(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="There is no file"):
        ChatModel.load("no-such-model-either", chat_template=tmp_path / "none.jinja")
    with pytest.raises(DemurError, match="is a folder"):
        ChatModel.load(saved, chat_template=tmp_path)


OUT_OF_BOUNDS = {
    "a loop": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "does not end within",
    ),
    "eight gigabytes": ("{{ 'x' * 8000000000 }}", "of memory"),
    "eight gigabytes in time": (
        "{% set n = messages|length * 8000000000 %}{{ 'x' * n }}",
        "memory",
    ),
    "a text that doubles": (
        "{% set s = namespace(t='x') %}"
        "{% for i in range(40) %}{% set s.t = s.t ~ s.t %}{% endfor %}",
        "of memory",
    ),
    "a long text": ("{{ 'x' * 40000000 }}", "writes more than"),
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_templates_that_go_out_of_bounds(name: str) -> None:
    template, match = OUT_OF_BOUNDS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    computed = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(DemurError, match=match):
        ChatRenderer(make("gpt4", template + CHATML))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - computed < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_template_that_takes_no_safety_prompt_is_used_without_one(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %} {{ m.content }} {{ m.content }} {% endfor %}"
    tiny_model("llama, grouped attention").save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    model = ChatModel.load(tmp_path / "tiny", dtype="float32")
    assert model.represent(["w9"]).isfinite().all()
    with pytest.raises(DemurError, match="the system message more than once"):
        model.prompt_embeddings(SafetyPrompt("mine", "w1 w2"))


@pytest.mark.usefixtures("own_cache")
def test_a_template_is_tried_before_a_gguf_file_is_unpacked(
    saved: Path, tmp_path: Path, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dequantize, "_unpack", lambda *_: pytest.fail("unpacked"))
    loop, long = OUT_OF_BOUNDS["a loop"], OUT_OF_BOUNDS["a long text"]
    behind_a_system_message = "{% if messages[0].role == 'system' %}" + long[0] + "{% endif %}"
    for bad, match in (loop, long, (behind_a_system_message, long[1])):
        template = bad + CHATML
        given.write_text(template)
        file = tmp_path / "tiny.gguf"
        save_llama_gguf(file, saved, template=template)
        with pytest.raises(DemurError, match=match):
            ChatModel.load(file)
        save_llama_gguf(file, saved)
        with pytest.raises(DemurError, match=match):
            ChatModel.load(file, chat_template=given)


def test_the_renderer_of_a_model_is_made_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Counted(ChatRenderer):
        def __init__(self, *arguments: Any) -> None:
            made.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(renderers, "ChatRenderer", Counted)
    model = ChatModel.load(saved, dtype="float32")
    assert made == [model.renderer]


def save_tekken_model(folder: Path) -> None:
    """A model with Mistral's own tokenizer file alone, as its repositories come."""
    control = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    pieces = [bytes([byte]) for byte in range(256)] + [b"he", b"ll", b"hell", b"hello"]
    letters = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+"
    size = len(pieces) + len(control)
    tekken = {
        "config": {
            "pattern": letters,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": size,
            "default_num_special_tokens": len(control),
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True}
            for rank, name in enumerate(control)
        ],
    }
    config = AutoConfig.for_model("mistral", **{**LLAMA_LIKE, "vocab_size": size})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(tekken))


def test_a_folder_with_tekken_alone_takes_a_template(tmp_path: Path, given: Path) -> None:
    folder = tmp_path / "Mistral-Small-3.2-24B-Instruct-2506"
    save_tekken_model(folder)
    with pytest.raises(DemurError, match="without a chat template"):
        ChatModel.load(folder)
    given.write_text(
        "<s>{% for m in messages %}{% if m.role == 'system' %}"
        "{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}{% elif m.role == 'user' %}"
        "{{ '[INST]' + m.content + '[/INST]' }}{% else %}{{ m.content + '</s>' }}{% endif %}"
        "{% endfor %}"
    )
    model = ChatModel.load(folder, chat_template=given, dtype="float32")
    ids = model.renderer.render("hello", "hell").token_ids
    read = model.engine.tokenizer.convert_ids_to_tokens(list(ids))
    around = ["<s>", "[SYSTEM_PROMPT]", "hell", "[/SYSTEM_PROMPT]", "[INST]", "hello", "[/INST]"]
    assert read == around
    assert 2 in model.engine.turn_end.tokens
