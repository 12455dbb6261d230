"""Settings of an optimization: presets, ranges, and what is checked without a model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demur import DemurError, QuerySet, SafetyPrompt
from demur.diagnosis.plan import Given
from demur.diagnosis.plan import make_plan as plan_diagnosis
from demur.diagnosis.settings import DiagnoseSettings
from demur.optimization import PRESETS, OptimizeSettings, make_plan, presets, settings_type
from demur.optimization.plan import plan_of
from demur.optimization.settings import StoredSettings
from demur.prompts import load_basic_prompt
from demur.queries import load_query_set
from demur.records import from_plain, to_plain
from demur.settings import build, options_in, options_of, read_toml, values_of

TEN = tuple(f"question {number}?" for number in range(10))
MORE = tuple(f"question {number}?" for number in range(10, 20))


def of(preset: str = "standard", **changes: Any) -> OptimizeSettings[Any]:
    return OptimizeSettings.from_preset(preset, **changes)


def test_the_paper_preset_is_the_paper() -> None:
    paper = of("paper")
    method, training, sampling = paper.method_settings, paper.training, paper.sampling
    assert (method.components, method.folds, method.reanchor_every) == (4, 10, 0)
    assert method.anchor_prompts == ("long", "short", "plain")
    weights = (method.weight_refusal, method.weight_harmfulness, method.weight_complement)
    assert weights == (1.0, 0.01, 0.001)
    assert method.weight_harmless == 1
    assert (training.epochs, training.batch) == (40, 50)
    assert (training.learning_rate, training.gradient_norm) == (1e-3, 1.0)
    assert not training.learning_rate_decay
    assert not training.averaged_prompt
    assert not training.balanced_batches
    assert (sampling.samples, sampling.kept_samples, sampling.least_tokens) == (25, 20, 10)
    assert (sampling.tokens_harmful, sampling.tokens_harmless) == (300, 200)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.9, 50)
    assert sampling.cut_unfinished
    assert (paper.queries.most_anchors, paper.queries.most_held_out) == (None, None)
    assert paper.judge == "paper"
    assert paper.protocol.kept == 20
    assert of("paper", samples=3).protocol.kept == 3
    assert of("paper", samples=3, kept_samples=2).protocol.kept == 2
    assert of("paper", samples=30).protocol.kept == 20
    assert of("paper", tokens=4).sampling.least_tokens == 4
    assert of("paper", tokens_harmless=4, tokens_harmful=6).sampling.least_tokens == 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": 1, "kept_samples": 5}, "--kept-samples 5 is more than --samples 1: give"),
        ({"kept_samples": 2}, "--kept-samples 2 is more than --samples 1: give"),
        ({"tokens": 8, "least_tokens": 50}, "--least-tokens 50 is more than the 8 tokens"),
        ({"least_tokens": 17}, "--least-tokens 17 is more than the 16 tokens"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(changes: dict[str, Any], told: str) -> None:
    for preset in ("standard", "paper"):
        if preset == "standard" or len(changes) == 2:
            with pytest.raises(DemurError, match=told):
                of(preset, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"folds": 1000}, "--folds 1000 is too many for the 40 readings of 20 queries under 2 co"),
        ({"components": 40}, "--components 40 is too many for the 40 readings .* less than 40"),
    ],
)
def test_too_few_readings_are_told_before_a_model_is_loaded(
    changes: dict[str, Any], told: str
) -> None:
    sets: dict[str, Any] = {"harmful": TEN, "harmless": TEN}
    with pytest.raises(DemurError, match=told):
        make_plan(basic_prompt="long", **sets, **changes)
    settings = build(DiagnoseSettings, {"prompt": ["long"], **changes})
    with pytest.raises(DemurError, match=told):
        plan_diagnosis(settings, Given(**sets))


def test_standard_is_the_default_and_quick_is_a_part_of_it() -> None:
    assert list(presets()) == list(PRESETS) == ["standard", "quick", "paper"]
    assert build(settings_type(), {}) == of() == presets()["standard"]
    standard, quick = values_of(of()), values_of(of("quick"))
    assert {name for name in standard if standard[name] != quick[name]} == {
        "preset",
        "epochs",
        "most_anchors",
        "most_held_out",
    }
    assert (quick["epochs"], quick["most_anchors"], quick["most_held_out"]) == (2, 40, 30)
    expected = {
        "samples": 1,
        "kept_samples": None,
        "tokens_harmful": 16,
        "tokens_harmless": 16,
        "least_tokens": 0,
        "cut_unfinished": False,
        "anchor_prompts": (),
        "epochs": 3,
        "batch": 8,
        "balanced_batches": True,
        "reanchor_every": 1,
        "learning_rate_decay": True,
        "averaged_prompt": True,
        "weight_complement": 0.005,
        "seed": 0,
    }
    assert {name: standard[name] for name in expected} == expected


def test_every_setting_is_described_and_is_an_option() -> None:
    options = options_in(settings_type())
    assert all(option.description and not option.description.endswith(".") for option in options)
    panels = {option.panel for option in options}
    assert panels == {None, "Queries", "Sampling", "Training", "Method: DRO"}
    assert "tokens_harmless" in {option.name for option in options}


def test_tokens_sets_both_limits() -> None:
    chosen = of("paper", tokens=24)
    assert (chosen.sampling.tokens_harmful, chosen.sampling.tokens_harmless) == (24, 24)
    assert chosen == of("paper", tokens_harmful=24, tokens_harmless=24)
    chosen = of("paper", tokens=24, tokens_harmful=32)
    assert (chosen.sampling.tokens_harmful, chosen.sampling.tokens_harmless) == (32, 24)
    assert chosen.protocol.sampling.most_tokens == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"--epochs 0: must be .*\b1\b"),
        ({"epochs": 1.5}, r"--epochs 1\.5: must be a whole number, .*\b1\b"),
        ({"batch": "many"}, r"--batch many: must be a whole number, .*\b1\b"),
        ({"seed": 2**32}, r"--seed 4294967296: must be 0 .* 4294967296"),
        ({"seed": -1}, r"--seed -1: must be 0 .* 4294967296"),
        ({"learning_rate": float("inf")}, r"--learning-rate inf: must be a number, more than 0"),
        ({"learning_rate": float("nan")}, r"--learning-rate nan: must be a number, more than 0"),
        ({"learning_rate": 0}, r"--learning-rate 0[.0]*: must be more than 0"),
        ({"weight_refusal": -1}, r"--weight-refusal -1[.0]*: must be 0 or more"),
        ({"weight_refusal": float("inf")}, r"--weight-refusal inf: must be a number, 0 or more"),
        ({"temperature": float("inf")}, r"--temperature inf: must be a number, 0 "),
        ({"top_p": 1.01}, r"--top-p 1\.01: must be more than 0.*\b1\b"),
        ({"samples": 10**9}, r"--samples 1000000000: must be 1 .*\b10000\b"),
        ({"tokens": 0}, r"--tokens 0: must be .*\b1\b"),
        ({"components": 0}, r"--components 0: must be .*\b1\b"),
        ({"folds": 1}, r"--folds 1: must be .*\b2\b"),
        ({"most_anchors": 9}, r"--most-anchors 9: must be 10 or more"),
        ({"harmful": ()}, r"--harmful"),
        ({"epoch": 3}, r"There is no setting 'epoch': write 'epochs'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_is_told_with_its_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DemurError) as caught:
        of("quick", **changes)
    assert re.match(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_bad_preset_is_told_with_the_choices() -> None:
    with pytest.raises(DemurError, match="no preset 'fast': choose standard or quick or paper"):
        of("fast")


def test_settings_survive_being_stored() -> None:
    settings = of("paper", epochs=7, anchor_prompts=("short",), harmful=("anchors", "mine.csv:q"))
    stored = StoredSettings.model_validate(settings.model_dump(mode="json"))
    assert to_plain(stored) == to_plain(settings)
    assert from_plain(StoredSettings, to_plain(stored)) == stored


def test_the_options_of_settings_give_the_same_settings_again(tmp_path: Path) -> None:
    settings = of("quick", epochs=7, harmful=("anchors", "mine.csv:q"), averaged_prompt=False)
    assert options_of(settings, presets()["quick"]) == [
        *("--harmful", "anchors", "--harmful", "mine.csv:q"),
        *("--epochs", "7", "--no-averaged-prompt"),
    ]
    file = tmp_path / "demur.toml"
    file.write_text(
        'preset = "quick"\n[queries]\nharmful = ["anchors", "mine.csv:q"]\n'
        "[training]\nepochs = 7\naveraged_prompt = false\n[method_settings]\ncomponents = 4\n"
    )
    values = read_toml(file, settings_type())
    preset = str(values.pop("preset"))
    assert of(preset, **values) == settings
    assert build(settings_type(), values, presets()["quick"]) == settings


def test_the_file_in_the_docs_is_one_of_settings(tmp_path: Path) -> None:
    docs = Path(__file__).parents[1] / "docs" / "presets.md"
    (text,) = re.findall(r"```toml\n(.*?)```", docs.read_text(), re.DOTALL)
    file = tmp_path / "demur.toml"
    file.write_text(text)
    values = read_toml(file, settings_type())
    chosen = of(str(values.pop("preset")), **values)
    assert chosen.queries.harmful == ("anchors", "mine.csv:query")
    assert (chosen.training.epochs, chosen.method_settings.components) == (5, 3)


def test_settings_are_listed_without_loading_torch() -> None:
    script = (
        "import sys; from demur.optimization import presets; presets(); sys.exit('torch' in "
        "sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# What is chosen, and checked without a model.


def test_a_plan_by_names() -> None:
    plan = make_plan(preset="quick", most_anchors=12, judge="default")
    assert plan.basic.name == "long"
    assert len(plan.anchors) == 24
    assert plan.anchors.texts[:12] == load_query_set("anchors", "harmful").texts[:12]
    assert plan.anchors.harmful == (True,) * 12 + (False,) * 12
    assert len(plan.held_out) == 60
    assert plan.judge.name == "default"
    assert plan.objects == ()
    assert plan_of(plan.settings).anchors == plan.anchors


def test_a_plan_by_objects() -> None:
    prompt = SafetyPrompt("mine", "Be kind.")
    plan = make_plan(
        basic_prompt=prompt,
        harmful=QuerySet("own", "harmful", TEN),
        harmless=list(TEN),
        judge=lambda queries, responses: [True] * len(responses),
    )
    assert plan.basic.safety_prompt is prompt
    assert plan.anchors.texts == TEN + TEN
    assert (plan.names["harmful"], plan.names["harmless"]) == ("own", "own queries")
    assert plan.objects == ("basic_prompt", "harmful", "harmless", "judge")
    assert plan.settings.basic_prompt == "mine"
    assert plan.settings.queries.harmful == ("own",)


def test_sets_are_joined_by_name_and_as_objects(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("n,query\n" + "\n".join(f"1,{text}" for text in TEN))
    built_in = load_query_set("anchors", "harmful")
    by_name = plan_of(of("standard", harmful=("anchors", f"{file}:query")))
    assert by_name.anchors.texts[:110] == built_in.texts + TEN
    assert by_name.names["harmful"] == "anchors+mine.csv:query"
    sets = [built_in, QuerySet("own", "harmful", TEN)]
    assert make_plan(harmful=sets).anchors.texts[:110] == built_in.texts + TEN
    # A path and a single name do as well.
    assert make_plan(harmful=f"{file}:query").anchors.texts[:10] == TEN
    (tmp_path / "mine.txt").write_text("\n".join(TEN))
    assert make_plan(harmful=tmp_path / "mine.txt").anchors.texts[:10] == TEN


def test_held_out_queries_can_be_chosen() -> None:
    harmful, harmless = QuerySet("a", "harmful", TEN), QuerySet("b", "harmless", TEN)
    built_in = load_query_set("held-out", "harmless")
    both = make_plan(held_out=[harmless, harmful])
    assert both.held_out.texts == TEN + TEN
    assert both.names["held_out_harmful"] == "a"
    assert both.names["held_out_harmless"] == "b"
    assert both.held_out.name == "a and b"
    one = make_plan(held_out=harmful)
    assert one.held_out.texts == TEN + built_in.texts
    assert one.names["held_out_harmful"] == "a"
    assert one.names["held_out_harmless"] == "held-out"
    texts = make_plan(held_out_harmless=list(TEN))
    assert texts.held_out.texts[-10:] == TEN
    assert make_plan(held_out=harmful, most_held_out=5).held_out.texts[:5] == TEN[:5]
    with pytest.raises(DemurError, match="two sets of harmful held-out queries"):
        make_plan(held_out=harmful, held_out_harmful=list(TEN))
    with pytest.raises(DemurError, match="several sets of one label"):
        make_plan(held_out=[harmful, harmful])
    with pytest.raises(DemurError, match=r"'held_out' is an? .*, not one or two QuerySet"):
        make_plan(held_out="held-out")  # type: ignore[arg-type]


def test_queries_that_are_trained_on_and_held_out_are_counted() -> None:
    assert make_plan().shared_queries == 0
    plan = make_plan(harmful=list(TEN), held_out=QuerySet("a", "harmful", TEN[5:] + MORE[:5]))
    assert plan.shared_queries == 5


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"basic_prompt": 5}, "A basic prompt is a name, a text file or a SafetyPrompt, not 5"),
        ({"basic_prompt": "nowhere.txt"}, "nowhere.txt"),
        ({"harmful": ["a", 5]}, "query number 2 is not a text"),
        ({"harmful": []}, "The list of harmful queries is empty"),
        ({"harmful": TEN[:9]}, "holds 9 distinct harmful queries.*at least 10"),
        ({"harmful": "nowhere.csv:q"}, "nowhere.csv"),
        ({"harmful": QuerySet("own", "harmless", TEN)}, "holds harmless queries where harmful"),
        ({"held_out_harmless": 3}, "harmless queries are an int: give the name"),
        ({"judge": "nobody"}, "no refusal judge 'nobody'"),
        ({"judge": 7}, "7|int"),
        ({"method": "nothing"}, "no method 'nothing'"),
        ({"anchor_prompts": ("nowhere.txt",)}, "nowhere.txt"),
        ({"system_prompt": "nowhere.txt"}, "nowhere.txt"),
        ({"system_prompt": 5}, "'system_prompt' is an int: give the path"),
    ],
    ids=str,
)
def test_a_bad_choice_is_told_before_a_model_is_loaded(
    choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(DemurError, match=message) as caught:
        make_plan(**choices)
    assert "\n" not in str(caught.value)


def test_a_trained_prompt_is_no_basic_prompt() -> None:
    import torch

    with pytest.raises(DemurError, match="'mine' is trained already"):
        make_plan(basic_prompt=SafetyPrompt("mine", "Be kind.", torch.ones(2, 4)))


def test_what_a_settings_name_stands_for_is_part_of_the_run(tmp_path: Path) -> None:
    """A prompt file that another text is written to is not the same file."""
    file = tmp_path / "other.txt"
    file.write_text("Be kind.")
    before = make_plan(anchor_prompts=(str(file),)).new_method().content()
    file.write_text(load_basic_prompt("short").text or "")
    after = make_plan(anchor_prompts=(str(file),)).new_method().content()
    assert before != after
    assert after == make_plan(anchor_prompts=("short",)).new_method().content()
