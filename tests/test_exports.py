"""Exports, loaded as a stranger would: with plain transformers and plain PEFT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from demur import ChatModel, DemurError, SafetyPrompt
from demur.chat import Condition
from demur.chat.checkpoint import weight_files
from demur.chat.embeddings import decode
from demur.cli.app import build_app
from demur.exports import export
from demur.exports.head import MOST_PROBABLE, unlikely_row
from demur.exports.modelfile import Layout, modelfile
from demur.exports.template_check import messages_of
from demur.prompts import Provenance
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = 5
NAMES = [
    "llama, grouped attention",
    "llama, multi-head attention, tied",
    "gemma, embedding scaling",
    "gemma3, sliding window",
    "granite, embedding and logit scale",
    "gpt2, absolute positions",
    "mixtral, mixture of experts",
    "mamba, state-space",
]
QUERIES = ["w11 w12 w13", "w20", "w31 ? w32"]
NO_SYSTEM_ROLE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    " {{ message.role }} : {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)


def save_base(folder: Path, name: str, *, shard: str = "1GB", template: str | None = None) -> Path:
    tiny_model(name).save_pretrained(folder, max_shard_size=shard)
    tokenizer = tiny_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def save_prompt(folder: Path, model: ChatModel, rows: int = ROWS) -> SafetyPrompt:
    torch.manual_seed(1)
    trained = torch.randn(rows, model.width)
    prompt = SafetyPrompt("trained", "w40 w41", trained, Provenance(model=model.record))
    prompt.save(folder)
    return prompt


def made(tmp_path: Path, name: str, **options: Any) -> tuple[ChatModel, SafetyPrompt, Path]:
    """A base model, a prompt trained for it, and the prompt's folder."""
    model = ChatModel.load(save_base(tmp_path / "base", name, **options), dtype="float32")
    return model, save_prompt(tmp_path / "prompt", model), tmp_path / "prompt"


def load(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def ids_of(tokenizer: Any, messages: Sequence[dict[str, Any]]) -> list[int]:
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return list(ids)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    found = {}
    for file in weight_files(folder, "test"):
        with safe_open(str(file), framework="pt") as tensors:
            found.update({name: tensors.get_tensor(name) for name in tensors.keys()})  # noqa: SIM118
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_transformers_export_gives_demurs_logits(name: str, tmp_path: Path) -> None:
    model, prompt, saved = made(tmp_path, name)
    export(saved, "transformers", tmp_path / "out", model=model)
    exported, tokenizer = load(tmp_path / "out")
    for system in (None, "w50 w51"):
        wanted = model.next_token_logits(model.represent(QUERIES, Condition(prompt, system)))
        for query, logits in zip(QUERIES, wanted, strict=True):
            messages = [{"role": "user", "content": query}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": system})
            with torch.no_grad():
                found = exported(torch.tensor([ids_of(tokenizer, messages)])).logits[0, -1]
            torch.testing.assert_close(found[: len(logits)], logits, atol=1e-4, rtol=1e-4)


def test_later_turns_see_the_prompt_in_its_one_place(tmp_path: Path) -> None:
    model, prompt, saved = made(tmp_path, NAMES[0])
    export(saved, "transformers", tmp_path / "out", model=model)
    exported, tokenizer = load(tmp_path / "out")
    turns = ["w11", "w12 w13", "w14"]
    roles = ["user", "assistant", "user"]
    messages = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]
    ids = torch.tensor(ids_of(tokenizer, messages))
    first = len(tiny_tokenizer())
    safety = ids >= first
    assert ids[safety].tolist() == list(range(first, first + ROWS))
    base = model.engine.model
    embeddings = base.get_input_embeddings()(torch.where(safety, 0, ids))
    assert prompt.embeddings is not None
    embeddings[safety] = prompt.embeddings
    with torch.no_grad():
        wanted = base(inputs_embeds=embeddings[None], use_cache=False).logits[0, -1]
        found = exported(ids[None]).logits[0, -1]
    torch.testing.assert_close(found[:first], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES[:3])
def test_nothing_but_the_embeddings_changes(name: str, tmp_path: Path) -> None:
    model, _, saved = made(tmp_path, name, shard="20KB")
    export(saved, "transformers", tmp_path / "out", model=model)
    old, new = tensors_of(tmp_path / "base"), tensors_of(tmp_path / "out")
    shards = [file.name for file in weight_files(tmp_path / "base", "test")]
    assert len(shards) > 1
    assert [file.name for file in weight_files(tmp_path / "out", "test")] == shards
    assert set(new) - set(old) <= {"lm_head.weight"}
    for key, tensor in old.items():
        assert new[key].dtype == tensor.dtype
        kept = new[key][: len(tensor)] if key in ("lm_head.weight", EMBEDDINGS) else new[key]
        assert torch.equal(kept, tensor), key
    assert torch.equal(
        new["lm_head.weight"][: len(old[EMBEDDINGS])], old.get("lm_head.weight", old[EMBEDDINGS])
    )


EMBEDDINGS = "model.embed_tokens.weight"


def test_rows_that_the_tokenizer_leaves_unused_are_used_first(tmp_path: Path) -> None:
    base = tmp_path / "wide"
    network = tiny_model(NAMES[0])
    network.resize_token_embeddings(len(tiny_tokenizer()) + 8)
    network.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    wide = ChatModel.load(base, dtype="float32")
    save_prompt(tmp_path / "fits", wide, rows=8)
    save_prompt(tmp_path / "does-not", wide, rows=9)
    export(tmp_path / "fits", "transformers", tmp_path / "out", model=wide)
    export(tmp_path / "does-not", "transformers", tmp_path / "longer", model=wide)
    assert vocabulary(tmp_path / "out") == vocabulary(base)
    assert vocabulary(tmp_path / "longer") == vocabulary(base) + 1


def vocabulary(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def test_a_template_without_a_system_role_opens_the_first_message(tmp_path: Path) -> None:
    model, prompt, saved = made(tmp_path, NAMES[0], template=NO_SYSTEM_ROLE)
    export(saved, "transformers", tmp_path / "out", model=model)
    exported, tokenizer = load(tmp_path / "out")
    wanted = model.next_token_logits(model.represent(QUERIES[:1], Condition(prompt, "w50")))[0]
    messages = [{"role": "system", "content": "w50"}, {"role": "user", "content": QUERIES[0]}]
    with torch.no_grad():
        found = exported(torch.tensor([ids_of(tokenizer, messages)])).logits[0, -1]
    torch.testing.assert_close(found[: len(wanted)], wanted, atol=1e-4, rtol=1e-4)


CONTENT = "{{ message.content }}"
PARTS_TOO = (
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }} {% endfor %}{% endif %}"
)
FIRST_PART = "{{ message.content if message.content is string else message.content[0].text }}"
PARTS_ALONE = "{% for part in message.content %}{{ part.text }}{% endfor %}"
LAST_SYSTEM = (
    "{% set kept = namespace(text='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set kept.text = message.content %}{% endif %}"
    "{% endfor %}{{ bos_token }} {{ kept.text }}{% for message in messages %}"
    "{% if message.role != 'system' %} {{ message.role }} : {{ message.content }} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %} assistant : {% endif %}"
)
TEMPLATES: dict[str, str | None] = {
    "texts": None,
    "texts in the user's message": NO_SYSTEM_ROLE,
    "parts too": NO_SYSTEM_ROLE.replace(CONTENT, PARTS_TOO),
    "the first part": str(tiny_tokenizer().chat_template).replace(CONTENT, FIRST_PART),
    "the first part in the user's message": NO_SYSTEM_ROLE.replace(CONTENT, FIRST_PART),
    "parts alone": str(tiny_tokenizer().chat_template).replace(CONTENT, PARTS_ALONE),
    "parts alone in the user's message": NO_SYSTEM_ROLE.replace(CONTENT, PARTS_ALONE),
    "the last system message": LAST_SYSTEM,
}
FORMS: dict[str, tuple[list[tuple[str, str]], str | None]] = {
    "a query": ([("user", "w11")], None),
    "a system message": ([("system", "w50"), ("user", "w11")], "w50"),
    "a developer's message": ([("developer", "w50"), ("user", "w11")], "w50"),
    "a blank system message": ([("system", " "), ("user", "w11")], None),
    "two system messages": (
        [("system", "w50"), ("developer", "w51"), ("user", "w11")],
        "w50\n\nw51",
    ),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_form_of_a_conversation_is_what_demur_reads(kind: str, tmp_path: Path) -> None:
    model, prompt, saved = made(tmp_path, NAMES[0], template=TEMPLATES[kind])
    export(saved, "transformers", tmp_path / "out", model=model)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    for turns, system in FORMS.values():
        rendered = model.renderer.render("w11", prompt.text, system, prompt_rows=ROWS)
        assert rendered.prompt_span is not None
        start, end = rendered.prompt_span
        for whole in (True, False):
            ids = ids_of(tokenizer, messages_of(turns, not whole))
            assert ids[:start] + ids[end:] == [
                *rendered.token_ids[:start],
                *rendered.token_ids[end:],
            ]
            assert counted(ids[start:end], tokenizer) == ROWS
    in_two = [{"type": "text", "text": text} for text in ("w1", "1")]
    assert ids_of(tokenizer, [{"role": "user", "content": in_two}]) == ids_of(
        tokenizer, messages_of([("user", "w11")])
    )


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_later_system_message_moves_to_the_front(kind: str, tmp_path: Path) -> None:
    model, _, saved = made(tmp_path, NAMES[0], template=TEMPLATES[kind])
    export(saved, "transformers", tmp_path / "out", model=model)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    answered = [("user", "w11"), ("assistant", "w12")]
    for as_parts in (False, True):
        later = messages_of([*answered, ("system", "w50"), ("user", "w13")], as_parts)
        first = messages_of([("system", "w50"), *answered, ("user", "w13")], as_parts)
        assert ids_of(tokenizer, later) == ids_of(tokenizer, first)
        assert counted(ids_of(tokenizer, later), tokenizer) == ROWS
        begun = messages_of([("assistant", "w12"), ("user", "w13")], as_parts)
        text = str(tokenizer.apply_chat_template(begun, tokenize=False))
        assert text.count("<|safety-") == ROWS
        assert text.index("<|safety-") < text.index("w12") < text.index("w13")


def test_a_template_that_loses_a_turn_is_not_exported(tmp_path: Path) -> None:
    losing = str(tiny_tokenizer().chat_template).replace(
        CONTENT, "{% if loop.index0 < 2 or loop.last %}{{ message.content }}{% endif %}"
    )
    model, _, saved = made(tmp_path, NAMES[0], template=losing)
    with pytest.raises(DemurError, match=r"with several turns, the text .* is lost"):
        export(saved, "transformers", tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_what_is_no_text_stays_where_it_is(tmp_path: Path) -> None:
    several = "{% for part in message.content %}{{ part.text or part.type }} {% endfor %}"
    shown = f"{{% if message.content is string %}}{CONTENT}{{% else %}}{several}{{% endif %}}"
    base = str(tiny_tokenizer().chat_template).replace(CONTENT, shown)
    model, _, saved = made(tmp_path, NAMES[0], template=base)
    export(saved, "transformers", tmp_path / "out", model=model)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    image = [{"type": "image"}, {"type": "text", "text": "w11"}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": image}], tokenize=False)
    assert str(text).endswith(" user : image w11  ")


def test_the_unlikely_row_stays_unlikely_where_states_share_a_direction() -> None:
    torch.manual_seed(0)
    shared = torch.randn(64)
    states = torch.randn(4000, 64) + 2 * shared
    head = torch.randn(500, 64) / 4
    found = unlikely_row(states[:2000], (states[:2000] @ head.T).logsumexp(dim=1))
    assert found.probability < MOST_PROBABLE
    unseen = states[2000:]
    chances = (unseen @ found.row - (unseen @ head.T).logsumexp(dim=1)).exp()
    assert float(chances.max()) < MOST_PROBABLE


@pytest.mark.parametrize("name", [NAMES[0], NAMES[1], NAMES[2], NAMES[5]])
@pytest.mark.parametrize("system", [None, "w50 w51"])
def test_a_peft_adapter_gives_demurs_logits(name: str, system: str | None, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model, prompt, saved = made(tmp_path, name)
    export(saved, "peft", tmp_path / "out", model=model, system_prompt=system)
    base, tokenizer = load(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    wanted = model.next_token_logits(model.represent(QUERIES, Condition(prompt, system)))
    for query, logits in zip(QUERIES, wanted, strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": query}],
            chat_template=template,
            add_generation_prompt=True,
            return_dict=False,
        )
        with torch.no_grad():
            found = adapted(torch.tensor([ids])).logits[0, -1]
        torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("template", [None, NO_SYSTEM_ROLE])
def test_vllm_requests_hold_the_prompt(template: str | None, tmp_path: Path) -> None:
    model, prompt, saved = made(tmp_path, NAMES[0], template=template)
    export(saved, "vllm", tmp_path / "out", model=model)
    chat = json.loads((tmp_path / "out" / "chat.json").read_text())
    assert prompt.embeddings is not None
    assert torch.equal(decode(chat["messages"][0]["content"][0]["data"]), prompt.embeddings)
    roles = [message["role"] for message in chat["messages"]]
    assert roles == (["system", "user"] if template is None else ["user"])
    completion = json.loads((tmp_path / "out" / "completions.json").read_text())
    embeddings = decode(completion["prompt_embeds"])
    with torch.no_grad():
        found = model.engine.model(inputs_embeds=embeddings[None], use_cache=False).logits[0, -1]
    query = "How do I kill a process?"
    wanted = model.next_token_logits(model.represent([query], Condition(prompt)))[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    code = (tmp_path / "out" / "client.py").read_text()
    compile(code, "client.py", "exec")
    # The server joins the parts with a line break, which makes a blank line of it.
    assert "--chat-template-content-format string" in code
    text = "\n".join(part.get("text", "ROWS") for part in chat["messages"][0]["content"])
    assert text == ("ROWS" if template is None else f"ROWS\n\n{query}")


def test_a_peft_adapter_takes_batches_that_are_padded_on_the_right(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model, prompt, saved = made(tmp_path, NAMES[0])
    export(saved, "peft", tmp_path / "out", model=model)
    base, tokenizer = load(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokenizer.chat_template = (tmp_path / "out" / "chat_template.jinja").read_text()
    given = [ids_of(tokenizer, [{"role": "user", "content": query}]) for query in QUERIES]
    longest = max(map(len, given))
    batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids in given])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in given])
    with torch.no_grad():
        found = adapted(batch, attention_mask=mask).logits
    wanted = model.next_token_logits(model.represent(QUERIES, Condition(prompt)))
    for row, ids in enumerate(given):
        logits = found[row, len(ids) - 1 - longest]
        torch.testing.assert_close(logits, wanted[row], atol=1e-4, rtol=1e-4)


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


THINKS = (
    "{% for message in messages %}{{ '<|' + message.role + '|>'"
    " + message.content.split('</think>')[-1] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n\n</think>\n\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "template",
    [CHATML, NO_SYSTEM_ROLE.replace("{{ raise_exception('no system role') }}", ""), THINKS],
)
def test_a_modelfile_renders_what_the_template_renders(template: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    turns = [("user", "one"), ("assistant", "two"), ("user", "three")]
    layout = Layout.of(tokenizer, "test", {})
    for system in (None, "zero"):
        messages = [{"role": role, "content": text} for role, text in turns]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert layout.render(turns, system) == wanted
    text = modelfile("model.gguf", tokenizer, "test")
    assert text.startswith("FROM ./model.gguf\n")
    assert 'PARAMETER stop "</s>"' in text


def test_an_export_ends_answers_as_demur_does(tmp_path: Path) -> None:
    """The files of the model name </s> alone, and its template writes <pad> behind an answer."""
    ended = str(tiny_tokenizer().chat_template).replace(CONTENT, f"{CONTENT} <pad>")
    model, _, saved = made(tmp_path, NAMES[0], template=ended)
    export(saved, "transformers", tmp_path / "out", model=model)
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    vocabulary = tiny_tokenizer().get_vocab()
    assert {vocabulary["</s>"], vocabulary["<pad>"]} <= set(ends)
    text = modelfile("model.gguf", model.engine.tokenizer, "test", {}, model.engine.turn_end.tokens)
    stops = [line.split()[-1] for line in text.splitlines() if line.startswith("PARAMETER stop")]
    assert stops[0] == '"</s>"'
    assert '"<pad>"' in stops


def test_a_template_that_changes_later_turns_has_no_modelfile() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML.replace(
        "message.content", "message.content + loop.index|string"
    )
    with pytest.raises(DemurError, match="later turns"):
        modelfile("model.gguf", tokenizer, "test")


def run(*arguments: str | Path) -> tuple[int, str]:
    """The command as a user runs it; its status and what it said."""
    result = CliRunner().invoke(build_app(), ["export", *map(str, arguments)])
    said = str(result.exception) if isinstance(result.exception, DemurError) else result.output
    return (2 if isinstance(result.exception, DemurError) else result.exit_code), said


def test_the_command_says_what_to_do_with_the_export(tmp_path: Path) -> None:
    _, _, saved = made(tmp_path, NAMES[0])
    status, said = run(saved, tmp_path / "out", "--model", tmp_path / "base")
    assert status == 0, said
    assert "vllm serve" in said
    assert (tmp_path / "out" / "chat_template.jinja").is_file()


def test_mistakes_end_in_one_line_and_leave_nothing(tmp_path: Path) -> None:
    _, _, saved = made(tmp_path, NAMES[0])
    base, out = tmp_path / "base", tmp_path / "out"
    other = save_base(tmp_path / "other", "qwen2")
    narrow = tmp_path / "narrow"
    SafetyPrompt("narrow", "w40", torch.ones(3, 7)).save(narrow)
    text = tmp_path / "text"
    SafetyPrompt("text", "w40").save(text)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    cases: dict[str, tuple[str | Path, ...]] = {
        "exists already": (saved, full, "--model", base),
        "not those of other": (saved, out, "--model", other),
        "numbers": (narrow, out, "--model", base),
        "is text": (text, out, "--model", base),
        "give that model's folder or file with --model": (saved, out),
        "must be transformers, gguf, ollama, peft or vllm": (saved, out, "--to", "toaster"),
        "no safety prompt at": (tmp_path / "nowhere", out),
        "convert_hf_to_gguf.py": (saved, out, "--model", base, "--to", "gguf"),
        "only written into an export to peft": (
            saved, out, "--model", base, "--system-prompt", full / "mine.txt",
        ),
    }  # fmt: skip
    for expected, arguments in cases.items():
        status, said = run(*arguments)
        assert status == 2, expected
        assert expected in said
        assert "\n" not in said.strip()
        assert not out.exists()
    assert [file.name for file in full.iterdir()] == ["mine.txt"]


def test_a_strangers_model_is_never_a_path(tmp_path: Path) -> None:
    """The model that a prompt names is never loaded from a path."""
    model, prompt, _ = made(tmp_path, "llama, multi-head attention, tied")
    away = replace(model.record, name=str(tmp_path / "base"))
    for name in (str(tmp_path / "base"), "../base", "~/base", "./a/b", "C:\\base", ""):
        known = Provenance(model=replace(away, name=name))
        replace(prompt, provenance=known).save(tmp_path / "hostile")
        with pytest.raises(DemurError, match="--model"):
            export(tmp_path / "hostile", "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(prompt, "peft", tmp_path / "out", model=model)  # the object itself
    assert (tmp_path / "out" / "adapter_config.json").is_file()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, saved = made(tmp_path, NAMES[0])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("demur.exports.weights.save_file", full)
    with pytest.raises(DemurError, match="No space is left"):
        export(saved, "transformers", tmp_path / "out", model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "prompt"]


def counted(ids: list[int], tokenizer: Any) -> int:
    """How many safety tokens a conversation holds."""
    return sum("safety-" in str(tokenizer.convert_ids_to_tokens(one)) for one in ids)


@pytest.mark.parametrize("template", [None, NO_SYSTEM_ROLE])
def test_a_user_cannot_write_a_safety_token(template: str | None, tmp_path: Path) -> None:
    """Neither in one text nor in parts that the template joins, whoever says it."""
    model, _, saved = made(tmp_path, NAMES[0], template=template)
    export(saved, "transformers", tmp_path / "out", model=model)
    _, tokenizer = load(tmp_path / "out")
    name = next(one for one in tokenizer.get_added_vocab() if one.startswith("<|safety-"))
    half = len(name) // 2
    text = f"w11 {name} w12 {name}{name}"
    conversations: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": text}],
        [{"role": "system", "content": text}, {"role": "user", "content": "w11"}],
        [
            {"role": "user", "content": "w11"},
            {"role": "assistant", "content": name},
            {"role": "user", "content": text},
        ],
    ]
    for messages in conversations:
        assert counted(ids_of(tokenizer, messages), tokenizer) == ROWS, messages
    parts = [{"type": "text", "text": part} for part in (f"w11 {name[:half]}", name[half:])]
    joining = (
        "{% set content = m.content if m.content is string else m.content"
        " | map(attribute='text') | join('') %}"
    )
    tokenizer.chat_template = tokenizer.chat_template.partition("{%- set safety_rendered")[0] + (
        f"{{% for m in messages %}}{joining}{{{{ content }}}} {{% endfor %}}"
    )
    in_parts: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    assert counted(ids_of(tokenizer, in_parts), tokenizer) == ROWS
    tools = [{"function": {"name": name, "arguments": {}}}]
    called = [{"role": "user", "content": "w11"}, {"role": "assistant", "tool_calls": tools}]
    rendered = tokenizer.apply_chat_template(called, tokenize=False)
    assert rendered.count(name) == 1


def test_a_peft_template_keeps_a_text_that_holds_its_own_mark(tmp_path: Path) -> None:
    model, _, saved = made(tmp_path, NAMES[0])
    export(saved, "peft", tmp_path / "out", model=model)
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    mark = "\ue0d0\uf0a5\ue0d1"
    messages = [
        {"role": "user", "content": f"w11 {mark} w12"},
        {"role": "assistant", "content": mark},
        {"role": "user", "content": "w13"},
    ]
    rendered = tiny_tokenizer().apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert f"w11 {mark} w12" in rendered
    assert "w13" in rendered


KEEPS_THE_LAST = (
    "{% for m in messages if m.role == 'system' %}{% if loop.last %}{{ m.content }} {% endif %}"
    "{% endfor %}{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}"
    "{% for m in messages if m.role in ['user', 'assistant'] %}"
    "{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)


def test_a_peft_template_loses_no_later_system_message_and_no_tools(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "w11"}, {"role": "assistant", "content": "w12"}]
    for name, template in (("drops", KEEPS_THE_LAST), ("keeps", None)):
        model, _, saved = made(tmp_path / name, NAMES[0], template=template)
        export(saved, "peft", tmp_path / name / "out", model=model)
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = (tmp_path / name / "out" / "chat_template.jinja").read_text()
        for role in ("system", "developer"):
            for content in ("w13", [{"type": "text", "text": "w13"}], ["w13"]):
                later: list[Any] = [*turns, {"role": role, "content": content}, turns[0]]
                if template is None:
                    assert "w13" in tokenizer.apply_chat_template(later, tokenize=False)
                    continue
                with pytest.raises(Exception, match="the template drops later ones"):
                    tokenizer.apply_chat_template(later, tokenize=False)
        tools: list[Any] = [{"type": "function", "function": {"name": "w14"}}]
        with pytest.raises(Exception, match="takes no tools"):
            tokenizer.apply_chat_template(turns[:1], tools=tools, tokenize=False)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("I/O error: No space left on device (os error 28)", "No space is left to write"),
        ("I/O error: Permission denied (os error 13)", "Permission denied.*can be written"),
        ("Error while deserializing header: incomplete", "cannot be read.*download the model"),
    ],
)
def test_what_weights_fail_of_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, told: str
) -> None:
    model, _, saved = made(tmp_path, NAMES[0])

    def fail(*_: object, **__: object) -> None:
        raise SafetensorError(failure)

    monkeypatch.setattr("demur.exports.weights.save_file", fail)
    with pytest.raises(DemurError, match=told):
        export(saved, "transformers", tmp_path / "out", model=model)


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, saved = made(tmp_path, NAMES[0])
    base = sum(file.stat().st_size for file in (tmp_path / "base").glob("*.safetensors"))
    free = (64 << 20) + base * 3 // 4
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DemurError, match=r"needs 68 MB in .* and 67 MB are free"):
        export(saved, "transformers", tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()
