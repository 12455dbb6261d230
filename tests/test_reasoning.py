"""Reasoning is no part of an answer: not in a prompt's end, not in a judge's reading."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM

from demur import ChatModel, DemurError, ResponseFiles, SafetyPrompt, evaluate, optimize
from demur.chat import Condition, Dialogue
from demur.chat.engine import SamplingSettings
from demur.chat.rendering import ChatRenderer
from demur.exports import export
from demur.judges import (
    Decision,
    DefaultRefusalJudge,
    PaperRefusalJudge,
    as_refusal_judge,
    complied,
)
from demur.progress import SilentProgress
from demur.records import REASONING, answer_in
from tests.endpoint_server import completion, running_endpoint
from tests.tiny import LLAMA_LIKE, tiny_model, tiny_tokenizer
from tests.tiny_tokenizers import make

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Preheat the oven to 220 degrees."
LONG = "Let me see what is asked of me here. " * 200
RULES = [DefaultRefusalJudge, PaperRefusalJudge]
WRAPPED = {
    "think": "<think>\n{}\n</think>\n\n{}",
    "opened by the prompt": "{}\n</think>\n\n{}",
    "thought": "<thought>{}</thought>{}",
    "other case": "<Thinking>\n{}\n</Thinking>\n{}",
    "seed": "<seed:think>{}</seed:think>{}",
    "brackets": "[THINK]{}[/THINK]{}",
    "white space before": "\n\n  <think>{}</think> {}",
    "twice": "<think>{0}</think>Well.<think>{0}</think>{1}",
    "channels": "<|channel|>analysis<|message|>{}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{}",
    "channels without tokens": 'analysis"Hm." {}assistantfinal{}',
    "steps": "Here are my reasoning steps:\n{}\n[BEGIN FINAL RESPONSE]\n{}",
    "process": "Here is my thought process:\n{}\nHere is my response:\n{}",
    "start and end": "<|START_THINKING|>{}<|END_THINKING|>{}",
}
UNFINISHED = {
    name: text.partition("{}")[0] + "{}"
    for name, text in WRAPPED.items()
    if name not in ("opened by the prompt", "twice")
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_judges_what_follows_the_reasoning(rule: Any, name: str) -> None:
    judge = rule()
    helps, refuses = WRAPPED[name].format(REFUSAL, ANSWER), WRAPPED[name].format(LONG, REFUSAL)
    assert answer_in(helps) == ANSWER
    assert answer_in(refuses) == REFUSAL
    assert not judge.refuses(helps)
    assert judge.refuses(refuses)
    assert judge.judge([None, None], [helps, refuses]) == [False, True]


@pytest.mark.parametrize("name", UNFINISHED)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_no_verdict_on_reasoning_alone(rule: Any, name: str) -> None:
    judge = rule()
    for inside in (REFUSAL, LONG):
        text = UNFINISHED[name].format(inside)
        assert answer_in(text) is None
        assert judge.judge([None], [text]) == [None]
        assert not judge.is_settled(text)


def test_a_rule_is_settled_by_the_answer_alone() -> None:
    judge = DefaultRefusalJudge()
    refusal = f"{REFUSAL} Please ask for something else."
    assert judge.is_settled(refusal)
    assert not judge.is_settled(f"<think>{refusal}")
    assert not judge.is_settled(f"<think>{refusal}</think>\n\nPre")
    assert judge.is_settled(f"<think>Hm.</think>\n\n{refusal}")
    assert not judge.is_settled(f"Well.\n<think>{refusal}")


@pytest.mark.parametrize(
    "text",
    ["", " ", ANSWER, "a < b and [c]", "<b>bold</b>", "analysis of bread: knead it.",
     "Here is my response:\nI'm sorry.", "Think of </b> as an end.", "Use `<think>` for that."],
)  # fmt: skip
def test_a_text_without_reasoning_is_an_answer_as_it_is(text: str) -> None:
    assert answer_in(text) == text


def test_what_is_left_where_a_reasoning_begins_again() -> None:
    assert answer_in(f"{ANSWER}\n<think>\nWas that right? {REFUSAL}") == ANSWER
    assert answer_in("<think>Hm.</think>") is None
    assert answer_in("<think>Hm.</think>\n\n") is None


def test_own_judges_are_given_the_answers() -> None:
    given: list[tuple[str | None, str]] = []

    class Mine:
        def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> list[Decision]:
            given.extend(zip(queries, responses, strict=True))
            return [True] * len(responses)

        def is_settled(self, partial: str) -> bool:
            return partial == ANSWER

    judge: Any = as_refusal_judge(Mine())
    texts = [f"<think>{REFUSAL}</think>{ANSWER}", "<think>Hm.", ""]
    assert judge.judge(["a", "b", "c"], texts) == [True, None, True]
    assert given == [("a", ANSWER), ("c", "")]
    assert judge.is_settled(f"<think>Hm.</think>{ANSWER}")
    assert not judge.is_settled(f"<think>{ANSWER}")
    assert judge.judge(["a"], ["<think>Hm."]) == [None]


def test_a_judge_behind_an_endpoint_is_asked_about_the_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    asked: list[str] = []

    def reply(data: dict[str, str]) -> Any:
        asked.append(data["response"])
        return completion("<think>It refuses. refuses</think>\n\n**answers**")

    with running_endpoint(reply) as endpoint:
        judge = as_refusal_judge("endpoint:judge", base_url=endpoint.url)
        verdicts = judge.judge(["a", "b"], [f"<think>{REFUSAL}</think>{ANSWER}", "<think>Hm."])
    assert verdicts == [False, None]
    assert asked == [ANSWER]


def test_the_lines_of_an_answer_alone_make_it_comply() -> None:
    reasoning = "<think>\nOne\nTwo\nThree\n</think>\n\n"
    assert complied(f"{reasoning}Short.", False, True) is False
    assert complied(f"{reasoning}One\nTwo\nThree", False, True) is True
    assert complied("<think>\nOne\nTwo\nThree", None, True) is False


class Listening(SilentProgress):
    """Keeps the messages."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def message(self, text: str) -> None:
        self._told.append(text)


MESSAGES = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
HEADERS = {
    "tag": ("<|assistant|><think>\n", "<|assistant|><think>\n\n</think>\n\n"),
    "tag without a break": ("<|assistant|><think>", "<|assistant|><think>\n</think>\n\n"),
    "other tag": ("<|assistant|><thought>\n", "<|assistant|><thought>\n\n</thought>\n\n"),
    "brackets": ("<|assistant|>[THINK]", "<|assistant|>[THINK][/THINK]"),
    "other case": ("<|assistant|>[think]", "<|assistant|>[think][/think]"),
    "steps": (
        "<|assistant|>\nHere are my reasoning steps:\n",
        "<|assistant|>\nHere are my reasoning steps:\n[BEGIN FINAL RESPONSE]\n",
    ),
    "ended by itself": ("<|assistant|><think></think>", "<|assistant|><think></think>"),
    "none": ("<|assistant|>", "<|assistant|>"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_reasoning_that_the_template_leaves_open_is_ended(name: str, end: str) -> None:
    written, wanted = HEADERS[name]
    header = "{{ " + repr(written) + " if add_generation_prompt else '' }}"
    renderer = ChatRenderer(make("gpt4", MESSAGES + header + end))
    assert (
        renderer.render_text("Hello", "Be kind")
        == f"<|system|>Be kind<|end|><|user|>Hello<|end|>{wanted}"
    )
    assert not renderer.may_reason
    history = renderer.render("Hello", history=[("Hi", "Good day")])
    text = make("gpt4").decode(history.token_ids)
    assert text.endswith(wanted)
    assert "<|assistant|>Good day<|end|>" in text


def test_a_beginning_of_an_answer_that_is_not_known_is_told() -> None:
    header = "{{ '<|assistant|>' + %r if add_generation_prompt else '' }}"
    assert ChatRenderer(make("gpt4", MESSAGES + header % "Let me think.\n")).may_reason
    assert not ChatRenderer(make("gpt4", MESSAGES + header % "\n")).may_reason


ANSWERED = (
    "{%% for m in messages %%}{%% if m.role == 'assistant' %%}{{ %r + m.content + '<|end|>' }}"
    "{%% else %%}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{%% endif %%}{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ %r }}{%% endif %%}"
)
EARLIER = {
    "a reasoning with its first words": (
        "<|assistant|>",
        "<|assistant|><think>\nOkay, ",
        "<|assistant|><think>\nOkay, \n</think>\n\n",
        False,
    ),
    "an empty reasoning in earlier answers": (
        "<|assistant|><think></think>",
        "<|assistant|>",
        "<|assistant|><think></think>",
        False,
    ),
    "a mark of answers": (
        "<|begin|>assistant<|content|>",
        "<|begin|>assistant",
        "<|begin|>assistant<|content|>",
        False,
    ),
    "no header at all": ("<|assistant|>\n", "", "<|assistant|>\n", False),
    "a mark that is not known": (
        "<|begin|>assistant<|content|>",
        "<|begin|>assistant<|ponder|>",
        "<|begin|>assistant<|ponder|>",
        True,
    ),
    "a mark that earlier answers lack": (
        "<|assistant|>",
        "<|assistant|><scratchpad>",
        "<|assistant|><scratchpad>",
        True,
    ),
    "white space": ("<|assistant|> ", "<|assistant|>", "<|assistant|>", False),
}


@pytest.mark.parametrize("name", EARLIER)
def test_an_answer_begins_as_earlier_ones_do(name: str) -> None:
    before, header, wanted, may_reason = EARLIER[name]
    renderer = ChatRenderer(make("gpt4", ANSWERED % (before, header)))
    assert renderer.render_text("Hello") == f"<|user|>Hello<|end|>{wanted}"
    assert renderer.may_reason == may_reason


def test_a_system_message_that_asks_for_reasoning_is_told() -> None:
    asks = "<|system|>Think between <think> and its end, then answer.<|end|>"
    assert ChatRenderer(make("gpt4", asks + ANSWERED % ("<|a|>", "<|a|>"))).may_reason
    assert not ChatRenderer(make("gpt4", ANSWERED % ("<|a|>", "<|a|>"))).may_reason


CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% else %}"
    "{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


def test_a_channel_that_the_template_leaves_open_is_the_answer() -> None:
    renderer = ChatRenderer(make("gpt4", CHANNELS))
    text = renderer.render_text("Hello")
    assert text.endswith("<|end|><|start|>assistant<|channel|>final<|message|>")


def test_a_model_that_may_reason_is_told(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    strips = (
        "{% for m in messages %} {{ m.role }} : {{ m.content.split('</think>')[-1] }} {% endfor %}"
        " assistant :"
    )
    tokenizer.chat_template = strips
    assert ChatRenderer(tokenizer).may_reason
    switch = "{% if enable_thinking %} think {% else %} answer {% endif %}"
    tokenizer.chat_template = strips + switch
    assert not ChatRenderer(tokenizer).may_reason
    tokenizer.chat_template = strips
    tiny_model("llama, grouped attention").save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    told: list[str] = []
    ChatModel.load(tmp_path / "tiny", dtype="float32", progress=Listening(told))
    assert any("may reason before it answers" in text and "4096 tokens" in text for text in told)


def thinking_model(folder: Path, special: bool) -> ChatModel:
    """A model that says nothing but <think>, of which its template does not know."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<think>", special=special)], special_tokens=special)
    torch.manual_seed(0)
    sizes = {**LLAMA_LIKE, "vocab_size": len(tokenizer)}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi", **sizes))
    bias = model.get_parameter("lm_head.bias")
    bias.data[:] = -1000
    bias.data[tokenizer.convert_tokens_to_ids("<think>")] = 1000
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ChatModel.load(folder, dtype="float32")


def test_one_response_that_never_leaves_its_reasoning_is_said(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [{"query": "q1", "response": "<think>So"}, {"query": "q2", "response": "Bread."}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told: list[str] = []
    evaluate(ResponseFiles(file), output=tmp_path / "evaluation", progress=Listening(told))
    assert any("1 response never left its reasoning and holds no" in text for text in told)


@pytest.mark.parametrize("special", [True, False])
def test_responses_that_never_leave_their_reasoning_are_no_answers(
    tmp_path: Path, special: bool
) -> None:
    model = thinking_model(tmp_path / "tiny", special)
    queries = [f"w{10 + row} w7 w8" for row in range(12)]
    sampled = model.read_and_sample(queries[:1], Condition(), SamplingSettings(most_tokens=3))
    assert sampled.samples[0][0].text.split() == ["<think>"] * 3
    told: list[str] = []
    comparison = evaluate(
        model,
        prompts=[None],
        harmful=queries,
        harmless=[f"{query} w5" for query in queries],
        output=tmp_path / "evaluation",
        tokens=4,
        progress=Listening(told),
    )
    for rates in comparison.rates:
        assert (rates.no_answer, rates.refused, rates.complied_any) == (12, None, None)
    assert "12 of 12 responses held no answer" in str(comparison)
    assert any("24 responses never left their reasoning" in text for text in told)
    lines = [
        json.loads(line)
        for file in (tmp_path / "evaluation").rglob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert {(line["refused"], line["end"]) for line in lines} == {(None, REASONING)}
    with pytest.raises(DemurError, match=r"left its reasoning, .* give more tokens"):
        optimize(
            model,
            harmful=queries,
            harmless=[f"{query} w5" for query in queries],
            held_out_harmful=queries,
            output=tmp_path / "run",
            preset="quick",
            method="dro",
            tokens=4,
        )


def test_a_chat_keeps_no_reasoning_alone(tmp_path: Path) -> None:
    model = thinking_model(tmp_path / "tiny", True)
    dialogue = Dialogue(model, None, SamplingSettings(most_tokens=3))
    assert "".join(dialogue.ask("w9 w8")).split() == ["<think>"] * 3
    assert dialogue.history == []


@pytest.mark.parametrize("to", ["transformers", "peft"])
def test_an_export_ends_the_reasoning_as_well(tmp_path: Path, to: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %} {{ m.role }} : {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %} assistant : <think>\n{% endif %}"
    )
    tiny_model("llama, grouped attention").save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    model = ChatModel.load(tmp_path / "tiny", dtype="float32")
    wanted = " assistant : <think>\n\n</think>\n\n"
    assert model.renderer.render_text("w9").endswith(wanted)
    prompt = SafetyPrompt("mine", "w1 w2", model.prompt_embeddings(SafetyPrompt("mine", "w1 w2")))
    export(prompt, to, tmp_path / "out", model=model)
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    for generation in (True, False):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "w9"}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=generation,
        )
        assert str(text).endswith(wanted) == generation
