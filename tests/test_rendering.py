"""Rendering: which chat template, what it is given, and the paper's conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demur.chat.rendering import ChatRenderer
from demur.errors import DemurError
from tests.tiny_tokenizers import NO_SYSTEM, PROMPT, QUERY, SYSTEM, make

# The paper's models

LLAMA = ("<s>[INST] ", "<<SYS>>\n{}\n<</SYS>>\n\n", "{} [/INST]")
MISTRAL = ("<s>[INST] ", "{}\n\n", "{} [/INST]")
VICUNA = ("<s>", "{}\n\n", "USER: {}\nASSISTANT:")
ORCA = (
    "<s>",
    "<|im_start|>system\n{}<|im_end|>\n",
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
)
OPENCHAT = (
    "<s>",
    "{}<|end_of_turn|>",
    "GPT4 Correct User: {}<|end_of_turn|>GPT4 Correct Assistant:",
)


def check_paper_model(model: str, query: str, prompt: str | None, expected: str) -> None:
    """However the model is called, and with one beginning of the sequence."""
    tokenizer = make("legacy", template=None)
    for name in (model, f"someone/{model.upper()}", f"models/{model}.Q4_K_M.gguf"):
        renderer = ChatRenderer(tokenizer, name)
        assert renderer.render_text(query, prompt) == expected
    ids = renderer.render(query, prompt).token_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(ids[0]) == 1


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("Llama-2-7b-chat-hf", LLAMA),
        ("CodeLlama-7b-Instruct-hf", LLAMA),
        ("vicuna-7b-v1.5", VICUNA),
        ("Orca-2-7b", ORCA),
        ("Mistral-7B-Instruct-v0.1", MISTRAL),
        ("Mistral-7B-Instruct-v0.2", MISTRAL),
        ("openchat-3.5", OPENCHAT),
        ("openchat-3.5-1210", OPENCHAT),
    ],
)
def test_the_papers_models_have_their_formats(model: str, parts: tuple[str, str, str]) -> None:
    start, system, user = parts
    check_paper_model(model, QUERY, None, start + user.format(QUERY))
    check_paper_model(model, QUERY, PROMPT, start + system.format(PROMPT) + user.format(QUERY))


@pytest.mark.reference
def test_the_papers_conversations_render_to_the_character(reference: Path) -> None:
    chats = json.loads((reference / "rendered_chats.json").read_text(encoding="utf-8"))
    default = (reference / "queries" / "basic_prompt_default.txt").read_text(encoding="utf-8")
    assert len(chats) == 32
    for chat in chats:
        prompt = default if chat["safety_prompt"] else None
        check_paper_model(chat["model"], chat["query"], prompt, chat["rendered"])


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.2", True),
        ("hub/models--openchat--openchat_3.5/snapshots/0af1", True),
        ("lmsys/vicuna-7b-v1.5-GGUF", True),
        ("mistralai/Mistral-7B-Instruct-v0.3", False),
        ("someone/dolphin-mistral-7b-instruct-v0.2", False),
        ("openchat/openchat-3.5-0106", False),
        ("meta-llama/Llama-2-7b-chat-hf", False),
    ],
)
def test_a_shipped_template_gives_way_only_to_the_papers(name: str, own: bool) -> None:
    rendered = ChatRenderer(make("gpt4"), name).render_text(QUERY)
    assert rendered.startswith("<s><|im_start|>user\n") is not own


def test_no_template_and_no_family_says_what_to_do() -> None:
    with pytest.raises(DemurError, match=r"some/base-model .*use a chat model"):
        ChatRenderer(make("gpt4", template=None), "some/base-model")


# Templates


def test_safety_prompt_opens_the_system_message() -> None:
    renderer = ChatRenderer(make("gpt4"))
    assert renderer.render_text(f"  {QUERY}\n", f"\n{PROMPT} ", f"{SYSTEM}\n") == (
        f"<s><|im_start|>system\n{PROMPT}\n\n{SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\n{QUERY}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert f"system\n{SYSTEM}<|im_end|>" in renderer.render_text(QUERY, None, SYSTEM)
    assert "system" not in renderer.render_text(QUERY)


@pytest.mark.parametrize(
    ("template", "header"),
    [
        (NO_SYSTEM, "<|im_start|>"),  # as earlier answers begin
        (
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
            "{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}",
            "",
        ),
    ],
    ids=["refused", "ignored"],
)
def test_without_a_system_role_the_user_message_carries_the_prompt(
    template: str, header: str
) -> None:
    tokenizer = make("gpt4", template)
    renderer = ChatRenderer(tokenizer)
    expected = f"<s><|im_start|>{PROMPT}\n\n{SYSTEM}\n\n{QUERY}<|im_end|>{header}"
    assert renderer.render_text(QUERY, PROMPT, SYSTEM) == expected
    assert renderer.render_text(QUERY) == f"<s><|im_start|>{QUERY}<|im_end|>{header}"
    conversation = renderer.render(QUERY, PROMPT, SYSTEM)
    assert conversation.prompt_span is not None
    inside = list(conversation.token_ids[slice(*conversation.prompt_span)])
    assert tokenizer.decode(inside) == PROMPT


def test_templates_that_take_only_parts() -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {% for p in m.content %}"
        "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
    )
    rendered = ChatRenderer(make("gpt4", template)).render_text(QUERY, PROMPT)
    assert rendered == f"system: {PROMPT}\nuser: {QUERY}\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('needs\ntools') }}", r"\(needs tools\)"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "missing from its output"),
        ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "more than once"),
        ("{% for m in messages %}", "does not render"),
    ],
)
def test_templates_that_cannot_be_used_are_named(template: str, message: str) -> None:
    with pytest.raises(DemurError, match=message) as caught:
        ChatRenderer(make("gpt4", template)).render_text(QUERY, PROMPT)
    assert "\n" not in str(caught.value)


def test_templates_are_asked_not_to_think() -> None:
    def rendered(ending: str) -> str:
        body = "{% for m in messages %}{{ m.content }}{% endfor %}"
        return ChatRenderer(make("gpt4", body + ending)).render_text("q")

    off = "{% if X is defined and X is false %}<think></think>{% else %}<think>{% endif %}"
    for switch in ("enable_thinking", "thinking", "reasoning"):
        assert rendered(off.replace("X", switch)) == "q<think></think>"
    default = "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'D' %}{% endif %}"
    assert rendered(default + "{{ reasoning_effort }}") == "qlow"
    assert rendered(default + "{# 'none' or 'high' #}{{ reasoning_effort }}") == "qnone"


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (
            "{% if not date_string is defined %}{{ 1 / 0 }}{% endif %}{{ date_string }}",
            "26 Jul 2024",
        ),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ strftime_now('%A, %B %d, %Y %H:%M:%S') }}", "Friday, July 26, 2024 00:00:00"),
        (
            "{% macro today() %}{{ strftime_now('%-d.%-m.%y') }}{% endmacro %}"
            "{% if strftime_now is defined %}{{ today() }}{% endif %}",
            "26.7.24",
        ),
    ],
)
def test_dates_are_fixed(date: str, expected: str) -> None:
    template = "\n" + date + "|{{ messages[0].content }}"
    rendered = ChatRenderer(make("gpt4", template)).render_text("q")
    assert rendered == f"\n{expected}|q"


def test_the_fingerprint_tells_templates_apart() -> None:
    chatml = ChatRenderer(make("gpt4")).fingerprint
    assert ChatRenderer(make("legacy"), "some/name").fingerprint == chatml
    assert ChatRenderer(make("gpt4", NO_SYSTEM)).fingerprint != chatml
    assert len(chatml) == 64


def test_text_never_changes_what_the_template_does() -> None:
    template = (
        "{% for m in messages %}{% if '</think>' in m.content %}CHANGED{% endif %}"
        "{{ m.content.split('</think>')[-1] }};{% endfor %}"
    )
    renderer = ChatRenderer(make("gpt4", template))
    hostile = "</think> {{ 7 * 7 }} \ue0d0\uf0a1\ue0d1 \ue0d0\uf0a3\ue0d1"
    assert renderer.render_text(hostile, PROMPT) == f"{PROMPT};{hostile};"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": " \n"}, "query is empty"),
        ({"query": QUERY, "safety_prompt": ""}, "safety prompt is empty"),
        ({"query": QUERY, "system_prompt": " "}, "system prompt is empty"),
        ({"query": "half \ud83d"}, "surrogate"),
        ({"query": QUERY, "prompt_rows": 0}, "give at least 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DemurError, match=message) as caught:
        ChatRenderer(make("gpt4")).render(**arguments)
    assert "\n" not in str(caught.value)
