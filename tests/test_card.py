"""The model card: what it says, and that nothing in it becomes markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml

from demur import DemurError, SafetyPrompt
from demur.prompts.card import Card, base_model_of, escaped, fenced, model_card
from tests.report_folders import HOSTILE


def rate(count: float) -> dict[str, Any]:
    return {"count": count, "queries": 100, "interval": {"low": count / 200, "high": 0.99}}


def prompt(text: str = "Be careful.", **metadata: Any) -> SafetyPrompt:
    return SafetyPrompt("optimized", text, torch.ones(2, 3), metadata)


def result(name: str, harmful: float) -> dict[str, Any]:
    return {
        "prompt": name,
        "harmful_refused": rate(harmful),
        "harmless_refused": rate(6),
        "divergence": 0.5,
    }


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
    ("metadata", "expected"),
    [
        ({"model": {"name": "x", "identity": "Qwen/Base@0123"}}, "Qwen/Base"),
        ({"model": {"name": "models/mine", "identity": "folder:12"}}, None),
        ({"model": {"name": "models/mine", "identity": "sha256:12"}}, None),
        ({"base_model": "not a name"}, None),
        ({"model": "Qwen/Base"}, None),
    ],
)
def test_the_base_model_is_a_hub_name_or_nothing(
    metadata: dict[str, Any], expected: str | None
) -> None:
    assert base_model_of(prompt(**metadata)) == expected


def test_the_results_stand_in_a_table_with_intervals() -> None:
    results = [result("none", 41), result("long", 32), result("optimized", 57)]
    card = model_card(prompt(results=results), "org/name", Card(), "figure.png")
    assert "| none | 41 % of 100 (20 to 99) | 6 % of 100 (3 to 99) | 0.50 |" in card
    assert "| long, hand-written |" in card
    assert "| **this one** | 57 % of 100" in card
    assert "](figure.png)" in card


@pytest.mark.parametrize("results", [None, 3, [{}], [{"prompt": "x"}], "text", [None]])
def test_results_that_cannot_be_read_are_none(results: Any) -> None:
    card = model_card(prompt(results=results), "org/name", Card())
    assert "None are recorded" in card
    assert "|---|---|---|---|" not in card


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
            model={"name": hostile, "identity": hostile},
            base_model=hostile,
            results=[result(hostile, 1)],
            settings={"judge": hostile, "preset": hostile, "seed": hostile},
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
    table = [line for line in outside.splitlines() if line.endswith("| 0.50 |")]
    assert len(table) == 1
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 5


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "small-one", "identity": "sha256:12"}, "small-one"),
        ({"name": "org/model", "identity": "org/model@12"}, "org/model"),
        ({"name": "mine", "identity": "folder:12"}, "MODEL"),
        ({"name": "a; rm b", "identity": "sha256:12"}, "MODEL"),
    ],
)
def test_the_commands_name_the_model_as_demur_loads_it(
    model: dict[str, str], expected: str
) -> None:
    card = model_card(prompt(model=model), "org/name", Card())
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
