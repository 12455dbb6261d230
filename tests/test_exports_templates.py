"""Exported chat templates: no form of a conversation loses the safety prompt or a system text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from demur import ChatModel, DemurError, SafetyPrompt
from demur.chat.gguf_header import read_header
from demur.chat.rendering import ChatRenderer
from demur.exports import export
from demur.exports.opening import (
    OpenedTemplate,
    SafetyTokens,
    open_template,
    safety_token_names,
)
from demur.exports.template_forms import FORMS
from demur.progress import SilentProgress
from demur.prompts import Provenance
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_gguf import save_exact, tokenizer_like
from tests.tiny_tokenizers import backend_state

PROMPT = SafetyPrompt("trained", "You are careful.", torch.randn(4, 8))
END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CALLS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.content is defined and m.content is not none %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}" + END
)
TOOLS_TOO = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}" + CALLS
IN_LAST = (
    "{% set system = messages[0].content if messages[0].role == 'system' else none %}"
    "{% for m in (messages[1:] if system else messages) %}{% if m.role == 'user' %}"
    "{{ '[INST]' + (system + '\n\n' if system and loop.last else '') + m.content + '[/INST]' }}"
    "{% elif m.tool_calls %}{{ m.tool_calls | tojson }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
FIRST_PART = CALLS.replace(
    "{{ m.content }}", "{{ m.content if m.content is string else m.content[0].text }}"
)


def tokenizer() -> Any:
    backend = Tokenizer.from_str(backend_state("gpt4"))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def opened(template: str) -> tuple[OpenedTemplate, Any]:
    """A template that opens with the prompt, and a tokenizer to render it with."""
    base = tokenizer()
    tokens = SafetyTokens.added(base, PROMPT, "test")
    found = open_template(ChatRenderer(base, template=template), tokens, "test")
    tokens.tokenizer.chat_template = found.template
    return found, tokens.tokenizer


def rendered(tokenizer: Any, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert text.count("<|safety-") == PROMPT.rows
    return text


def outcomes(found: OpenedTemplate) -> dict[str, str]:
    return {trial.form.name: trial.outcome for trial in found.trials}


SHIPPED = [
    one
    for one in sorted(file.name for file in resources.files("demur.chat.templates_data").iterdir())
    if one.endswith(".jinja") and one != "wildguard.jinja"
]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_templates_of_this_package_pass_in_every_form(name: str) -> None:
    file = resources.files("demur.chat.templates_data") / name
    found, _ = opened(file.read_text(encoding="utf-8"))
    assert set(outcomes(found)) == {form.name for form in FORMS}
    assert outcomes(found)["two system messages, one of them later"] == "as in the run"
    refused = [name for name, one in outcomes(found).items() if one == "refused by the template"]
    assert set(refused) <= {"a system message alone"}


def test_the_template_of_a_guard_is_refused_in_one_sentence() -> None:
    file = resources.files("demur.chat.templates_data") / "wildguard.jinja"
    with pytest.raises(DemurError, match="does not render a plain conversation"):
        opened(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("template", [CALLS, FIRST_PART, IN_LAST])
def test_calls_and_results_of_tools_are_kept(template: str) -> None:
    found, made = opened(template)
    assert outcomes(found)["the result of a tool"] == "whole"
    function = {"name": "find_shop", "arguments": {"town": "Ulm"}}
    in_parts = [{"type": "text", "text": text} for text in ("In the ", "market.")]
    for content in ("In the market.", in_parts):
        text = rendered(
            made,
            [
                {"role": "system", "content": "You bake."},
                {"role": "user", "content": "Where?"},
                {"role": "assistant", "tool_calls": [{"function": function}]},
                {"role": "tool", "content": content, "tool_call_id": "a"},
            ],
        )
        assert all(one in text for one in ("You bake.", "Where?", "find_shop", "In the market."))
        assert "'type'" not in text


@pytest.mark.parametrize("template", [CALLS, FIRST_PART, IN_LAST])
@pytest.mark.parametrize(
    "content",
    [
        ["You bake."],
        ["You ", {"type": "text", "text": "bake."}],
        [{"type": "input_text", "text": "You bake."}],
        [{"type": "output_text", "text": "You bake."}],
        [{"text": "You bake."}],
        {"type": "text", "text": "You bake."},
    ],
)
def test_a_text_in_another_kind_of_part_is_kept(template: str, content: Any) -> None:
    _, made = opened(template)
    others = [{"role": "assistant", "content": "Bread."}, {"role": "user", "content": "Where?"}]
    for role in ("system", "developer", "user"):
        messages: list[dict[str, Any]] = [{"role": role, "content": content}, *others]
        plain: list[dict[str, Any]] = [{"role": role, "content": "You bake."}, *others]
        assert rendered(made, messages) == rendered(made, plain)
    name = safety_token_names(PROMPT)[0]
    for parts in ([name[:9], {"type": "input_text", "text": name[9:]}], [{"type": "x", "x": name}]):
        assert "Where?" in rendered(made, [{"role": "user", "content": [*parts, "Where?"]}])


@pytest.mark.parametrize("part", [{"type": "image"}, {"type": "document", "text": "You bake."}])
def test_a_system_message_of_other_things_is_refused(part: dict[str, str]) -> None:
    _, made = opened(CALLS)
    messages: list[dict[str, Any]] = [{"role": "system", "content": [part]}]
    with pytest.raises(Exception, match="holds other things than text"):
        rendered(made, messages)


def test_a_system_message_that_the_template_drops_opens_the_users_message() -> None:
    found, made = opened(IN_LAST)
    assert found.way.place == "last message"
    assert outcomes(found)["several turns and a system message"] == "as in the run"
    text = rendered(
        made,
        [
            {"role": "system", "content": "You bake."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Three?"},
        ],
    )
    assert text.index("Two.") < text.index("<|safety-") < text.index("You bake.\n\nThree?")


def test_a_conversation_that_would_lose_the_prompt_is_refused() -> None:
    """Also where no form that is tried shows it."""
    losing = CALLS.replace(
        "messages %}", "(messages[5:] if messages | length > 6 else messages) %}"
    )
    _, made = opened(losing)
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant") * 4]
    rendered(made, turns[:5])
    with pytest.raises(Exception, match="loses the safety prompt or a system message"):
        rendered(made, turns)


@pytest.mark.parametrize("thought", ["", "<think>"])
def test_white_space_around_a_template_stays(thought: str) -> None:
    template = f"  {CALLS.replace(END, END.replace('assistant', 'assistant' + thought))} \n"
    base = tokenizer()
    renderer = ChatRenderer(base, template=template)
    _, made = opened(template)
    text = rendered(made, [{"role": "user", "content": "One?"}], add_generation_prompt=True)
    start, end = text.index("<|safety-"), text.rindex("|>", 0, text.index("One?"))
    assert start < end
    wanted = renderer.render_text("One?", "SAFE")
    mark = "".join(made.convert_ids_to_tokens(range(len(base), len(base) + PROMPT.rows)))
    assert text.replace(mark, "SAFE") == wanted


def made_base(tmp_path: Path, templates: dict[str, str]) -> tuple[ChatModel, Path]:
    base, prompt = tmp_path / "base", tmp_path / "prompt"
    tiny_model("llama, grouped attention").save_pretrained(base)
    small = tiny_tokenizer()
    small.chat_template = {"default": str(small.chat_template), **templates}
    small.save_pretrained(base)
    model = ChatModel.load(base, dtype="float32")
    SafetyPrompt(
        "trained", "w40 w41", torch.randn(4, model.width), Provenance(model=model.record)
    ).save(prompt)
    return model, prompt


def test_a_second_template_opens_with_the_prompt_too(tmp_path: Path) -> None:
    model, prompt = made_base(tmp_path, {"tool_use": TOOLS_TOO})
    export(prompt, "transformers", tmp_path / "out", model=model)
    made: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    tool = {"type": "function", "function": {"name": "w30", "description": "w31"}}
    messages = [{"role": "system", "content": "w50"}, {"role": "user", "content": "w11"}]
    text = rendered(made, messages, tools=[tool])
    assert "w30" in text
    assert "w50" in text
    assert "w30" not in rendered(made, messages)


class Listening(SilentProgress):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_second_template_that_cannot_open_is_left_out_and_named(tmp_path: Path) -> None:
    losing = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ messages[-1].content }}"
    model, prompt = made_base(tmp_path, {"tool_use": losing.replace("messages[-1]", "messages[5]")})
    heard = Listening()
    export(prompt, "transformers", tmp_path / "out", model=model, progress=heard)
    made: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert isinstance(made.chat_template, str)
    (said,) = [one for one in heard.messages if "tool_use" in one]
    assert "left out" in said
    assert "does not list tools" in said


@pytest.mark.usefixtures("own_cache")
def test_a_gguf_export_holds_both_templates(tmp_path: Path) -> None:
    made = tokenizer_like("gpt-2", CALLS)
    made.chat_template = {"default": CALLS, "tool_use": TOOLS_TOO}
    model = ChatModel.load(save_exact(tmp_path / "base", "llama", made), dtype="float32")
    rows = torch.randn(4, model.width).half().float()
    prompt = SafetyPrompt("trained", "You are kind", rows, Provenance(model=model.record))
    done = export(prompt, "gguf", tmp_path / "out", model=model)
    (file,) = done.path.iterdir()
    templates = read_header(file, "test").templates
    assert set(templates) == {"default", "tool_use"}
    for text in templates.values():
        assert all(name in text for name in safety_token_names(prompt))
