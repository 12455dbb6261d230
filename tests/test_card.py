"""The model card: what it says, and that nothing in it becomes markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from demur import DemurError, SafetyPrompt
from demur.markdown import escaped, fenced
from demur.prompts import Fact, MeasuredPrompt, Provenance
from demur.prompts.provenance import Role
from demur.records import Interval, ModelRecord, Rate
from demur.sharing.card import Card, base_model_of, model_card
from tests.report_folders import HOSTILE


def rate(count: float) -> Rate:
    return Rate(count, 100, Interval(count / 200, 0.99))


def prompt(text: str = "Be careful.", **known: Any) -> SafetyPrompt:
    return SafetyPrompt("optimized", text, torch.ones(2, 3), Provenance(**known))


def model(name: str, identity: str) -> ModelRecord:
    return ModelRecord(name, identity, "float32", "cpu", None, "template", True)


def result(role: Role, name: str, harmful: float, cost: float | None = 0.5) -> MeasuredPrompt:
    return MeasuredPrompt(
        role, name, rate(harmful), rate(6), cost, None if cost is None else rate(12)
    )


def metadata_of(card: str) -> dict[str, Any]:
    loaded = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def test_the_metadata_name_the_library_and_the_base_model() -> None:
    card = model_card(prompt(base_model="Qwen/Base"), "org/name", Card())
    found = metadata_of(card)
    assert found["library_name"] == "demur"
    assert (found["base_model"], found["base_model_relation"]) == ("Qwen/Base", "adapter")
    assert "safety-prompt" in found["tags"]
    assert "license" not in found
    assert metadata_of(model_card(prompt(), "org/name", Card(license="mit")))["license"] == "mit"
    assert "base_model" not in metadata_of(model_card(prompt(), "org/name", Card()))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"model": model("x", "Qwen/Base@0123")}, "Qwen/Base"),
        ({"model": model("models/mine", "folder:12")}, None),
        ({"model": model("models/mine", "sha256:12")}, None),
        ({"model": model("x", "folder:12"), "base_model": "Qwen/Base"}, "Qwen/Base"),
        ({"base_model": "not a name"}, None),
        ({}, None),
    ],
)
def test_the_base_model_is_a_hub_name_or_nothing(
    known: dict[str, Any], expected: str | None
) -> None:
    assert base_model_of(Provenance(**known)) == expected


def test_the_results_stand_in_a_table_with_intervals() -> None:
    # The basic prompt has a name that says nothing about what it is.
    results = (
        result("none", "none", 41),
        result("basic", "optimized", 32),
        result("this", "x", 57),
    )
    facts = (Fact("judge", "paper"), Fact("responses a query", "1"))
    card = model_card(prompt(results=results, measured=facts), "org/name", Card(), "figure.png")
    assert (
        "| none | 41 % of 100 (20 to 99) | 6 % of 100 (3 to 99) | 0.50 | 12 % of 100 (6 to 99) |"
        in card
    )
    assert "| optimized, hand-written | 32 %" in card
    assert "| **this one** | 57 % of 100" in card
    assert "How: judge: paper; responses a query: 1. First word changed:" in card
    assert "without a prompt. KL cost:" in card
    assert "](figure.png)" in card
    assert "system text" not in card
    without = prompt(results=(result("this", "x", 57, None),), with_system_prompt=True)
    card = model_card(without, "org/name", Card())
    assert "| **this one** | 57 % of 100 (28 to 99) | 6 % of 100 (3 to 99) |  |  |" in card
    assert "KL cost:" not in card
    assert "That text is not published here" in card


def test_the_hub_reads_the_results_of_the_prompt_from_the_metadata() -> None:
    results = (result("none", "none", 41), result("this", "x", 57))
    measured = (Fact("held-out queries", "my set"), Fact("judge", "paper"))
    text = model_card(prompt(results=results, measured=measured), "org/name", Card())
    data: Any = ModelCard(text).data
    assert data.model_name == "org/name"
    found = [
        (one.task_type, one.dataset_name, one.metric_name, one.metric_value)
        for one in data.eval_results
    ]
    assert found == [
        ("text-generation", "harmful queries of my set", "Harmful queries refused (%)", 57.0),
        ("text-generation", "harmless queries of my set", "Harmless queries refused (%)", 6.0),
    ]
    text = model_card(prompt(results=results), "org/name", Card())
    data = ModelCard(text).data
    assert data.eval_results[0].dataset_name == "held-out harmful queries"
    sets = "test and test:borderline+test:ordinary"
    known = prompt(results=results, measured=(Fact("held-out queries", sets),))
    text = model_card(known, "org/name", Card())
    data = ModelCard(text).data
    assert [one.dataset_name for one in data.eval_results] == [
        "harmful queries of the test set",
        "borderline and ordinary queries of the test set",
    ]
    assert (
        "held-out queries: harmful queries of the test set, and borderline and ordinary queries of "
        "the test set"
    ) in text
    assert "test:" not in text


def test_without_results_the_card_says_so() -> None:
    card = model_card(prompt(), "org/name", Card())
    assert "model-index" not in card
    assert "None are recorded" in card
    assert "|---|---|---|---|---|" not in card


@pytest.mark.parametrize(
    ("paper", "tag"),
    [
        ("https://arxiv.org/abs/2401.18018", "arxiv:2401.18018"),
        ("https://example.org/abs/2401.18018", None),
        ("javascript:alert(1)", None),
        ("https://arxiv.org/abs/2401.18018)[x](y", None),
        (None, None),
    ],
)
def test_the_method_is_named_and_only_a_paper_is_linked(paper: str | None, tag: str | None) -> None:
    settings = (Fact("learning rate", "0.001"),)
    card = model_card(
        prompt(method="Some Method", paper=paper, settings=settings), "org/name", Card()
    )
    assert ("[Some Method](https://arxiv.org" in card) == (tag is not None)
    assert "Some Method" in card
    assert "| learning rate | 0.001 |" in card
    tags = metadata_of(card)["tags"]
    assert [one for one in tags if one.startswith("arxiv")] == ([] if tag is None else [tag])
    assert "Trained by `demur`." in model_card(prompt(), "org/name", Card())


def test_every_engine_has_its_command() -> None:
    card = model_card(prompt(), "org/name", Card())
    for target in ("transformers", "gguf", "ollama", "peft", "vllm"):
        assert f"demur export org/name --to {target} DIR" in card
    assert "demur export" not in model_card(SafetyPrompt("mine", "Be kind."), "org/name", Card())


@pytest.mark.parametrize("hostile", [*HOSTILE, "---\nlicense: mit", "| a | b |", "[x](y)", "@all"])
def test_names_and_texts_are_never_markup(hostile: str) -> None:
    card = model_card(
        prompt(
            text=f"{hostile}\n```\n# out\n````",
            model=model(hostile, hostile),
            base_model=hostile,
            method=hostile,
            paper=hostile,
            results=(result("basic", hostile, 1),),
            settings=(Fact(hostile, hostile),),
            measured=(Fact("judge", hostile), Fact(hostile, "1")),
        ),
        "org/name",
        Card(licenses={"license": "other", "license_link": hostile}),
    )
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
    assert yaml.safe_load(front)["license_link"] == hostile
    fence = re.search(r"^(`{3,})text\n.*?^\1$", body, re.DOTALL | re.MULTILINE)
    assert fence is not None
    outside = body[: fence.start()] + body[fence.end() :]
    assert fence[1] == "`" * 5
    assert "<" not in outside
    assert "# out" not in outside
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u2028\u202e]", body)
    table = [
        line for line in outside.splitlines() if line.endswith("| 0.50 | 12 % of 100 (6 to 99) |")
    ]
    assert len(table) == 1
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 6


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (model("small-one", "sha256:12"), "small-one"),
        (model("org/model", "org/model@12"), "org/model"),
        (model("mine", "folder:12"), "MODEL"),
        (model("a; rm b", "sha256:12"), "MODEL"),
    ],
)
def test_the_commands_name_the_model_as_demur_loads_it(known: ModelRecord, expected: str) -> None:
    card = model_card(prompt(model=known), "org/name", Card())
    assert f"demur chat {expected} --prompt org/name" in card


@pytest.mark.parametrize("license", ["", "MIT license", "mit\n", "a: b", "-x"])
def test_a_license_that_cannot_be_is_refused(license: str) -> None:
    with pytest.raises(DemurError, match="no license"):
        Card(license=license)


def test_text_is_escaped_for_markdown() -> None:
    assert escaped("a*b_c`d") == r"a\*b\_c\`d"
    assert escaped("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert escaped("two\nlines") == "two lines"
    assert "://" not in escaped("https://example.org")
    assert "@" not in escaped("@someone")
    assert fenced("a ``` b").startswith("````text\n")
