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
from demur.records import Conversation, from_plain, history_of, text_of, to_plain
from demur.settings import build, options_in, options_of, read_toml, read_toml_text, values_of

TEN = tuple(f"question {number}?" for number in range(10))
MORE = tuple(f"question {number}?" for number in range(10, 20))


def of(preset: str = "standard", **changes: Any) -> OptimizeSettings[Any]:
    return OptimizeSettings.from_preset(preset, **changes)


def test_the_paper_preset_is_the_paper() -> None:
    paper = of("paper", method="dro")
    assert of("paper") == paper
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
    assert paper.method == "dro"
    queries = paper.queries
    assert queries.harmful == queries.harmless == ("anchors",)
    assert queries.held_out_harmful == queries.held_out_harmless == ("held-out",)
    assert (queries.most_anchors, queries.most_held_out) == (None, None)
    assert (queries.histories, queries.applications) == (0, 0)
    assert paper.judge == "paper"
    assert paper.protocol.kept == 20
    assert of("paper", samples=3).protocol.kept == 3
    assert of("paper", samples=3, kept_samples=2).protocol.kept == 2
    assert of("paper", samples=30).protocol.kept == 20
    assert of("paper", tokens=4).sampling.least_tokens == 4
    assert of("paper", tokens_harmless=4, tokens_harmful=6).sampling.least_tokens == 4
    plan = make_plan(preset="paper")
    assert plan.method.name == "dro"
    assert plan.judge.name == "paper"
    assert plan.validation is None
    anchors = [load_query_set("anchors", label).texts for label in ("harmful", "harmless")]
    assert [len(texts) for texts in anchors] == [100, 100]
    assert plan.anchors.texts == anchors[0] + anchors[1]  # none in a conversation of any kind
    assert [plan.held_out.labels.count(label) for label in ("harmful", "harmless")] == [100, 100]


def test_the_paper_preset_is_for_methods_of_the_paper() -> None:
    assert make_plan(preset="paper", method="vpt").settings.method == "vpt"
    assert of("paper", method="vpt").training.epochs == 5
    assert "paper" in presets("dro")
    assert "paper" in presets("vpt")
    for refused in (of, make_plan):
        with pytest.raises(DemurError, match="'likelihood' has no preset 'paper': give --method d"):
            refused(preset="paper", method="likelihood")


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
    sets: dict[str, Any] = {"harmful": TEN, "harmless": MORE}
    with pytest.raises(DemurError, match=told):
        make_plan(method="dro", basic_prompt="long", **sets, **changes)
    settings = build(DiagnoseSettings, {"prompt": ["long"], **changes})
    with pytest.raises(DemurError, match=told):
        plan_diagnosis(settings, Given(**sets))


def differing(preset: str, method: str) -> set[str]:
    """Names of the settings that a preset changes."""
    standard, changed = values_of(of(method=method)), values_of(of(preset, method=method))
    return {name for name in standard if standard[name] != changed[name]} - {"preset"}


def test_standard_is_the_default_and_the_others_change_a_part_of_it() -> None:
    assert list(PRESETS) == ["standard", "quick", "thorough", "paper"]
    assert list(presets()) == ["standard", "quick", "thorough"]
    assert build(settings_type(), {}) == of() == presets()["standard"] == of(method="likelihood")
    amounts = {"most_anchors", "most_validation", "most_held_out"}
    assert differing("quick", "likelihood") == amounts | {"third_turn"}
    own = {"openings", "answers", "answer_tokens", "mined_queries", "remine_every"}
    assert differing("thorough", "likelihood") == amounts | own | {
        "epochs",
        "epoch_size",
        "batch",
        "learning_rate",
        "tokens_harmful",
        "tokens_harmless",
    }
    quick, thorough = values_of(of("quick")), values_of(of("thorough"))
    assert [quick[name] for name in sorted(amounts)] == [40, 30, 30]
    assert [thorough[name] for name in sorted(amounts)] == [None, None, None]
    assert (quick["epochs"], thorough["epochs"], thorough["batch"]) == (4, 20, 48)
    standard = values_of(of())
    expected = {
        "method": "likelihood",
        "preset": "standard",
        "pick": "balanced",
        "judge": "default",
        "harmful": ("training",),
        "harmless": ("training:borderline", "training:ordinary"),
        "validation_harmful": ("validation",),
        "validation_harmless": ("validation:borderline", "validation:ordinary"),
        "held_out_harmful": ("test",),
        "held_out_harmless": ("test:borderline", "test:ordinary"),
        "most_anchors": 640,
        "most_validation": 60,
        "most_held_out": 100,
        "histories": 0.1,
        "applications": 0.1,
        "samples": 1,
        "kept_samples": None,
        "tokens_harmful": 16,
        "tokens_harmless": 16,
        "least_tokens": 0,
        "cut_unfinished": False,
        "epochs": 4,
        "batch": 16,
        "learning_rate": 5e-3,
        "warm_up": 0.1,
        "balanced_batches": True,
        "learning_rate_decay": True,
        "averaged_prompt": True,
        "benign_budget": 0.05,
        "seed": 0,
    }
    assert {name: standard[name] for name in expected} == expected


def test_dro_keeps_its_own_queries_and_pace_in_every_preset() -> None:
    assert list(presets("dro")) == list(PRESETS)
    assert build(settings_type("dro"), {}) != of(method="dro") == presets("dro")["standard"]
    assert differing("quick", "dro") == {
        "epochs",
        "most_anchors",
        "most_validation",
        "most_held_out",
        "third_turn",
    }
    assert differing("thorough", "dro") == {"epochs", "most_validation"}
    quick = values_of(of("quick", method="dro"))
    assert (quick["epochs"], quick["most_anchors"], quick["most_held_out"]) == (2, 40, 30)
    assert of("thorough", method="dro").training.epochs == 12
    assert of("thorough", method="dro").training.warm_up == 0
    assert of("thorough").training.warm_up > 0
    assert of("paper", method="vpt").training.warm_up == 0
    expected = {
        "method": "dro",
        "judge": "default",
        "harmful": ("anchors",),
        "harmless": ("anchors",),
        "held_out_harmful": ("held-out",),
        "held_out_harmless": ("held-out",),
        "most_anchors": None,
        "most_held_out": None,
        "histories": 0,
        "applications": 0,
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
        "learning_rate": 1e-3,
        "warm_up": 0,
        "learning_rate_decay": True,
        "averaged_prompt": True,
        "weight_complement": 0.005,
        "seed": 0,
    }
    standard = values_of(of(method="dro"))
    assert {name: standard[name] for name in expected} == expected


def test_every_setting_is_described_and_is_an_option() -> None:
    for method, title in (
        ("likelihood", "Method: refusal likelihood"),
        ("dro", "Method: DRO"),
        ("vpt", "Method: vPT"),
    ):
        options = options_in(settings_type(method))
        assert all(
            option.description and not option.description.endswith(".") for option in options
        )
        panels = {option.panel for option in options}
        assert panels == {None, "Queries", "Sampling", "Training", title}
        assert "tokens_harmless" in {option.name for option in options}
    assert settings_type() is settings_type("likelihood")


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
        ({"most_validation": 9}, r"--most-validation 9: must be 10 or more"),
        ({"most_held_out": 0}, r"--most-held-out 0: must be 1 or more"),
        ({"histories": 1.1}, r"--histories 1\.1: must be 0 to 1"),
        ({"applications": -0.1}, r"--applications -0\.1: must be 0 to 1"),
        ({"benign_budget": 0}, r"--benign-budget 0[.0]*: must be more than 0, less than 1"),
        ({"pick": "best"}, r"--pick best: must be careful, balanced or strict"),
        ({"harmful": ()}, r"--harmful"),
        ({"epoch": 3}, r"There is no setting 'epoch': write 'epochs'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_is_told_with_its_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DemurError) as caught:
        of("quick", method="dro", **changes)
    assert re.match(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_bad_preset_is_told_with_the_choices() -> None:
    with pytest.raises(DemurError, match="'fast': choose standard, quick, thorough or paper"):
        of("fast")


def test_settings_survive_being_stored() -> None:
    settings = of("paper", epochs=7, anchor_prompts=("short",), harmful=("anchors", "mine.csv:q"))
    stored = StoredSettings.model_validate(settings.model_dump(mode="json"))
    assert to_plain(stored) == to_plain(settings)
    assert from_plain(StoredSettings, to_plain(stored)) == stored


def test_the_options_of_settings_give_the_same_settings_again(tmp_path: Path) -> None:
    settings = of(
        "quick",
        method="dro",
        epochs=7,
        harmful=("anchors", "mine.csv:q"),
        averaged_prompt=False,
    )
    assert options_of(settings, presets("dro")["quick"]) == [
        *("--harmful", "anchors", "--harmful", "mine.csv:q"),
        *("--epochs", "7", "--no-averaged-prompt"),
    ]
    file = tmp_path / "demur.toml"
    file.write_text(
        'preset = "quick"\n[queries]\nharmful = ["anchors", "mine.csv:q"]\n'
        "[training]\nepochs = 7\naveraged_prompt = false\n[method_settings]\ncomponents = 4\n"
    )
    values = read_toml(file, settings_type("dro"))
    preset = str(values.pop("preset"))
    assert of(preset, method="dro", **values) == settings
    assert build(settings_type("dro"), values, presets("dro")["quick"]) == settings


@pytest.mark.parametrize("name", ["most_anchors", "most_validation", "most_held_out"])
def test_no_limit_of_queries_is_a_setting_like_others(name: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {name: None}
    limited, whole = of(), of(**changes)
    assert getattr(limited.queries, name) is not None
    assert getattr(whole.queries, name) is None
    flag = f"--{name.replace('_', '-')}"
    assert options_of(whole, limited) == [flag, "none"]
    assert options_of(limited, whole) == [flag, str(getattr(limited.queries, name))]
    changes[name] = "none"
    assert of(**changes) == whole
    file = tmp_path / "demur.toml"
    file.write_text(f'[queries]\n{name} = "none"\n')
    assert build(settings_type(), read_toml(file, settings_type()), limited) == whole
    stored = StoredSettings.model_validate(whole.model_dump(mode="json"))
    assert from_plain(StoredSettings, to_plain(stored)) == stored
    assert values_of(stored)[name] is None


def test_the_file_in_the_docs_is_one_of_settings(tmp_path: Path) -> None:
    docs = Path(__file__).parents[1] / "docs" / "presets.md"
    (text,) = re.findall(r"```toml\n(.*?)```", docs.read_text(), re.DOTALL)
    file = tmp_path / "demur.toml"
    file.write_text(text)
    values = read_toml(file, settings_type(read_toml_text(file, "method") or "likelihood"))
    chosen = of(str(values.pop("preset")), **values)
    assert chosen.queries.harmful == ("training", "mine.csv:query")
    assert chosen.training.epochs == 5
    assert chosen != of(chosen.preset, method=chosen.method, harmful=chosen.queries.harmful)


def test_settings_are_listed_without_loading_torch() -> None:
    script = (
        "import sys; from demur.optimization import presets; presets(); sys.exit('torch' in "
        "sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# What is chosen, and checked without a model.


def test_a_plan_by_names() -> None:
    plan = make_plan(preset="quick", most_anchors=12, judge="paper")
    assert plan.method.name == "likelihood"
    assert plan.basic.name == "long"
    assert len(plan.anchors) == 24
    texts = tuple(map(text_of, plan.anchors.texts))
    borderline, ordinary = (
        load_query_set(f"training:{name}", "harmless").texts for name in ("borderline", "ordinary")
    )
    assert texts[:12] == load_query_set("training", "harmful").texts[:12]
    assert texts[12:] == borderline[:6] + ordinary[:6]
    assert plan.anchors.harmful == (True,) * 12 + (False,) * 12
    assert len(plan.held_out) == 60
    assert plan.validation is not None
    assert len(plan.validation) == 60
    assert plan.judge.name == "paper"
    assert plan.objects == ()
    again = plan_of(plan.settings)
    assert (again.anchors, again.validation) == (plan.anchors, plan.validation)


def test_a_plan_of_dro_by_names() -> None:
    plan = make_plan(preset="quick", method="dro", most_anchors=12)
    assert plan.anchors.texts[:12] == load_query_set("anchors", "harmful").texts[:12]
    assert plan.anchors.harmful == (True,) * 12 + (False,) * 12
    assert len(plan.held_out) == 60
    assert plan.validation is None
    assert plan.judge.name == "default"
    assert plan_of(plan.settings).anchors == plan.anchors


def test_a_plan_by_objects() -> None:
    prompt = SafetyPrompt("mine", "Be kind.")
    plan = make_plan(
        basic_prompt=prompt,
        harmful=QuerySet("own", "harmful", TEN),
        harmless=list(MORE),
        judge=lambda queries, responses: [True] * len(responses),
    )
    assert plan.basic.safety_prompt is prompt
    assert tuple(map(text_of, plan.anchors.texts)) == TEN + MORE
    assert (plan.names["harmful"], plan.names["harmless"]) == ("own", "own queries")
    assert plan.objects == ("basic_prompt", "harmful", "harmless", "judge")
    assert plan.settings.basic_prompt == "mine"
    assert plan.settings.queries.harmful == ("own",)


def test_sets_are_joined_by_name_and_as_objects(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("n,query\n" + "\n".join(f"1,{text}" for text in TEN))
    built_in = load_query_set("anchors", "harmful")
    by_name = plan_of(of("standard", method="dro", harmful=("anchors", f"{file}:query")))
    assert by_name.anchors.texts[:110] == built_in.texts + TEN
    assert by_name.names["harmful"] == "anchors+mine.csv:query"
    sets = [built_in, QuerySet("own", "harmful", TEN)]
    assert make_plan(method="dro", harmful=sets).anchors.texts[:110] == built_in.texts + TEN
    # A path and a single name do as well.
    assert make_plan(method="dro", harmful=f"{file}:query").anchors.texts[:10] == TEN
    (tmp_path / "mine.txt").write_text("\n".join(TEN))
    by_path = make_plan(harmful=tmp_path / "mine.txt")
    assert tuple(map(text_of, by_path.anchors.texts[:10])) == TEN


FIFTY = tuple(f"question {number}?" for number in range(50))


def conversations(**changes: Any) -> tuple[int, int, int]:
    """How many anchors are in a history, in an application, and in neither."""
    harmless = [f"other {query}" for query in FIFTY]
    plan = make_plan(harmful=list(FIFTY), harmless=harmless, **changes)
    assert tuple(map(text_of, plan.anchors.texts)) == (*FIFTY, *harmless)
    queries = plan.anchors.texts
    histories = sum(bool(history_of(one)) for one in queries)
    applications = sum(
        isinstance(one, Conversation) and one.system_prompt is not None for one in queries
    )
    return histories, applications, sum(isinstance(one, str) for one in queries)


def test_a_share_of_the_anchors_is_in_conversations(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("You answer questions on gardening.")
    assert conversations(histories=0, applications=0) == (0, 0, 100)
    assert conversations(histories=0.2, applications=0) == (20, 0, 80)
    assert conversations(histories=0, applications=0.2) == (0, 20, 80)
    assert conversations(histories=1, applications=1) == (100, 100, 0)
    assert conversations()[:2] == (10, 10)  # 0.1 of 50, of each label
    # An application of one's own leaves no room for others.
    assert conversations(histories=0.2, applications=0.5, system_prompt=own) == (20, 0, 80)
    assert conversations(system_prompt=own)[:2] == (10, 0)
    for method in ("dro", "vpt"):
        assert conversations(method=method) == (0, 0, 100)
        assert conversations(method=method, histories=0.2) == (20, 0, 80)


def test_the_mixing_follows_from_the_seed_and_is_for_anchors_alone() -> None:
    plan, other = make_plan(), make_plan(seed=1)
    assert plan.anchors == make_plan().anchors != other.anchors
    assert list(map(text_of, plan.anchors.texts)) == list(map(text_of, other.anchors.texts))
    assert plan.validation == other.validation == make_plan(histories=0).validation
    assert plan.held_out == other.held_out == make_plan(histories=0).held_out


@pytest.mark.parametrize("method", ["dro", "vpt"])
def test_methods_that_score_no_refusals_read_no_validation_queries(method: str) -> None:
    plan = make_plan(
        method=method, validation_harmful="nowhere.txt", validation_harmless="nowhere.csv:q"
    )
    assert plan.validation is None
    assert not [name for name in plan.names if name.startswith("validation")]
    with pytest.raises(DemurError, match=r"nowhere\.txt"):
        make_plan(validation_harmful="nowhere.txt")


def test_most_limits_each_label() -> None:
    sets: dict[str, Any] = {
        f"{kind}{label}": [f"{kind} {label} {number}" for number in range(30)]
        for kind in ("", "validation_", "held_out_")
        for label in ("harmful", "harmless")
    }
    plan = make_plan(**sets, most_anchors=11, most_validation=12, most_held_out=13)
    assert plan.validation is not None
    parts = (plan.anchors, plan.validation, plan.held_out)
    assert [one.labels.count("harmful") for one in parts] == [11, 12, 13]
    assert [one.labels.count("harmless") for one in parts] == [11, 12, 13]
    whole = make_plan(**sets, most_anchors=None, most_validation=None, most_held_out=None)
    assert whole.validation is not None
    for one in (whole.anchors, whole.validation, whole.held_out):
        assert (one.labels.count("harmful"), one.labels.count("harmless")) == (30, 30)


def test_held_out_queries_can_be_chosen() -> None:
    harmful, harmless = QuerySet("a", "harmful", TEN), QuerySet("b", "harmless", MORE)
    borderline, ordinary = (
        load_query_set(f"test:{name}", "harmless").texts for name in ("borderline", "ordinary")
    )
    built_in = load_query_set("held-out", "harmless")
    both = make_plan(held_out=[harmless, harmful])
    assert both.held_out.texts == TEN + MORE
    assert both.names["held_out_harmful"] == "a"
    assert both.names["held_out_harmless"] == "b"
    assert both.held_out.name == "a and b"
    default = make_plan(held_out=harmful)
    assert default.held_out.texts == TEN + borderline[:50] + ordinary[:50]
    assert default.names["held_out_harmless"] == "test:borderline+test:ordinary"
    one = make_plan(method="dro", held_out=harmful)
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
    for preset in ("standard", "thorough"):
        for method in ("likelihood", "dro"):
            assert make_plan(preset=preset, method=method).shared_queries == 0
    plan = make_plan(harmful=list(TEN), held_out=QuerySet("a", "harmful", TEN[5:] + MORE[:5]))
    assert plan.shared_queries == 5
    # What stands before a query does not make it another one.
    plan = make_plan(
        histories=1,
        applications=1,
        harmful=list(TEN),
        held_out=QuerySet("a", "harmful", TEN[5:] + MORE[:5]),
    )
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
        ({"method": "dro", "anchor_prompts": ("nowhere.txt",)}, "nowhere.txt"),
        ({"anchor_prompts": ("short",)}, "no setting 'anchor_prompts'"),
        ({"validation_harmful": "nowhere.txt"}, "nowhere.txt"),
        ({"validation_harmless": TEN[:9]}, "holds 9 distinct harmless queries.*at least 10"),
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
    before = make_plan(method="dro", anchor_prompts=(str(file),)).new_method().content()
    file.write_text(load_basic_prompt("short").text or "")
    after = make_plan(method="dro", anchor_prompts=(str(file),)).new_method().content()
    assert before != after
    assert after == make_plan(method="dro", anchor_prompts=("short",)).new_method().content()
